"""Disturbs a smoke study at random, and compares what is left of it with an undisturbed one, byte for byte.

    python -m tests.chaos --minutes 30 --seed 0 [--only 02]

Each turn starts the runner and does one thing to it or before it: kill it, one of its workers or kernels, or all of
them; interrupt it; stop a process for a while; let every write above a random size fail, as on a full disk; cut, change
or empty files and delete runs; give it bad input. The same seed draws the same turns, though not the same moments of a
busy machine. At the end one undisturbed call completes the study. Then the seconds of training, which no two runs
share, are set to one in the records of both studies, and `--report-only` is called on both: all files must be the same.
Exit codes: 0 the same, 1 something differs or a turn ended as none should.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import psutil

from common.runs.store import RECORD, _sealed, _to_json

ROOT = Path(__file__).resolve().parents[1]
LONGEST_S, STOPPED_S, SPAN_S = 1200.0, 2.0, 60.0
# Done, input, environment, a run failed; ended by a signal, told by the runner (128 + number) or by the system.
EXPECTED = {0, 2, 3, 4, 130, 143, -signal.SIGKILL, -signal.SIGINT, -signal.SIGTERM}
BAD_INPUT = [["--data", "/nowhere"], ["--seeds", "x"], ["--encoder", ""], ["--only", "77"], ["--encoder", "~nobody/x"]]
# Locks and logs are nobody's input, and what killed runs leave is not compared.
UNTOUCHED = ("locks", "logs")


class Chaos:
    """A study that is disturbed: where it is, what is drawn, and what happened.

    out: its folder. span_s: within how many seconds of a call something happens to it. given: options of every call.
    """

    def __init__(self, out: Path, seed: int, span_s: float, given: list[str]):
        self.out, self.random, self.span_s, self.given = out, random.Random(seed), span_s, given
        self.turns, self.codes, self.complaints = Counter(), Counter(), []

    def turn(self) -> None:
        """One thing at random, and what came of it."""
        act = self.random.choice(TURNS)
        code = act(self)
        self.turns[act.__name__] += 1
        self.codes[code] += 1
        errors = (self.out / "errors").read_text(errors="replace")
        if code not in EXPECTED or "Traceback" in errors:
            self.complaints.append(f"{act.__name__}: exit code {code}\n{errors[-2000:]}")

    def call(
        self, *more: str, limit: int | None = None, disturb: Callable[[psutil.Process], None] | None = None
    ) -> int:
        """Call the runner to its end; its exit code.

        limit: no file may be longer, in bytes. disturb: done to it after a random time, unless it has ended.
        """

        def prepare() -> None:
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        environment = {**os.environ, "STUDY_OUT": str(self.out), "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "common.runner", "--profile", "smoke", *self.given, *more]
        self.out.mkdir(exist_ok=True)
        with open(self.out / "errors", "wb") as errors:
            pipes = {"stdout": subprocess.DEVNULL, "stderr": errors, "start_new_session": True}
            runner = subprocess.Popen(command, cwd=ROOT, env=environment, preexec_fn=prepare, **pipes)
        if disturb:
            try:
                runner.wait(self.random.uniform(0.2, self.span_s))
            except subprocess.TimeoutExpired:
                disturb(psutil.Process(runner.pid))
        return runner.wait(LONGEST_S)


def family(runner: psutil.Process) -> list[psutil.Process]:
    return [runner, *sorted(runner.children(recursive=True), key=lambda child: child.pid)]


def signalled(process: psutil.Process, number: int) -> None:
    if process.is_running():
        process.send_signal(number)


def killed_runner(chaos: Chaos) -> int:
    return chaos.call(disturb=lambda runner: runner.kill())


def killed_child(chaos: Chaos) -> int:
    return chaos.call(
        disturb=lambda runner: signalled(chaos.random.choice(family(runner)[1:] or [runner]), signal.SIGKILL)
    )


def killed_all(chaos: Chaos) -> int:
    return chaos.call(disturb=lambda runner: [signalled(each, signal.SIGKILL) for each in family(runner)])


def interrupted(chaos: Chaos) -> int:
    number = chaos.random.choice([signal.SIGINT, signal.SIGTERM])
    return chaos.call(disturb=lambda runner: signalled(runner, number))


def stopped(chaos: Chaos) -> int:
    def stop(runner: psutil.Process) -> None:
        chosen = chaos.random.choice(family(runner))
        signalled(chosen, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        signalled(chosen, signal.SIGCONT)

    return chaos.call(disturb=stop)


def full_disk(chaos: Chaos) -> int:
    return chaos.call(limit=2 ** chaos.random.randint(8, 20))


def bad_input(chaos: Chaos) -> int:
    return chaos.call(*chaos.random.choice(BAD_INPUT))


def damaged(chaos: Chaos) -> int:
    """Change some files and delete some runs, so that the next call has to find and to train."""
    every = [p for p in sorted(chaos.out.rglob("*")) if p.is_file() and not set(p.parts) & set(UNTOUCHED)]
    for path in chaos.random.sample(every, min(5, len(every))):
        content = path.read_bytes()
        at = chaos.random.randrange(len(content)) if content else 0
        flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :] if content else b"x"
        path.write_bytes(chaos.random.choice([content[:at], flipped, b"", content + b"x"]))
    runs = sorted(chaos.out.glob("build/smoke/results/smoke/runs/*-s*"))
    for folder in chaos.random.sample(runs, len(runs) // 3):
        shutil.rmtree(folder)
    return chaos.call(disturb=lambda runner: runner.kill()) if chaos.random.random() < 0.5 else chaos.call()


TURNS = [killed_runner, killed_child, killed_all, interrupted, stopped, full_disk, bad_input, damaged]


def timeless(value: object) -> object:
    """The same with every measured second as one."""
    if isinstance(value, dict):
        return {name: 1.0 if name == "wall_s" else timeless(item) for name, item in value.items()}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def results(out: Path) -> dict[str, bytes]:
    """What the study shows: records without times, cards, tables, figures, notebooks and the page."""
    root = out / "build" / "smoke"
    folders = (root / "results", root / "figures")
    return {
        str(p.relative_to(root)): p.read_bytes() for each in folders for p in sorted(each.rglob("*")) if p.is_file()
    }


def reported(chaos: Chaos) -> dict[str, bytes]:
    """Everything again from the records, whose seconds are set to one."""
    for path in chaos.out.glob(f"build/smoke/results/smoke/runs/*/{RECORD}"):
        path.write_bytes(_to_json(_sealed(timeless(json.loads(path.read_bytes())))))
    for folder in ("tables", "notebooks"):
        shutil.rmtree(chaos.out / "build" / "smoke" / "results" / "smoke" / folder, ignore_errors=True)
    shutil.rmtree(chaos.out / "build" / "smoke" / "figures", ignore_errors=True)
    if code := chaos.call("--report-only"):
        chaos.complaints.append(f"report: exit code {code}\n{(chaos.out / 'errors').read_text()[-2000:]}")
    return results(chaos.out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to disturb (default 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    parser.add_argument("--only", help="notebooks, as run_all.sh takes them (default all)")
    options = parser.parse_args()
    given = ["--only", options.only] if options.only else []
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        started = time.monotonic()
        calm = Chaos(Path(folder) / "calm", options.seed, 0, given)
        if code := calm.call():
            print((calm.out / "errors").read_text(), file=sys.stderr)
            return code
        span_s = min(time.monotonic() - started, SPAN_S)
        storm = Chaos(Path(folder) / "storm", options.seed, span_s, given)
        end = time.monotonic() + 60 * options.minutes
        while time.monotonic() < end:
            storm.turn()
        return compare(calm, storm, options)


def compare(calm: Chaos, storm: Chaos, options: argparse.Namespace) -> int:
    """Complete the disturbed study, and say what it was put through and whether it is the other one."""
    if code := storm.call():
        storm.complaints.append(f"undisturbed: exit code {code}\n{(storm.out / 'errors').read_text()[-2000:]}")
    here, there = reported(storm), reported(calm)
    differing = sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))
    print(f"seed {options.seed}, {options.minutes:g} minutes, {sum(storm.turns.values())} turns:", end=" ")
    print(", ".join(f"{name} {count}" for name, count in sorted(storm.turns.items())))
    print("exit codes:", ", ".join(f"{code} {count} times" for code, count in sorted(storm.codes.items())))
    print(f"{len(there)} files, {len(differing)} differ", *differing[:20], sep="\n  ")
    print(f"{len(storm.complaints)} turns ended as none should", *storm.complaints, sep="\n")
    return int(bool(differing or storm.complaints or calm.complaints))


if __name__ == "__main__":
    sys.exit(main())
