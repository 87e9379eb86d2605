"""Progress of many runs as text: one bar where lines can be rewritten, plain lines where they cannot."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm.std import tqdm

LINE_EVERY_S = 30.0
BAR_EVERY_S = {True: 2.0, False: 10.0}  # on a terminal, in a notebook's output


class Progress:
    """Follows the events of a pool.

    Args:
        title: what is running, such as the name of a notebook.
        has_bar: draw one bar; off, print a line for each finished run and one every 30 seconds.
        stream: where to write.
    """

    def __init__(self, title: str = "", has_bar: bool = True, stream: TextIO | None = None):
        self.title, self._stream = title, stream or sys.stderr
        self.trained, self.cached, self.failed = 0, 0, 0
        self.failures: list[dict] = []
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._has_bar, self._bar = has_bar, None
        self._started = self._last_line = time.monotonic()

    def __call__(self, event: dict) -> None:
        """Take one event in and show what changed."""
        getattr(self, f"_on_{event['event']}")(event)
        if self._has_bar:
            self._draw()

    def close(self) -> None:
        """Finish the bar, so that whatever is printed next has a line of its own."""
        if self._bar is not None:
            self._bar.refresh()
            self._bar.close()
            self._bar = None

    def _on_queued(self, event: dict) -> None:
        if not self._totals:
            self._started = self._last_line = time.monotonic()
        self._totals[event["run_id"]] = event["total"]

    def _on_started(self, event: dict) -> None:
        self._done[event["run_id"]] = 0

    def _on_progress(self, event: dict) -> None:
        self._done[event["run_id"]], self._totals[event["run_id"]] = event["done"], event["total"]
        if not self._has_bar and time.monotonic() - self._last_line >= LINE_EVERY_S:
            self._line(self._summary())

    def _on_finished(self, event: dict) -> None:
        if event["is_cached"]:
            self.cached += 1
            self._totals.pop(event["run_id"], None)
            return
        self.trained += 1
        self._done[event["run_id"]] = self._totals[event["run_id"]]
        if not self._has_bar:
            self._line(f"{event['label']} trained in {event['wall_s']:.0f} s; {self._summary()}")

    def _on_failed(self, event: dict) -> None:
        self.failed += 1
        self.failures.append(event)
        for counts in (self._totals, self._done):
            counts.pop(event["run_id"], None)
        log = f" Log: {event['log']}" if event["log"] else ""
        self._line(f"FAILED {event['label']} ({event['run_id']}): {event['message']}{log}")

    def _summary(self) -> str:
        """Runs done and in all, examples per second, time left."""
        done, total = sum(self._done.values()), sum(self._totals.values())
        rate = done / max(time.monotonic() - self._started, 1e-9)
        left = f"{rate:.0f} examples/s, {tqdm.format_interval((total - done) / rate)} left" if done else "starting"
        return f"{self.trained} of {len(self._totals)} runs, {left}"

    def _line(self, text: str) -> None:
        text = f"{self.title}: {text}" if self.title else text
        self._last_line = time.monotonic()
        tqdm.write(text, file=self._stream)
        self._stream.flush()

    def _draw(self) -> None:
        if not self._totals:
            return
        if self._bar is None:
            is_terminal = self._stream.isatty()
            settings = {"unit": "ex", "unit_scale": True, "dynamic_ncols": is_terminal, "file": self._stream}
            self._bar = tqdm(total=0, mininterval=BAR_EVERY_S[is_terminal], maxinterval=60.0, **settings)
        self._bar.total = sum(self._totals.values())
        self._bar.set_description(self.title, refresh=False)
        self._bar.set_postfix_str(f"{self.trained} of {len(self._totals)} runs", refresh=False)
        self._bar.update(sum(self._done.values()) - self._bar.n)
