"""Notebooks as the runner sees them: found, checked, executed by papermill, published without a trace of the machine.

papermill writes to a `.partial` under build/; its metadata is never taken as proof that a cell has run. Only a notebook
whose execution returned is cleaned and moved into results/.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import logging
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path

import nbformat
import papermill
import psutil
import zmq
from ipykernel.kernelspec import write_kernel_spec
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from papermill.exceptions import PapermillExecutionError
from papermill.translators import translate_parameters
from traitlets.config import Config

from common import paths
from common.errors import StudyError
from common.files import atomic_write
from common.runs.progress import FAILED

KERNEL = "python3"
START_TIMEOUT_S = 120
# A kernel that computes, or whose workers do, uses far more than this share of a processor in the time after which one
# that does not is taken for hanging.
SILENCE_S, IDLE_SHARE = 600.0, 1e-4
LOOK_EVERY_S, DUMP_S = 1.0, 1.0
# Run by every kernel at its start: SIGUSR1 has it write where each of its threads is.
STACKS = """\
import faulthandler, os, pathlib, signal
_stacks = open(pathlib.Path(os.environ["IPYTHONDIR"]) / f"{os.getpid()}.stacks", "w")
faulthandler.register(signal.SIGUSR1, file=_stacks)
del faulthandler, os, pathlib, signal
"""
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": KERNEL},
    "language_info": {"name": "python"},
}


class NotebookError(Exception):
    """A notebook that did not run to its end: the cell, what it raised, and where the copy with the traceback is."""


class HangingError(Exception):
    """A kernel that did nothing any more, and where it was."""


def find(only: list[str] | None) -> list[Path]:
    """The notebooks to run, in lexical order: all, or those whose number or name is in `only`."""
    every = sorted(paths.NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
    if only is None:
        return every
    known = {key: path for path in every for key in (path.stem[:2], path.stem)}
    for name in only:
        if name not in known:
            listed = ", ".join(path.stem for path in every) or "none"
            what = f"there is no notebook {name!r}.{_meant(name, known)}"
            raise StudyError("E-NOTEBOOK", "--only", what, f"Known: {listed}.")
    return [path for path in every if path in {known[name] for name in only}]


def check(path: Path, parameters: Iterable[str], makers: Iterable[str]) -> None:
    """Refuse a notebook that cannot be read, asks for another kernel, lacks a parameter, or announces unknown cards."""
    try:
        node = nbformat.read(path, as_version=4)
        nbformat.validate(node)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        what = f"is no valid notebook: {str(error).splitlines()[0]}"
        raise StudyError("E-NOTEBOOK", str(path), what, "Restore the file.") from error
    kernel = node.metadata.get("kernelspec", {}).get("name")
    if kernel != KERNEL:
        raise StudyError("E-NOTEBOOK", str(path), f"its kernel is {kernel!r}.", f"Store it with the kernel {KERNEL}.")
    tagged = sum("parameters" in cell.metadata.get("tags", []) for cell in node.cells)
    if tagged > 1:
        what = f"{tagged} cells have the tag parameters, and only the first would be heeded."
        raise StudyError("E-NOTEBOOK", str(path), what, "Keep one.")
    known = papermill.inspect_notebook(_literal(path))
    for name in parameters:
        if name not in known:
            what = f"its parameters cell has no {name!r}.{_meant(name, known)}"
            raise StudyError("E-PARAMETER", str(path), what, f"It has: {', '.join(known) or 'none'}.")
    for name in cards(path):
        if name not in makers:
            what = f"it announces a card {name!r}.{_meant(name, makers)}"
            raise StudyError("E-NOTEBOOK", str(path), what, f"Known: {', '.join(makers)}.")


def planned(path: Path) -> list[tuple[str, ...]]:
    """What a notebook announces in its metadata under `study.rows`: ids of rows, or a report and a table of it."""
    return [tuple(entry.split("/")) for entry in _announced(path, "rows")]


def cards(path: Path) -> list[str]:
    """Names of the cards that a notebook announces under `study.cards`."""
    return _announced(path, "cards")


def _announced(path: Path, what: str) -> list[str]:
    return nbformat.read(path, as_version=4).metadata.get("study", {}).get(what, [])


def prepare_kernels(folder: Path, threads: dict[str, str]) -> None:
    """Make every kernel this process starts use this interpreter, these threads, and no settings of the user.

    Sockets, connection files and history go to `folder`, which only this user can enter.
    """
    write_kernel_spec(folder / "kernels" / KERNEL, extra_arguments=["--log-level=CRITICAL"])
    startup = folder / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "stacks.py").write_text(STACKS)
    searched = [str(folder), *filter(None, [os.environ.get("JUPYTER_PATH")])]
    os.environ.update(threads)
    os.environ["JUPYTER_PATH"] = os.pathsep.join(searched)
    os.environ["JUPYTER_RUNTIME_DIR"] = str(folder / "runtime")
    os.environ["IPYTHONDIR"] = str(folder / "ipython")
    os.environ.pop("MPLBACKEND", None)  # figures go into the notebook
    logging.getLogger("papermill").setLevel(logging.CRITICAL)  # what it knows is in the exception it raises


def execute(path: Path, partial: Path, parameters: dict[str, object], folder: Path) -> NotebookNode:
    """Run a notebook to its end and return it; `partial` follows it cell by cell.

    Raises:
        NotebookError: a cell raised, or the kernel died.
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    # Sockets in a folder of ours cannot meet another program's port, nor be reached by another user; a name of its own
    # keeps a kernel from those of others at once.
    own = folder / uuid.uuid4().hex[:8]
    connection = own.with_suffix(".json")
    settings = Config({"KernelManager": {"transport": "ipc", "ip": str(own), "connection_file": str(connection)}})
    call = functools.partial(
        papermill.execute_notebook,
        _literal(path),
        _literal(partial),
        parameters=parameters,
        kernel_name=KERNEL,
        progress_bar=False,
        start_timeout=START_TIMEOUT_S,
        coalesce_streams=True,
        config=settings,
    )
    try:
        return _started_twice(call, connection)
    except PapermillExecutionError as error:
        raised = error.evalue if error.ename == "StudyError" else f"{error.ename}: {error.evalue}"
        raise NotebookError(_told(path, partial, error.exec_count, error.source, raised)) from error
    except HangingError as error:
        what = f"No progress for {SILENCE_S:.0f} s: its kernel was ended. It hung here:\n{error}"
        raise NotebookError(_told(path, partial, *_last_begun(partial), what)) from error
    except DeadKernelError as error:
        what = "The kernel died: it was killed, or ran out of memory."
        raise NotebookError(_told(path, partial, *_last_begun(partial), what)) from error


