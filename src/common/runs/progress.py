"""Progress of many runs as text: one bar where lines can be rewritten, plain lines where they cannot, and a log."""

from __future__ import annotations

import functools
import io
import sys
import time
from pathlib import Path
from typing import TextIO

from tqdm.std import tqdm

LINE_EVERY_S = 30.0
BAR_EVERY_S = 2.0
FAILED = "FAILED"  # begins the line of a failed run, by which the runner knows it


def terminal() -> TextIO:
    """Standard error; from a notebook's kernel that of the program that started it, so that no output tells of it."""
    kernel = sys.modules.get("ipykernel.iostream")
    if not (kernel and isinstance(sys.stderr, kernel.OutStream)):
        return sys.stderr
    try:
        return _opened(sys.stderr.fileno())
    except io.UnsupportedOperation:  # this kernel takes what Python prints, not what goes to the file of that number
        return sys.__stderr__


@functools.cache
def _opened(number: int) -> TextIO:
    return open(number, "w", encoding="utf-8", errors="replace", buffering=1, closefd=False)  # noqa: SIM115


class Progress:
    """Follows the events of runs.

    Args:
        log: a file that gets every line, whatever the terminal shows.
        title: what is running, such as the name of a run.
        stream: where to show it; on a terminal that is one bar, elsewhere a line for each finished run and one every
            30 seconds.
    """

    def __init__(self, log: Path | None = None, title: str = "", stream: TextIO | None = None):
        self.title, self.stream, self.trained = title, stream or terminal(), 0
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._started = self._last_line = time.monotonic()
        self._bar, self._log = None, log
        if log:
            log.parent.mkdir(parents=True, exist_ok=True)

    def __call__(self, event: dict) -> None:
        """Take one event in and show what changed."""
        getattr(self, f"_on_{event['event']}")(event["run_id"], event)
        if not self.stream.isatty():
            return
        if self._bar is None:
            pace = {"mininterval": BAR_EVERY_S, "dynamic_ncols": True}
            self._bar = tqdm(total=0, desc=self.title, unit="ex", unit_scale=True, file=self.stream, **pace)
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
        for counts in (self._totals, self._done):
            counts.pop(run_id, None)
        self._line(told_failure(run_id, event), is_needed=True)

    def _summary(self) -> str:
        """Runs done and in all, examples per second, time left."""
        done, total = sum(self._done.values()), sum(self._totals.values())
        rate = done / (time.monotonic() - self._started)
        left = f"{rate:.0f} examples/s, {tqdm.format_interval((total - done) / rate)} left" if done else "starting"
        return f"{self.trained} of {len(self._totals)} runs, {left}"

    def _line(self, text: str, is_needed: bool = False) -> None:
        self._last_line = time.monotonic()
        line = f"{self.title}: {text}" if self.title else text
        if self._log is not None:
            with open(self._log, "a", encoding="utf-8") as file:
                print(f"{time.strftime('%F %T')} {line}", file=file)
        if is_needed or not self.stream.isatty():
            tqdm.write(line, file=self.stream)


def told_failure(run_id: str, event: dict) -> str:
    """The line that tells of a failed run."""
    log = f" Log: {event['log']}" if event["log"] else ""
    return f"{FAILED} {event['label']} ({run_id}): {event['message']}{log}"
