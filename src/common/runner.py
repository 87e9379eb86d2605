"""What run_all.sh calls: every notebook in order, over one pool of workers, into results/ and figures/.

The runs that notebooks announce are trained in one go, and the cards they announce made here; meanwhile each notebook
whose runs are there is executed, from the records alone, and published. Only one that makes variants of its own, or
lacks a run that failed, is executed in training mode as well. Exit codes: 0 done, 2 input refused, 3 environment, 4 a
run or a notebook failed, 129, 130 and 143 stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch
from filelock import FileLock, Timeout
from nbformat import NotebookNode
from tqdm.std import tqdm

from common import cli, notebooks
from common.errors import StudyError
from common.report import gallery
from common.spec import REPORT_TRAIN
from common.study.cards import data_card, labels_card, parity_card
from common.study.combine import random_answers
from common.study.estimate import estimated_hours, measured_rate
from common.study.execute import FORCE, POOL, Broker, Event, Pool, private_folder, results, thread_environment
from common.study.export import export
from common.study.progress import Progress
from common.study.rows import row, rows
from common.study.session import Planned, Study, open_study
from common.study.store import atomic_write
from common.study.toy import toy_card
from common.study.words import words_card
from common.training.loop import code_hash

DONE, INPUT, ENVIRONMENT, FAILED = 0, 2, 3, 4
ENVIRONMENT_CODES = ("E-WRITE", "E-DISK", "E-HUB", "E-POOL")
NEEDED_MB = 200
PATIENCE_S = 3.0
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


@dataclass
class Tally:
    """What came of everything."""

    trained: int = 0
    failed_runs: int = 0
    published: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line asks for; the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options = cli.parser().parse_args(given)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    try:
        return _run(options)
    except StudyError as error:
        print(error.message(), file=sys.stderr)
        return ENVIRONMENT if error.code in ENVIRONMENT_CODES else INPUT
    except StoppedError as stopped:
        again = shlex.join(["./run_all.sh", *given])
        print(f"\nStopped. Finished runs are kept; to go on: {again}", file=sys.stderr, flush=True)
        os._exit(128 + stopped.args[0])  # the client of a killed kernel may still wait in its thread


def _run(options: argparse.Namespace) -> int:
    data, encoder = _absolute(options.data), _absolute(options.encoder)
    study = open_study(options.profile, data, encoder, options.seeds, options.jobs, options.report_only)
    if options.export_predictions:
        print(study, flush=True)
        print(f"In {notebooks.shown(export(study, options.export_predictions))}")
        return DONE
    chosen = notebooks.find(options.only)
    for path in chosen:
        notebooks.check(path, _parameters(study), CARDS)
    print(study, flush=True)
    if options.dry_run:
        return _dry_run(study, chosen, options.force)
    _check_places(study)
    held = [record for _, record in _planned(study, chosen) if record]
    with private_folder() as folder, _no_child_left():
        notebooks.prepare_kernels(Path(folder), thread_environment(study.profile.threads))
        started, tally = time.monotonic(), Tally()
        if study.report_only:
            study.refuse_stale(held)
            _run_notebooks(chosen, study, None, Path(folder), tally)
        else:
            study.corpus()  # every problem of the data is told before anything is trained
            study.encoder_folder()
            _say_if_code_changed(held, options.force)
            with _training(study, options.force, tally) as broker:
                _run_notebooks(chosen, study, broker, Path(folder), tally)
        gallery.write(study.places)
    _summarise(study, tally, len(held), time.monotonic() - started)
    return FAILED if tally.failed else DONE


def _absolute(name: str | None) -> str | None:
    """A folder in full, for kernels and workers; a relative one starts where run_all.sh was called."""
    prefix, colon, folder = (name or "").rpartition(":")
    path = Path(os.environ.get("STUDY_CALLED_FROM", "."), Path(folder).expanduser())
    return f"{prefix}{colon}{path.resolve()}" if folder and path.is_dir() else name


def _parameters(study: Study) -> dict[str, object]:
    """What a training execution is given."""
    loaded = {"data": study.source, "encoder": study.encoder_source}
    numbers = {"seeds": list(study.seeds), "jobs": study.jobs}
    return {"profile": study.profile.name, **loaded, **numbers, "report_only": False}


def _published_parameters(study: Study) -> dict[str, object]:
    """What the published execution is given: names, and only where they are not the profile's."""
    names = ((name, getattr(study, name)) for name in ("data", "encoder"))
    given = {name: value for name, value in names if value != getattr(study.profile, name)}
    return {"profile": study.profile.name, "seeds": list(study.seeds), "report_only": True, **given}


def _check_places(study: Study) -> None:
    """Find out before training whether everything can be written."""
    for folder in (study.places.build, study.places.results, study.places.figures):
        probe = folder / ".writable"
        atomic_write(probe, b"")
        probe.unlink()
    free = shutil.disk_usage(study.places.build).free / 2**20
    if free < NEEDED_MB:
        what = f"{free:.0f} MB are free, {NEEDED_MB} are needed."
        raise StudyError("E-DISK", study.places.build, what, "Free some space, or set STUDY_OUT to another disk.")


@contextlib.contextmanager
def _training(study: Study, force: bool, tally: Tally) -> Iterator[Broker]:
    """The pool of this run_all, which the runner and every kernel ask for runs."""
    pool = Pool(study.jobs, study.profile.threads)
    pool.watch = progress = Progress(has_bar=sys.stderr.isatty())
    broker = Broker(pool)
    os.environ |= {POOL: broker.address, FORCE: "1" if force else ""}
    try:
        yield broker
    finally:
        pool.close()
        broker.close()
        progress.close()
        tally.trained, tally.failed_runs = progress.trained, len(progress.failures)