def failures(node: NotebookNode) -> list[str]:
    """What an executed notebook says of runs that failed in its own kernel."""
    outputs = [output for cell in node.cells for output in cell.get("outputs", [])]
    lines = [line for out in outputs if out.get("name") == "stderr" for line in out.text.splitlines()]
    return [line.removeprefix(FAILED).split(" (")[0].strip() for line in lines if line.startswith(FAILED)]


def publish(node: NotebookNode, target: Path, parameters: dict[str, object]) -> None:
    """Write a finished notebook without times, counters of the machine and paths; equal runs give equal bytes.

    The cell of injected parameters shows these, with which anyone can execute the copy.
    """
    clean = cleaned(node)
    for cell in clean.cells:
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = translate_parameters(KERNEL, "python", parameters, "Parameters")
    nbformat.validate(clean)
    _check_portable(clean, target)
    atomic_write(target, (nbformat.writes(clean) + "\n").encode())


def cleaned(node: NotebookNode) -> NotebookNode:
    """A copy with only what belongs to the content: sources, tags, outputs, execution counts."""
    copy = nbformat.reads(nbformat.writes(node), as_version=4)
    copy.metadata = nbformat.from_dict(METADATA)
    for cell in copy.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        if "injected-parameters" in tags:
            cell.id = "injected-parameters"  # papermill draws a new one each time
    return copy


