"""Progress of many runs as text: one bar where lines can be rewritten, plain lines where they cannot."""

from __future__ import annotations

import sys
import time

from tqdm.std import tqdm

LINE_EVERY_S = 30.0
BAR_EVERY_S = {True: 2.0, False: 10.0}  # on a terminal, in a notebook's output


class Progress:
    """Follows the events of a pool on standard error.

    Args:
        title: what is running, such as the name of a notebook.
        has_bar: draw one bar; off, print a line for each finished run and one every 30 seconds.
    """

    def __init__(self, title: str = "", has_bar: bool = True):
        self.title, self.trained, self.failures = title, 0, []
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._started = self._last_line = time.monotonic()
        self._has_bar, self._bar = has_bar, None

    def __call__(self, event: dict) -> None:
        """Take one event in and show what changed."""
        getattr(self, f"_on_{event['event']}")(event["run_id"], event)
        if not self._has_bar:
            return
        if self._bar is None:
            is_terminal = sys.stderr.isatty()
            pace = {"mininterval": BAR_EVERY_S[is_terminal], "dynamic_ncols": is_terminal}
            self._bar = tqdm(total=0, desc=self.title, unit="ex", unit_scale=True, **pace)
        self._bar.total = sum(self._totals.values())
        self._bar.set_postfix_str(f"{self.trained} of {len(self._totals)} runs", refresh=False)
        self._bar.update(sum(self._done.values()) - self._bar.n)

    def close(self) -> None:
        """Finish the bar, so that whatever is printed next has a line of its own."""
        if self._bar is not None:
            self._bar.close()

    def _on_queued(self, run_id: str, event: dict) -> None:
        self._totals[run_id] = event["total"]

    def _on_started(self, run_id: str, event: dict) -> None:
        self._done[run_id] = 0

    def _on_progress(self, run_id: str, event: dict) -> None:
        self._done[run_id], self._totals[run_id] = event["done"], event["total"]
        if time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._line(self._summary())

    def _on_finished(self, run_id: str, event: dict) -> None:
        if event["is_cached"]:
            self._totals.pop(run_id, None)
            return
        self.trained += 1
        self._done[run_id] = self._totals.setdefault(run_id, 0)
        self._line(f"{event['label']} trained in {event['wall_s']:.0f} s; {self._summary()}")

    def _on_failed(self, run_id: str, event: dict) -> None:
        self.failures.append(event)
        for counts in (self._totals, self._done):
            counts.pop(run_id, None)
        log = f" Log: {event['log']}" if event["log"] else ""
        self._line(f"FAILED {event['label']} ({run_id}): {event['message']}{log}", is_needed=True)

    def _summary(self) -> str:
        """Runs done and in all, examples per second, time left."""
        done, total = sum(self._done.values()), sum(self._totals.values())
        rate = done / (time.monotonic() - self._started)
        left = f"{rate:.0f} examples/s, {tqdm.format_interval((total - done) / rate)} left" if done else "starting"
        return f"{self.trained} of {len(self._totals)} runs, {left}"

    def _line(self, text: str, is_needed: bool = False) -> None:
        self._last_line = time.monotonic()
        if is_needed or not self._has_bar:
            tqdm.write(f"{self.title}: {text}" if self.title else text, file=sys.stderr)
