"""The runner from the outside: what it refuses, what it publishes, what it says when something fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import DeadKernelError
from nbformat import v4

from common import notebooks, paths, runner
from common.declare.rows import row, variant
from common.errors import StudyError
from common.paths import Places
from common.runs.session import open_study
from common.runs.store import RunStore

ROOT = Path(__file__).resolve().parents[1]
# Runs the command line on a folder of notebooks of the test's own.
DRIVER = (
    "import sys; from pathlib import Path; from common import paths; paths.NOTEBOOKS = Path(sys.argv.pop(1));"
    "from common.runner import main; sys.exit(main())"
)
PARAMETERS = 'profile = "smoke"\ndata = None\nencoder = None\nseeds = None\njobs = None\nreport_only = False'
OPEN = (
    "import common as study\n"
    "lab = study.open_study(profile, data=data, encoder=encoder, seeds=seeds, jobs=jobs, report_only=report_only)\n"
    "print(lab)"
)
ROWS = ("swissbert_pair", "swissbert_pair_gs")
RUN = (
    f"results = lab.run([study.row(name) for name in {ROWS}])\n"
    'print([result.records[0]["metrics"]["dev"]["overall"] for result in results.values()])'
)

Call = Callable[..., subprocess.CompletedProcess]


def notebook(
    path: Path, cells: list[str], parameters: str = PARAMETERS, kernel: str = "python3", rows=ROWS, cards=()
) -> None:
    code = [v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}), *map(v4.new_code_cell, cells)]
    kernelspec = {"name": kernel, "display_name": "Python 3", "language": "python"}
    metadata = {"kernelspec": kernelspec, "study": {"rows": rows, "cards": cards}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(v4.new_notebook(cells=[v4.new_markdown_cell("# A study"), *code], metadata=metadata), path)


def call_on(folder: Path, out: Path) -> Call:
    def call(*arguments: str, expect: int = 0) -> subprocess.CompletedProcess:
        path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "STUDY_OUT": str(out), "PYTHONPATH": path}
        command = [sys.executable, "-c", DRIVER, str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == expect, done.stdout + done.stderr
        return done

    return call


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def published(out: Path) -> Path:
    return out / "build" / "smoke" / "results" / "smoke" / "notebooks"


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebooks")
    notebook(folder / "01_good.ipynb", [OPEN, RUN])
    notebook(folder / "02_bad.ipynb", ["x = 1", "# reason\nundefined.nothing()", "print('never')"])
    notebook(folder / "03_dies.ipynb", ["import os\nos.kill(os.getpid(), 9)"])
    return folder


@pytest.fixture(scope="module")
def finished(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess]:
    """All three notebooks run once: one is published, two fail."""
    out = tmp_path_factory.mktemp("out")
    return out, call_on(sources, out)("--profile", "smoke", "--jobs", "2", expect=4)


def test_a_failing_notebook_names_its_cell_and_stops_no_other(finished: tuple) -> None:
    out, done = finished
    assert "02_bad: cell In [4] (undefined.nothing()) failed. NameError: " in done.stderr
    assert str(out / "build" / "smoke" / "02_bad.partial.ipynb") in done.stderr
    assert "03_dies: cell In [3] (import os) failed. The kernel died" in done.stderr
    assert "2 trained, 0 were in the store, 0 failed" in done.stdout and "1 of 3 published" in done.stdout
    assert sorted(path.name for path in published(out).iterdir()) == ["01_good.ipynb"]
    assert (out / "build" / "smoke" / "02_bad.partial.ipynb").exists()
    assert not (out / "build" / "smoke" / "01_good.partial.ipynb").exists()
    assert "Traceback" not in done.stderr and "Warning" not in done.stderr


def test_progress_without_a_terminal_is_one_plain_line_a_run(finished: tuple) -> None:
    lines = [line for line in finished[1].stderr.splitlines() if " trained in " in line]
    assert len(lines) == 2 and all(", seed 0 trained in " in line and "\r" not in line for line in lines)
    assert "2 of 2 runs" in lines[-1]


VARIANT = (
    f'base = study.row("{ROWS[0]}")\n'
    'results = lab.run([base, study.variant(base, "faster", **{"optimizer.lr": 3e-4})])\n'
    "print([len(result.records) for result in results.values()])"
)


def test_a_variant_is_trained_by_its_kernel_and_its_copy_does_not_tell(finished: tuple, tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path / "out")
    notebook(tmp_path / "notebooks" / "01_variant.ipynb", [OPEN, VARIANT])
    call = call_on(tmp_path / "notebooks", tmp_path / "out")
    copies, before = [], files(published(tmp_path / "out").parent / "runs")
    for arguments in ([], [], ["--report-only"]):
        done = call("--profile", "smoke", "--jobs", "1", *arguments)
        assert "0 trained, 2 were in the store, 0 failed" in done.stdout and "1 of 1 published" in done.stdout
        assert done.stderr.count("faster") == (0 if copies else 1) and "FAILED" not in done.stderr
        copies.append((published(tmp_path / "out") / "01_variant.ipynb").read_bytes())
    assert copies[0] == copies[1] == copies[2]
    copy = nbformat.reads(copies[0].decode(), as_version=4)
    assert json.loads(copy.cells[-1].outputs[0].text.splitlines()[-1]) == [1, 1]
    assert len(files(published(tmp_path / "out").parent / "runs")) > len(before)


def test_a_variant_that_fails_keeps_its_notebook_unpublished(finished: tuple, tmp_path: Path) -> None:
    shutil.copytree(finished[0], tmp_path / "out")
    spec = open_study("smoke").apply(variant(row(ROWS[0]), "faster", **{"optimizer.lr": 3e-4}).specs[0], 0)
    (published(tmp_path / "out").parent / "runs" / f".{spec.run_id}.partial").write_text("in the way")
    notebook(tmp_path / "notebooks" / "01_variant.ipynb", [OPEN, VARIANT])
    done = call_on(tmp_path / "notebooks", tmp_path / "out")("--profile", "smoke", "--jobs", "1", expect=4)
    assert "FAILED 01_variant: not published, 1 runs failed: " in done.stderr
    assert not (published(tmp_path / "out") / "01_variant.ipynb").exists()
    left = nbformat.read(tmp_path / "out" / "build" / "smoke" / "01_variant.partial.ipynb", as_version=4)
    (printed,) = (output.text for output in left.cells[-1].outputs if output.name == "stdout")
    assert json.loads(printed.splitlines()[-1]) == [1, 0]


@pytest.mark.parametrize("cards", [["data"], []])
def test_every_notebook_is_executed_once(cards: list[str], tmp_path: Path) -> None:
    count = tmp_path / "count"
    cells = [
        f"{OPEN}\nfrom common.results import facts",
        f'open({str(count)!r}, "a").write("x")',
        'print(facts.data_card(lab)["counts"]["sst"])',
    ]
    notebook(tmp_path / "notebooks" / "00_card.ipynb", cells, rows=[], cards=cards)
    call_on(tmp_path / "notebooks", tmp_path / "out")("--profile", "smoke")
    assert count.read_text() == "x"


def test_a_card_that_nothing_makes_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    notebook(tmp_path / "00_card.ipynb", [OPEN], rows=[], cards=["date"])
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path)
    assert runner.main(["--profile", "smoke", "--dry-run"]) == 2
    assert "announces a card 'date'" in capsys.readouterr().err


def test_a_failed_run_keeps_its_notebook_unpublished_and_is_tried_once(tmp_path: Path) -> None:
    spec = open_study("smoke").apply(row(ROWS[0]).specs[0], 0)
    folder = published(tmp_path / "out").parent / "runs"
    folder.mkdir(parents=True)
    (folder / f".{spec.run_id}.partial").write_text("a file where the store needs a folder")
    notebook(tmp_path / "notebooks" / "01_hole.ipynb", [OPEN, RUN])
    notebook(tmp_path / "notebooks" / "02_whole.ipynb", [OPEN], rows=ROWS[1:])
    done = call_on(tmp_path / "notebooks", tmp_path / "out")("--profile", "smoke", "--jobs", "2", expect=4)
    label = f"{ROWS[0]}, seed 0"
    assert f"FAILED 01_hole: not published, 1 runs failed: {label}" in done.stderr
    assert done.stderr.count(f"FAILED {label} ({spec.run_id}): ") == 1 and "E-WRITE" in done.stderr
    assert "1 trained, 0 were in the store, 1 failed. Notebooks: 1 of 2 published" in done.stdout
    assert [path.name for path in published(tmp_path / "out").iterdir()] == ["02_whole.ipynb"]


def test_a_published_copy_shows_results_and_nothing_of_the_machine(finished: tuple) -> None:
    out, _ = finished
    text = (published(out) / "01_good.ipynb").read_text()
    copy = nbformat.reads(text, as_version=4)
    nbformat.validate(copy)
    for trace in (str(ROOT), str(out), "papermill", "iopub", sys.prefix):
        assert trace not in text
    given = copy.cells[2]
    assert given.metadata.tags == ["injected-parameters"] and "report_only = True" in given.source
    assert "seeds = [0]" in given.source and "data" not in given.source and "encoder" not in given.source
    records = [json.loads(path.read_text()) for path in published(out).parent.glob("runs/*/record.json")]
    shown = json.loads(copy.cells[-1].outputs[0].text)
    assert sorted(shown) == sorted(record["metrics"]["dev"]["overall"] for record in records)


def test_report_only_elsewhere_gives_the_same_bytes(finished: tuple, sources: Path, tmp_path: Path) -> None:
    out, _ = finished
    results = published(out).parent
    for name in ("runs", "cards"):
        if (results / name).exists():
            shutil.copytree(results / name, tmp_path / "build" / "smoke" / "results" / "smoke" / name)
    before = files(tmp_path / "build" / "smoke" / "results" / "smoke" / "runs")
    done = call_on(sources, tmp_path)("--profile", "smoke", "--report-only", "--only", "01")
    assert "0 trained" in done.stdout
    assert files(published(tmp_path)) == files(published(out))
    assert files(tmp_path / "build" / "smoke" / "results" / "smoke" / "runs") == before


@pytest.fixture
def here(sources: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """The runner in this process, for what it does before any kernel."""

    def call(out: Path, *arguments: str, folder: Path = sources) -> int:
        monkeypatch.setattr(paths, "NOTEBOOKS", folder)
        monkeypatch.setenv("STUDY_OUT", str(out))
        monkeypatch.setattr(notebooks, "prepare_kernels", lambda folder, threads: None)
        monkeypatch.setattr(notebooks, "execute", lambda *arguments: pytest.fail("a kernel was asked for"))
        try:
            return runner.main(list(arguments))
        except SystemExit as error:
            return error.code

    return call


def test_the_callers_answers_to_signals_are_put_back(here: Call, tmp_path: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert here(tmp_path, "--profile", "smok") == 2
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_report_only_refuses_records_of_other_weights(finished: tuple, here: Call, tmp_path: Path, capsys) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    store = RunStore(Places(published(out).parent, out / "figures", out / "build" / "smoke"))
    run_id = store.complete()[0]
    record = store.get(run_id)
    store.write(record | {"hashes": record["hashes"] | {"weights": "0"}}, store.predictions(run_id), {})
    assert here(out, "--profile", "smoke", "--report-only", "--only", "01") == 2
    told = capsys.readouterr().err
    assert "[E-STALE]" in told and f"{record.name}: {run_id} (tiny-random (weights))" in told


def test_dry_run_counts_and_touches_nothing(finished: tuple, here: Call, tmp_path: Path, capsys) -> None:
    assert here(tmp_path, "--profile", "smoke", "--dry-run", "--only", "01", "--jobs", "1") == 0
    told = capsys.readouterr().out
    assert "01_good: 2 runs, 0 in the store, 2 to train" in told and "by this machine's rate" in told
    assert list(tmp_path.iterdir()) == []
    before = files(finished[0])
    assert here(finished[0], "--profile", "smoke", "--dry-run", "--only", "01_good", "--jobs", "1") == 0
    told = capsys.readouterr().out
    assert "01_good: 2 runs, 2 in the store, 0 to train" in told and "nothing to train" in told
    assert here(finished[0], "--profile", "smoke", "--dry-run", "--only", "01", "--force") == 0
    assert "01_good: 2 runs, 0 in the store, 2 to train" in capsys.readouterr().out
    assert here(finished[0], "--profile", "smoke", "--dry-run", "--only", "01", "--keep-weights") == 0
    assert "01_good: 2 runs, 0 in the store, 2 to train" in capsys.readouterr().out
    assert files(finished[0]) == before


def test_keeping_weights_trains_for_them_alone_and_only_once(finished: tuple, sources: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    runs = published(out).parent / "runs"
    before = files(runs)
    call = call_on(sources, out)
    options = ("--profile", "smoke", "--jobs", "1", "--only", "01", "--keep-weights")
    assert "2 trained, 2 were in the store" in call(*options).stdout
    kept = {path.name for path in (out / "build" / "smoke" / "weights").iterdir()}
    assert kept == {path.name for path in runs.iterdir()} and files(runs) == before
    assert "0 trained, 2 were in the store" in call(*options).stdout


def test_a_cluster_keeps_no_weights(here: Call, tmp_path: Path, capsys) -> None:
    options = ("--profile", "smoke", "--keep-weights", "--scheduler", "tls://127.0.0.1:1")
    assert here(tmp_path / "out", *options) == 2
    assert "--keep-weights: a cluster's workers give back records alone. [E-OPTION]" in capsys.readouterr().err


def test_a_parameter_that_a_notebook_lacks_is_refused_before_anything_starts(
    here: Call, tmp_path: Path, capsys
) -> None:
    folder = tmp_path / "notebooks"
    notebook(folder / "01_typo.ipynb", [OPEN], PARAMETERS.replace("report_only", "report_onyl"))
    assert here(tmp_path / "out", "--profile", "smoke", folder=folder) == 2
    assert "has no 'report_only'. Did you mean 'report_onyl'? [E-PARAMETER]" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("also", [[], ["--dry-run"]])
def test_an_output_folder_that_cannot_be_written_is_an_environment_error(
    also: list[str], here: Call, tmp_path: Path, capsys
) -> None:
    blocked = tmp_path / "out"
    blocked.write_text("a file stands here")
    assert here(blocked, "--profile", "smoke", "--only", "01", *also) == 3
    assert "E-WRITE" in capsys.readouterr().err and blocked.read_text() == "a file stands here"


REFUSED = [
    (["--profile", "smok"], "Did you mean 'smoke'?"),
    (["--profil", "smoke"], "did you mean --profile?"),
    (["--only", "01_god"], "Did you mean '01_good'?"),
    (["--only", ","], "expected numbers or names such as 00,02, got ','"),
    (["--seeds", "0,x"], "expected different whole numbers from 0 such as 0,1,2, got '0,x'"),
    (["--seeds", "1,1"], "expected different whole numbers"),
    (["--jobs", "0"], "expected a whole number from 1, got '0'"),
    (["--jobs", "257"], "E-JOBS"),
    (["--profile", "cpu", "--data", "/no/such/folder", "--dry-run"], "no such folder"),
    (["--profile", "cpu"], "--data FOLDER"),
    (["--profile", "cpu", "--data", "/no/such/folder"], "no such folder"),
]


REFUSED += [([option, ""], f"{option}: is empty. [E-OPTION]") for option in ("--profile", "--data", "--encoder")]
REFUSED += [(["--profile", "smoke", "--export-predictions", " "], "--export-predictions: is empty. [E-OPTION]")]
REFUSED += [(["--only", ""], "expected numbers or names"), (["--seeds", ""], "expected different whole numbers")]
REFUSED += [(["--jobs", ""], "expected a whole number from 1, got ''")]
REFUSED += [(["--scheduler", ""], "--scheduler: is empty"), (["--scheduler", "host:1"], "such as tls://host:8786")]
REFUSED += [(["--scheduler", "tcp://host:1"], "without TLS can run anything as its owner. [E-SCHEDULER]")]
REFUSED += [(["--data", "embedded:/nonexistent"], "has no folder. [E-DATA]"), (["--data", "hub:"], "names no data")]


@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_wrong_input_is_refused_with_a_hint(
    arguments: list[str], message: str, here: Call, tmp_path: Path, capsys
) -> None:
    assert here(tmp_path, *arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("name", ["STUDY_PROFILE", "STUDY_OUT"])
def test_an_empty_variable_is_refused(name: str, here: Call, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv(name, "")
    monkeypatch.setattr(runner, "open_study", lambda *options: pytest.fail("went on"))
    assert runner.main([]) == 2
    assert f"{name}: is empty. [E-OPTION]" in capsys.readouterr().err


class Executions:
    """Stands in for the execution of notebooks: what is an exception is raised, and the copy holds nothing else."""

    def __init__(self, outcomes: dict[str, Exception | None]):
        self.outcomes = outcomes

    def __call__(self, path: Path, partial: Path, parameters: dict, folder: Path) -> nbformat.NotebookNode:
        if error := self.outcomes[path.stem]:
            raise error
        partial.write_text("")
        return v4.new_notebook()


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (RuntimeError("Kernel died before replying"), 4, "FAILED 01_x: RuntimeError: Kernel died before replying"),
        (OSError(28, "No space left on device"), 3, "FAILED 01_x: OSError: [Errno 28] No space left on device"),
        (StudyError("E-WRITE", "x", "cannot write.", "Free space."), 3, "FAILED x: cannot write. [E-WRITE]"),
        (notebooks.NotebookError("01_x: cell In [1] failed."), 4, "FAILED 01_x: cell In [1] failed."),
    ],
)
def test_whatever_happens_at_one_notebook_the_others_are_published(
    error: Exception, code: int, line: str, tmp_path: Path, monkeypatch, capsys
) -> None:
    for name in ("01_x", "02_y", "03_z"):
        notebook(tmp_path / "notebooks" / f"{name}.ipynb", [], rows=[])
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setenv("STUDY_OUT", str(tmp_path / "out"))
    monkeypatch.setattr(runner.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(notebooks, "prepare_kernels", lambda folder, threads: None)
    monkeypatch.setattr(notebooks, "execute", Executions({"01_x": error, "02_y": None, "03_z": None}))
    assert runner.main(["--profile", "smoke", "--jobs", "2"]) == code
    told = capsys.readouterr()
    assert line in told.err and "Traceback" not in told.err and "2 of 3 published" in told.out
    assert sorted(path.name for path in published(tmp_path / "out").iterdir()) == ["02_y.ipynb", "03_z.ipynb"]
    log = tmp_path / "out" / "build" / "smoke" / "logs" / "01_x.log"
    assert log.exists() == isinstance(error, RuntimeError | OSError)


def test_a_kernel_that_does_not_start_twice_fails_its_notebook_alone(tmp_path: Path, monkeypatch, capsys) -> None:
    notebook(tmp_path / "notebooks" / "01_x.ipynb", [], rows=[])

    def never(*arguments: object, **named: object) -> None:
        raise RuntimeError("Kernel died before replying to kernel_info")

    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setenv("STUDY_OUT", str(tmp_path / "out"))
    monkeypatch.setattr(runner.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(notebooks, "prepare_kernels", lambda folder, threads: None)
    monkeypatch.setattr(notebooks.papermill, "execute_notebook", never)
    assert runner.main(["--profile", "smoke"]) == 4
    assert "FAILED 01_x: RuntimeError: Kernel died" in capsys.readouterr().err


def test_runners_that_start_together_share_no_probe(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("STUDY_OUT", str(tmp_path))
    study, real, others = open_study("smoke"), runner.atomic_write, [1]

    def write(path: Path, content: bytes) -> None:
        real(path, content)
        if others:  # another runner does all of its checks between our write and our removal
            others.pop()
            runner._check_places(study)

    monkeypatch.setattr(runner, "atomic_write", write)
    runner._check_places(study)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kernel", ["py39_new", "ir"])
def test_a_notebook_of_another_kernel_is_refused(kernel: str, tmp_path: Path) -> None:
    notebook(tmp_path / "01_x.ipynb", [], kernel=kernel)
    with pytest.raises(StudyError, match=kernel):
        notebooks.check(tmp_path / "01_x.ipynb", {}, {})


def test_a_torn_notebook_is_refused(tmp_path: Path) -> None:
    notebook(tmp_path / "01_x.ipynb", [])
    path = tmp_path / "01_x.ipynb"
    path.write_text(path.read_text()[:100])
    with pytest.raises(StudyError) as error:
        notebooks.check(path, {}, {})
    assert error.value.code == "E-NOTEBOOK"


def test_a_copy_that_shows_a_path_is_not_published(tmp_path: Path) -> None:
    output = v4.new_output("stream", text=f"{ROOT}/results/x\n")
    with pytest.raises(StudyError) as error:
        notebooks.publish(v4.new_notebook(cells=[v4.new_code_cell("x", outputs=[output])]), tmp_path / "x.ipynb", {})
    assert error.value.code == "E-PORTABLE" and list(tmp_path.iterdir()) == []


def test_only_a_kernel_that_did_not_start_is_tried_again() -> None:
    calls: list[int] = []

    def fails(first: Exception) -> Callable:
        def call() -> str:
            calls.append(1)
            if len(calls) == 1:
                raise first
            return "done"

        return call

    assert notebooks._started_twice(fails(RuntimeError("Kernel died before replying")), Path("none")) == "done"
    calls.clear()
    with pytest.raises(DeadKernelError):
        notebooks._started_twice(fails(DeadKernelError("Kernel died")), Path("none"))
    assert len(calls) == 1


def test_a_relative_folder_starts_where_the_command_was_called(monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "here" / "data").mkdir(parents=True)
    monkeypatch.setenv("STUDY_CALLED_FROM", str(tmp_path / "here"))
    assert runner._absolute("data") == str(tmp_path / "here" / "data")
    assert runner._absolute("hub:data") == f"hub:{tmp_path / 'here' / 'data'}"
    assert runner._absolute("hub") == "hub" and runner._absolute("embedded") == "embedded"