def shown(path: Path) -> str:
    """A path as a reader wants it: relative to the repository where it lies inside."""
    return str(path.relative_to(paths.ROOT)) if path.is_relative_to(paths.ROOT) else str(path)


def _started_twice(call: Callable[[], NotebookNode], connection: Path) -> NotebookNode:
    """Try again once when the kernel does not come up: ports and machines under load fail about once in a hundred."""
    try:
        return _in_thread(call, connection)
    except (DeadKernelError, HangingError):
        raise
    except (RuntimeError, zmq.ZMQError):
        return _in_thread(call, connection)


def _in_thread(call: Callable[[], NotebookNode], connection: Path) -> NotebookNode:
    """Run `call` beside this thread, which looks whether its kernel still does anything."""
    future: Future[NotebookNode] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    used_s, since = 0.0, time.monotonic()
    while not wait([future], LOOK_EVERY_S).done:
        processes = _kernel(connection)
        now_s = sum(sum(process.cpu_times()[:2]) for process in processes)
        if not processes or abs(now_s - used_s) > IDLE_SHARE * SILENCE_S:
            used_s, since = now_s, time.monotonic()
        elif time.monotonic() - since > SILENCE_S:
            raise HangingError(_ended(processes))
    return future.result()


def _kernel(connection: Path) -> list[psutil.Process]:
    """The process of the kernel with that connection file, and those that it started."""
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if str(connection) in child.cmdline():
                return [child, *(each for each in child.children(recursive=True) if each.is_running())]
    return []


def _ended(processes: list[psutil.Process]) -> str:
    """Kill them; where the first of them was."""
    for number in (signal.SIGUSR1, signal.SIGCONT):  # a stopped process writes only when it goes on
        processes[0].send_signal(number)
    time.sleep(DUMP_S)
    stacks = Path(os.environ["IPYTHONDIR"]) / f"{processes[0].pid}.stacks"
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return stacks.read_text() if stacks.exists() else "(it had not come up)"


def _told(path: Path, partial: Path, count: int, source: str, what: str) -> str:
    lines = [line.strip() for line in source.splitlines() if line.strip()]
    first = next((line for line in lines if not line.startswith("#")), "")
    return f"{path.stem}: cell In [{count}] ({first}) failed. {what}\n  The copy that shows it: {shown(partial)}"


def _last_begun(partial: Path) -> tuple[int, str]:
    """Number and source of the last code cell that was started; papermill marks later ones as completed too."""
    cells = [cell for cell in nbformat.read(partial, as_version=4).cells if cell.cell_type == "code"]
    begun = [(number, cell) for number, cell in enumerate(cells, 1) if cell.metadata.papermill.start_time]
    return (begun[-1][0], begun[-1][1].source) if begun else (0, "")


def _check_portable(node: NotebookNode, target: Path) -> None:
    """A published notebook names no folder of this machine."""
    folders = {str(folder) for folder in (paths.ROOT, paths.output_root()) if folder.name}
    for number, cell in enumerate(node.cells, start=1):
        text = "\n".join(_texts(cell))
        # /o is no part of /other, nor of a/o
        found = [folder for folder in folders if re.search(rf"(?<![\w.-]){re.escape(folder)}(?![\w.-])", text)]
        if found:
            what = f"cell {number} shows the path {found[0]}."
            raise StudyError("E-PORTABLE", str(target), what, "Show names or relative paths.")


def _texts(value: object) -> Iterator[str]:
    """Every text in nested lists and dictionaries."""
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(item)


def _meant(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def _literal(path: Path) -> str:
    """The path for papermill, which takes braces in it for fields to fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")