def _run_notebooks(chosen: list[Path], study: Study, broker: Broker | None, folder: Path, tally: Tally) -> None:
    """Train (where there is a broker) and publish each notebook, as many at once as runs; none stops another."""
    runs = {}
    if broker:
        runs = {p: broker.submit(study.jobs_for(_announced(study, p)), rank) for rank, p in enumerate(chosen)}
        torch.set_num_threads(study.profile.threads or torch.get_num_threads())  # as in a kernel: the same numbers
        for name in dict.fromkeys(name for path in chosen for name in notebooks.cards(path)):
            CARDS[name](study)

    def publish(path: Path) -> bool:
        started, partial = time.monotonic(), study.places.build / f"{path.stem}.partial.ipynb"
        try:
            with _alone(path, study):
                node = _executed(path, partial, study, broker, runs.get(path, {}), folder)
                notebooks.publish(node, study.places.notebooks / path.name)
                partial.unlink()
        except (notebooks.NotebookError, StudyError) as error:
            tqdm.write(f"FAILED {error}", file=sys.stderr)
            return False
        tqdm.write(f"{path.stem}: done in {time.monotonic() - started:.0f} s")
        sys.stdout.flush()
        return True

    # Not as a context, which would wait for every notebook when a signal ends this one.
    for path, is_published in zip(chosen, ThreadPoolExecutor(study.jobs).map(publish, chosen), strict=True):
        (tally.published if is_published else tally.failed).append(path.stem)


def _executed(
    path: Path, partial: Path, study: Study, broker: Broker | None, runs: dict[str, Future[Event]], folder: Path
) -> NotebookNode:
    """The notebook from the records alone, once the runs it announces are there.

    Where one failed, or the notebook makes variants of its own, it is executed in training mode first.

    Raises:
        NotebookError: it did not run to its end, or runs failed; `partial` then shows holes in their places.
    """
    from_records = functools.partial(notebooks.execute, path, partial, _published_parameters(study), folder)
    if not (broker and _labels_failed(runs)):
        try:
            return from_records()
        except notebooks.NotebookError as error:
            if not broker or "[E-MISSING]" not in str(error):
                raise
    before = set(broker.asked)
    notebooks.execute(path, partial, _parameters(study), folder)
    variants = {run_id: future for run_id, future in broker.asked.items() if run_id not in before}
    if labels := _labels_failed(runs | variants):
        raise notebooks.NotebookError(f"{path.stem}: not published, {len(labels)} runs failed: {', '.join(labels)}")
    return from_records()


def _labels_failed(runs: dict[str, Future[Event]]) -> list[str]:
    """Wait for runs; which of them failed."""
    return [event["label"] for event in results(runs).values() if event["event"] == "failed"]


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


def _dry_run(study: Study, chosen: list[Path], force: bool) -> int:
    """Say what a call would train and how long it would take here, after checking what the call would check.

    Variants that a notebook makes itself come on top.
    """
    study.corpus()
    study.encoder_folder()
    for path in chosen:
        planned = _planned(study, [path])
        missing = [plan for plan, record in planned if force or not record]
        print(f"{path.stem}: {len(planned)} runs, {len(planned) - len(missing)} in the store, {len(missing)} to train")
        for plan in missing:
            print(f"  {plan}, {plan.applied.total_examples(REPORT_TRAIN):,} examples")
    specs = [plan.applied for plan, record in _planned(study, chosen) if force or not record]
    if not specs:
        print("In all: nothing to train")
        return DONE
    examples = sum(spec.total_examples(REPORT_TRAIN) for spec in specs)
    hours = estimated_hours(specs, measured_rate(study), study.jobs)
    told = f"{hours:.1f} hours" if hours > 1 else f"{60 * hours:.0f} minutes"
    print(f"In all {len(specs)} runs, {examples:,} examples, {study.jobs} at once: about {told} by this machine's rate")
    return DONE


def _summarise(study: Study, tally: Tally, held: int, seconds: float) -> None:
    runs = f"{tally.trained} trained, {held} were in the store, {tally.failed_runs} failed"
    count = len(tally.published) + len(tally.failed)
    print(f"\nRuns: {runs}. Notebooks: {len(tally.published)} of {count} published. {seconds:.0f} s.")
    for name in ("index", "tables", "notebooks", "figures"):
        path = getattr(study.places, name)
        if path.exists():
            print(f"  {name:10} {notebooks.shown(path)}")
    if tally.failed:
        names, logs = ", ".join(tally.failed), notebooks.shown(study.places.logs)
        print(f"  failed     {names}; the messages are above, logs in {logs}")


@contextlib.contextmanager
def _no_child_left() -> Iterator[None]:
    """Kernels and workers live in sessions of their own, so no signal reaches them: end what is left of them."""
    try:
        yield
    finally:
        children = psutil.Process().children(recursive=True)
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=PATIENCE_S)


def _stop(number: int, frame: object) -> None:
    """Unwind once; a second signal ends at once (workers and kernels then notice that they are alone)."""
    signal.signal(number, lambda again, _: os._exit(128 + again))
    raise StoppedError(number)


if __name__ == "__main__":
    sys.exit(main())
