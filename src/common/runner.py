"""What run_all.sh calls: every run that the notebooks announce, then every notebook, into results/ and figures/.

All announced runs are trained first and the announced cards made; then each notebook is executed once, as many at once
as runs, from the records, and published. What a notebook adds to its announced rows its own kernel trains. Exit codes:
0 done, 2 input refused, 3 environment, 4 a run or a notebook failed (--verify: a file differs), 129, 130, 141 and 143
stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import torch
from filelock import FileLock, Timeout
from tqdm.std import tqdm

from common import cli, notebooks, verify
from common.declare.profile import REPORT_TRAIN
from common.declare.rows import row, rows
from common.errors import DONE, ENVIRONMENT, FAILED, INPUT, StudyError
from common.files import atomic_write, refuse_without_locks, sweep
from common.model.weights import SHIPPED
from common.report import page
from common.results.export import export
from common.results.facts import data_card, labels_card, parity_card
from common.results.subsets import words_card
from common.results.toy import toy_card
from common.runs.combine import random_answers
from common.runs.estimate import estimated_hours, measured_rate
from common.runs.pool import Event, thread_environment
from common.runs.session import Planned, Study, open_study
from common.training.loop import code_hash

KNOWN = {"embedded", "hub", "minilm-l6", *SHIPPED}
NEEDED_MB = 200
PATIENCE_S = 3.0
OWNER = "owner.lock"
LONGEST_FOLDER = 80  # a socket's whole path holds 108 bytes on Linux, 104 on macOS
CARDS: dict[str, Callable[[Study], object]] = {
    "data": data_card,
    "labels": labels_card,
    "parity": parity_card,
    "random": lambda study: [random_answers(study, seed) for seed in study.seeds],
    "toy": toy_card,
    "words": words_card,
}


class StoppedError(BaseException):
    """A signal asked the runner to end; its only argument is the signal's number."""


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options = cli.parser().parse_args(given)
    handlers = {number: signal.signal(number, _stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        code = _run(options)
        sys.stdout.flush()
        return code
    except StudyError as error:
        print(error.message(), file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:  # what showed our output, such as head, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        what = f"{error.filename or 'system'}: {error.strerror or error} [E-SYSTEM]"
        print(what, "Mend the place it names, or set STUDY_OUT to another folder.", file=sys.stderr)
        return ENVIRONMENT
    except StoppedError as stopped:
        again = shlex.join(["./run_all.sh", *given])
        print(f"\nStopped. Finished runs are kept; to go on: {again}", file=sys.stderr, flush=True)
        os._exit(128 + stopped.args[0])  # the client of a killed kernel may still wait in its thread
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _run(options: argparse.Namespace) -> int:
    _refuse_empty(options)
    data, encoder = _absolute(options.data), _absolute(options.encoder)
    given = (options.profile, data, encoder, options.seeds, options.jobs, options.report_only)
    study = open_study(*given, options.scheduler, options.open_scheduler)
    study = replace(study, keep_weights=options.keep_weights)
    if options.export_predictions is not None:
        print(study, flush=True)
        for folder in export(study, options.export_predictions):
            print(f"In {notebooks.shown(folder)}")
        return DONE
    chosen = notebooks.find(options.only)
    for path in chosen:
        notebooks.check(path, _parameters(study), CARDS)
    print(study, flush=True)
    if options.verify:
        return _verify(study, chosen, is_whole=options.only is None)
    _check_places(study)
    held = [record for _, record in _planned(study, chosen) if record]
    if study.report_only:
        study.refuse_stale(held)
    if options.dry_run:
        return _dry_run(study, chosen, set() if options.force else {record.run_id for record in held})
    started = time.monotonic()
    with _private_folder() as folder, _no_child_left():
        notebooks.prepare_kernels(folder, thread_environment(study.profile.threads))
        events = {}
        if not study.report_only:
            _say_if_code_changed(held, options.force)
            events = study.train([plan for path in chosen for plan in _announced(study, path)], options.force)
            _make_cards(study, chosen)
        codes = _publish_all(chosen, study, events, folder)
        page.write(study.places)
    failed = [path.stem for path, code in codes.items() if code != DONE]
    _summarise(study, events, len(held), len(codes), failed, time.monotonic() - started)
    return _worst(codes)


def _worst(codes: dict[Path, int]) -> int:
    return next((code for code in (ENVIRONMENT, FAILED) if code in codes.values()), DONE)


def _verify(study: Study, chosen: list[Path], is_whole: bool) -> int:
    """Make everything again from the records, in a private folder, and name each published file that is not the same.

    Files are compared only when all chosen notebooks ran to their end.
    """
    with _private_folder() as folder, _no_child_left():
        out = {"STUDY_OUT": str(folder / "out")}
        notebooks.prepare_kernels(folder, thread_environment(study.profile.threads) | out)
        again = verify.apart(study)
        again.refuse_stale([record for _, record in _planned(again, chosen) if record])
        codes = _publish_all(chosen, again, {}, folder)
        page.write(again.places)
        numbers = None if is_whole else {path.name[:2] for path in chosen}
        found = [] if any(codes.values()) else verify.differences(study.places, again.places, numbers)
    for how, path in found:
        print(f"  {how:8} {notebooks.shown(path)}")
    if _worst(codes) != DONE:
        print("Nothing was compared: not every notebook could be made again.")
        return _worst(codes)
    print(f"{len(found) or 'All'} files are {'not ' if found else ''}what the records make.")
    return FAILED if found else DONE


def _refuse_empty(options: argparse.Namespace) -> None:
    """An empty value is most likely a variable that a script did not set: no default may take its place."""
    given = {f"--{name.replace('_', '-')}": value for name, value in vars(options).items()}
    given |= {name: os.environ.get(name) for name in ("STUDY_OUT", "STUDY_PROFILE")}
    for name, value in given.items():
        if isinstance(value, str) and not value.strip():
            raise StudyError("E-OPTION", name, "is empty.", "Give it a value, or leave it out.")


def _absolute(name: str | None) -> str | None:
    """A folder in full, for kernels and workers; a relative one starts where run_all.sh was called.

    A known name is no folder, even where one of that name lies there: ./name is.
    """
    if name in KNOWN:
        return name
    prefix, colon, folder = (name or "").rpartition(":")
    path = Path(os.environ.get("STUDY_CALLED_FROM", "."), os.path.expanduser(folder))
    return f"{prefix}{colon}{path.resolve()}" if folder and path.is_dir() else name


def _parameters(study: Study, at_once: int = 1) -> dict[str, object]:
    """What an execution is given that may train what the notebook adds itself, beside others `at_once`."""
    loaded = {"data": study.source, "encoder": study.encoder_source}
    numbers = {"seeds": list(study.seeds), "jobs": max(1, study.jobs // at_once)}
    return {"profile": study.profile.name, **loaded, **numbers, "report_only": False}


def _published_parameters(study: Study) -> dict[str, object]:
    """What a published copy says it was given: names, and only where they are not the profile's.

    With this anyone can execute it, from the records.
    """
    names = ((name, getattr(study, name)) for name in ("data", "encoder"))
    given = {name: value for name, value in names if value != getattr(study.profile, name)}
    return {"profile": study.profile.name, "seeds": list(study.seeds), "report_only": True, **given}


def _check_places(study: Study) -> None:
    """Find out before training whether everything can be written; nothing is left behind."""
    for folder in (study.places.results, study.places.figures, study.places.build, study.places.locks):
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        probe = existing / f".writable-{uuid.uuid4().hex}"  # not that of another run_all
        atomic_write(probe, b"")
        probe.unlink()
        sweep(folder)
    refuse_without_locks(existing)
    free = shutil.disk_usage(existing).free / 2**20
    if free < NEEDED_MB:
        what = f"{free:.0f} MB are free, {NEEDED_MB} are needed."
        raise StudyError("E-DISK", study.places.build, what, "Free some space, or set STUDY_OUT to another disk.")


def _make_cards(study: Study, chosen: list[Path]) -> None:
    torch.set_num_threads(study.profile.threads or torch.get_num_threads())  # as in a kernel: the same numbers
    for name in dict.fromkeys(name for path in chosen for name in notebooks.cards(path)):
        CARDS[name](study)


def _publish_all(chosen: list[Path], study: Study, events: dict[str, Event], folder: Path) -> dict[Path, int]:
    """Execute and publish the notebooks, as many at once as runs; the exit code that each by itself would give."""

    def publish(path: Path) -> int:
        started = time.monotonic()
        try:
            _publish(path, study, events, folder, min(study.jobs, len(chosen)))
        except Exception as error:  # the boundary of one notebook: the others go on, whatever happens
            tqdm.write(f"FAILED {_told(path, study, error)}", file=sys.stderr)
            return ENVIRONMENT if _is_environment(error) else FAILED
        tqdm.write(f"{path.stem}: done in {time.monotonic() - started:.0f} s")
        sys.stdout.flush()
        return DONE

    # Not as a context, which would wait for every notebook when a signal ends this one.
    return dict(zip(chosen, ThreadPoolExecutor(study.jobs).map(publish, chosen), strict=True))


def _publish(path: Path, study: Study, events: dict[str, Event], folder: Path, at_once: int) -> None:
    """Execute a notebook and put it in its place.

    Raises:
        NotebookError: it did not run to its end, or a run failed that it announces or adds.
    """
    partial, shown = study.places.build / f"{path.stem}.partial.ipynb", _published_parameters(study)
    announced = dict.fromkeys(plan.run_id for plan in _announced(study, path))
    failures = [events[i]["label"] for i in announced if i in events and events[i]["event"] == "failed"]
    with _alone(path, study):
        if not failures:
            given = shown if study.report_only else _parameters(study, at_once)
            node = notebooks.execute(path, partial, given, folder)
            failures = notebooks.failures(node)
        if failures:
            what = f"{path.stem}: not published, {len(failures)} runs failed: {', '.join(failures)}"
            raise notebooks.NotebookError(what)
        notebooks.publish(node, study.places.notebooks / path.name, shown)
        partial.unlink()


def _told(path: Path, study: Study, error: Exception) -> str:
    """The line for an error; what nobody expected is told in full in a log."""
    if isinstance(error, notebooks.NotebookError | StudyError):
        return str(error)
    line, log = f"{path.stem}: {type(error).__name__}: {error}", study.places.logs / f"{path.stem}.log"
    with contextlib.suppress(OSError):  # a full disk has no room for it either
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        return f"{line}\n  Log: {notebooks.shown(log)}"
    return line


def _is_environment(error: Exception) -> bool:
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return is_full or (isinstance(error, StudyError) and error.exit_code == ENVIRONMENT)


@contextlib.contextmanager
def _alone(path: Path, study: Study) -> Iterator[None]:
    """Two runners at once take turns on a notebook, so that neither writes over the other's copy, tables or figures."""
    study.places.locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(study.places.locks / f"{path.stem}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{path.stem}: another run_all is at it; waiting for its turn", flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _planned(study: Study, chosen: list[Path]) -> list[tuple[Planned, dict | None]]:
    """Each run the notebooks announce, with its record where the store holds it; variants they make are not here."""
    plans = [plan for path in chosen for plan in _announced(study, path)]
    store, distinct = study.store, {plan.run_id: plan for plan in plans}
    return [(plan, store.get(run_id) if store.has(run_id) else None) for run_id, plan in distinct.items()]


def _announced(study: Study, path: Path) -> list[Planned]:
    entries = dict.fromkeys(notebooks.planned(path))
    return study.plan(r for entry in entries for r in (rows(*entry) if len(entry) == 2 else [row(*entry)]))


def _say_if_code_changed(held: list[dict], force: bool) -> None:
    code = code_hash()
    others = sum(record["environment"]["code"] != code for record in held)
    if others and not force:
        note = "finished runs were trained by another version of the code; --force trains them again."
        print(f"Note: {others} of {len(held)} {note}", flush=True)


def _dry_run(study: Study, chosen: list[Path], held: set[str]) -> int:
    """Say what a call would train and how long it would take here, after checking what the call would check.

    Variants that a notebook makes itself come on top. A report trains nothing, and needs neither data nor encoder.
    `held` are the runs that are not trained again.
    """
    if not study.report_only:
        study.check(plan for path in chosen for plan in _announced(study, path))
    lacking, specs = "missing" if study.report_only else "to train", {}
    for path in chosen:
        plans = {plan.run_id: plan for plan in _announced(study, path)}
        missing = [plan for run_id, plan in plans.items() if run_id not in held or study.lacks_weights(run_id)]
        print(f"{path.stem}: {len(plans)} runs, {len(plans) - len(missing)} in the store, {len(missing)} {lacking}")
        for plan in missing:
            print(f"  {plan}, {plan.applied.total_examples(REPORT_TRAIN):,} examples")
            specs[plan.run_id] = plan.applied
    if not specs or study.report_only:
        print(f"In all: {f'{len(specs)} runs are {lacking}' if specs else f'nothing {lacking}'}")
        return INPUT if specs else DONE
    examples = sum(spec.total_examples(REPORT_TRAIN) for spec in specs.values())
    hours = estimated_hours(list(specs.values()), measured_rate(study), study.jobs)
    told = f"{hours:.1f} hours" if hours > 1 else f"{60 * hours:.0f} minutes"
    print(f"In all {len(specs)} runs, {examples:,} examples, {study.jobs} at once: about {told} by this machine's rate")
    return DONE


def _summarise(
    study: Study, events: dict[str, Event], held: int, notebooks_: int, failed: list[str], seconds: float
) -> None:
    ends = Counter("cached" if event.get("is_cached") else event["event"] for event in events.values())
    runs = f"{ends['finished']} trained, {held} were in the store, {ends['failed']} failed"
    print(f"\nRuns: {runs}. Notebooks: {notebooks_ - len(failed)} of {notebooks_} published. {seconds:.0f} s.")
    for name in ("index", "tables", "notebooks", "figures"):
        path = getattr(study.places, name)
        if path.exists():
            print(f"  {name:10} {notebooks.shown(path)}")
    if failed:
        logs = notebooks.shown(study.places.logs)
        print(f"  failed     {', '.join(failed)}; the messages are above, logs in {logs}")


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """A new folder that only this user can enter, with a path short enough for sockets in it."""
    root = tempfile.gettempdir()
    short = root if len(os.fsencode(root)) < LONGEST_FOLDER else "/tmp"
    _sweep_private(Path(short))
    made = Path(tempfile.mkdtemp(prefix=".study-", dir=short))
    folder = made.with_name(made.name[1:])
    with FileLock(made / OWNER):  # it is there before the name is by which others look for what was left
        made.rename(folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep_private(root: Path) -> None:
    """Remove the private folders of runners that were killed: nobody holds their lock."""
    for left in root.glob("study-*"):
        if (left / OWNER).is_file() and left.stat().st_uid == os.getuid():
            with contextlib.suppress(Timeout, OSError), FileLock(left / OWNER, timeout=0):
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _no_child_left() -> Iterator[None]:
    """Kernels and workers live in sessions of their own, so no signal reaches them: end what is left of them."""
    try:
        yield
    finally:
        killed = []
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if not any("resource_tracker" in word for word in child.cmdline()):  # Python's own, ends with us
                    child.kill()
                    killed.append(child)
        psutil.wait_procs(killed, timeout=PATIENCE_S)


def _stop(number: int, frame: object) -> None:
    """Unwind once; a second signal ends at once (workers and kernels then notice that they are alone)."""
    signal.signal(number, lambda again, _: os._exit(128 + again))
    raise StoppedError(number)


if __name__ == "__main__":
    sys.exit(main())
