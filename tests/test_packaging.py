"""The distribution, its pins and the script that makes the environment; nothing here needs a network."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat import v4
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
SCRIPTS = ["run_all.sh", "run_tests.sh", "scripts/bootstrap.sh", ".ci/run"]


def pins() -> dict[str, Requirement]:
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def direct() -> list[Requirement]:
    project = PROJECT["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values(), PROJECT["build-system"]["requires"]]
    return [Requirement(line) for group in groups for line in group]


# --- the pins ---


def test_every_requirement_is_pinned_to_one_version() -> None:
    assert len(pins()) > 100
    for requirement in pins().values():
        assert re.fullmatch(r"==[0-9][^*]*", str(requirement.specifier)), requirement
    assert str(pins()["torch"].specifier) == "==2.13.0"


@pytest.mark.parametrize("requirement", direct(), ids=lambda requirement: requirement.name)
def test_every_direct_dependency_is_pinned_within_its_bound(requirement: Requirement) -> None:
    pin = pins()[canonicalize_name(requirement.name)]
    version = str(pin.specifier).removeprefix("==")
    assert requirement.specifier.contains(version)


def test_every_package_that_declarations_import_is_a_direct_dependency() -> None:
    """What another package brings along may be gone with its next version."""
    distributions = {"yaml": "pyyaml"}
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "src/common/declare").rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    packages = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - {"common"}
    known = {canonicalize_name(Requirement(line).name) for line in PROJECT["project"]["dependencies"]}
    assert {canonicalize_name(distributions.get(name, name)) for name in packages} <= known


def test_optional_dependencies_are_kept_apart() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    assert [*extras] == ["cluster", "jupyter", "tensorboard", "test"]
    assert [name for name in extras for line in extras[name] if line in PROJECT["project"]["dependencies"]] == []
    sections = re.findall(r"^# .*optional dependencies `(\w+)`", (ROOT / "requirements.txt").read_text(), flags=re.M)
    assert sections == [*extras]


def test_one_command_of_conda_takes_python_alone_from_conda_the_same_pins_and_this_checkout() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["project"]["name"]
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    python, pip, rest = environment["dependencies"]
    assert (pip, rest) == ("pip", {"pip": ["-r requirements.txt", "-e ."]})
    assert PROJECT["project"]["requires-python"] == ">=" + python.removeprefix("python=")


def test_a_dev_container_has_the_oldest_python_and_makes_the_same_environment() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    python = container["image"].rpartition(":")[2]
    assert PROJECT["project"]["requires-python"] == f">={python}"
    assert container["postCreateCommand"] == "bash scripts/bootstrap.sh"
    assert container["customizations"]["vscode"]["settings"]["python.defaultInterpreterPath"].endswith(
        "/.venv/bin/python"
    )


def test_continuous_integration_runs_the_floor_and_the_test_command() -> None:
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"]["tests"]
    assert PROJECT["project"]["requires-python"].removeprefix(">=") in job["strategy"]["matrix"]["python"]
    assert job["steps"][-1]["run"] == "./run_tests.sh"
    assert (ROOT / ".ci/run").read_text(encoding="utf-8").rstrip().endswith("exec ./run_tests.sh")


def test_names_of_distribution_and_package_differ() -> None:
    assert PROJECT["project"]["name"] == "bert-multitask-study"
    assert [path.name for path in (ROOT / "src").iterdir() if (path / "__init__.py").is_file()] == ["common"]


def test_citation_and_licence_agree_with_the_distribution() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = PROJECT["project"]
    assert (citation["license"], citation["version"]) == (project["license"], project["version"])
    assert "Apache License" in (ROOT / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
@pytest.mark.parametrize(
    ("path", "is_ignored"),
    [
        (".venv/bin/python", True),
        (".venv.log", True),
        ("tests/.venv.log", False),
        ("data/sts-dev.csv", True),
        ("build/x", True),
        ("results/quick/claims.csv", True),
        ("figures/quick/01_x.png", True),
        ("results/cpu/.locks/x", True),
        ("src/common/data/sources.py", False),
        ("tests/data/test_sources.py", False),
        ("results/cpu/runs/x.json", False),
        ("figures/cpu/01_x.png", False),
    ],
)
def test_ignore_rules_are_anchored(path: str, is_ignored: bool) -> None:
    result = subprocess.run(["git", "check-ignore", "--no-index", "-q", path], cwd=ROOT)
    assert result.returncode == (0 if is_ignored else 1)


def git(folder: Path, *arguments: str) -> str:
    # Nothing of the user's own configuration may decide, and a hook must not run.
    names = ("PATH", "TMPDIR")
    environment = {name: os.environ[name] for name in names if name in os.environ} | {"GIT_CONFIG_NOSYSTEM": "1"}
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    command = ["git", *identity, *arguments]
    return subprocess.run(
        command, cwd=folder, env=environment | {"HOME": str(folder)}, check=True, capture_output=True, text=True
    ).stdout


def test_a_clone_has_the_same_bytes_whatever_autocrlf_says(tmp_path: Path) -> None:
    text = [".ci/run", "LICENSE", "a.sh", "a.py", "a.csv", "a.json", "a.ipynb", "a.md", "a.svg", "a.yaml", "a.tex"]
    source, clone = tmp_path / "source", tmp_path / "clone"
    (source / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".gitattributes", source)
    contents = dict.fromkeys(text, b"one\ntwo\n") | {"a.png": b"\x89PNG\r\n\x1a\n", "a.parquet": b"one\r\ntwo\n"}
    for name, content in contents.items():
        (source / name).write_bytes(content)
    git(tmp_path, "init", "-q", str(source))
    git(source, "add", ".")
    git(source, "commit", "-q", "-m", "x")
    git(tmp_path, "clone", "-q", "-c", "core.autocrlf=true", str(source), str(clone))
    assert {name: (clone / name).read_bytes() for name in contents} == contents


def test_the_filter_of_git_leaves_a_notebook_as_it_was_before_jupyter_saved_it(tmp_path: Path) -> None:
    pytest.importorskip("nbstripout", reason="the extra `jupyter` is not installed")
    for name in (".gitattributes", "scripts/notebooks.gitconfig", "notebooks/02_swissbert_ablation.ipynb"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    program = tmp_path / ".venv/bin/nbstripout"
    program.parent.mkdir(parents=True)
    program.write_text(
        f'#!/bin/sh\nPYTHONPATH="{os.pathsep.join(sys.path)}" exec "{sys.executable}" -m nbstripout "$@"\n'
    )
    program.chmod(0o755)
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", "notebooks", "scripts", ".gitattributes")
    git(tmp_path, "commit", "-q", "-m", "x")
    (command,) = re.findall(
        r"^    git (config .*)$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), flags=re.M
    )
    git(tmp_path, *command.split())
    path = tmp_path / "notebooks/02_swissbert_ablation.ipynb"
    node = nbformat.read(path, as_version=4)
    language = ("codemirror_mode", "file_extension", "mimetype", "nbconvert_exporter", "pygments_lexer", "version")
    node.metadata.language_info |= dict.fromkeys(language, "as this machine has it")
    for count, cell in enumerate((cell for cell in node.cells if cell.cell_type == "code"), 1):
        cell.execution_count, cell.outputs = count, [v4.new_output("stream", text="a path of this machine")]
    nbformat.write(node, path)
    git(tmp_path, "add", "notebooks")
    assert "as this machine" in path.read_text() and git(tmp_path, "diff", "--cached") == ""


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_no_tracked_text_has_carriage_returns() -> None:
    lines = git(ROOT, "-c", f"safe.directory={ROOT}", "ls-files", "--eol").splitlines()
    assert len(lines) > 100
    assert [line for line in lines if not line.startswith(("i/lf", "i/-text", "i/none"))] == []


# --- the scripts ---


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_parse(script: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)


@pytest.mark.parametrize("script", [script for script in SCRIPTS if not script.startswith("scripts/")])
def test_commands_are_executable(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_scripts_pass_shellcheck() -> None:
    result = subprocess.run(["shellcheck", "-x", *SCRIPTS], cwd=ROOT, capture_output=True, text=True)
    assert result.stdout == ""


def test_the_bootstrap_stays_small() -> None:
    lines = (ROOT / "scripts/bootstrap.sh").read_text(encoding="utf-8").splitlines()
    assert sum(bool(line.strip()) and not line.strip().startswith("#") for line in lines) <= 80


# Words of bash 4 and later, which the bash of macOS (3.2) does not know.
NEWER = (
    r"declare -A|local -n|\bmapfile\b|\breadarray\b|\$\{\w+(\^|,|@)|&>>|\|&|\bcoproc\b|;;&|;&|\bwait -n|\$\{!?\w+: -"
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_keep_to_the_bash_of_macos(script: str) -> None:
    text = (ROOT / script).read_text(encoding="utf-8")
    assert re.findall(NEWER, text) == []
    assert "[@]" not in text  # an empty array is an unset variable to bash 3.2


@pytest.mark.parametrize("script", ["run_all.sh", "run_tests.sh"])
@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["-k", "x", "--help"]])
def test_help_installs_nothing(script: str, arguments: list[str], sandbox: Sandbox) -> None:
    for name in ("run_all.sh", "run_tests.sh", "src/common/cli.py"):
        (sandbox.root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, sandbox.root / name)
    before = sorted(sandbox.root.rglob("*"))
    command = [str(sandbox.bin / "bash"), str(sandbox.root / script), *arguments]
    done = subprocess.run(command, cwd="/", env=sandbox.environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {script} [-h]") and "\nexamples:\n" in done.stdout
    assert sorted(sandbox.root.rglob("*")) == before


# --- the environment they make ---

# Stands in for Python: `-m venv`, `-m ensurepip` and `-m pip` are played, everything else is the real one's work.
FAKE_PYTHON = """#!/bin/bash
real={real}
case "$*" in
  *version_info*) [ -z "$FAKE_VERSION" ] || {{ echo "$FAKE_VERSION"; exit 0; }} ;;
  "-I -c import pip") [ -z "$FAKE_HAS_NO_PIP" ]; exit ;;
  "-m venv --without-pip --clear "*)
    [ -z "$FAKE_VENV_ERROR" ] || {{ echo "$FAKE_VENV_ERROR" >&2; exit 1; }}
    rm -rf "$5" && mkdir -p "$5/bin" && cp "$0" "$5/bin/python"
    exit ;;
  "-m ensurepip --default-pip")
    [ -z "$FAKE_ENSUREPIP_ERROR" ] || {{ echo "$FAKE_ENSUREPIP_ERROR" >&2; exit 1; }}
    exit 0 ;;
  "-m pip "*)
    sleep "${{FAKE_PIP_S:-0}}"
    echo "$*" >>"$FAKE_CALLS"
    [ -z "$FAKE_PIP_ERROR" ] || {{ echo "$FAKE_PIP_ERROR"; exit 1; }}
    exit 0 ;;
esac
exec "$real" "$@"
"""
TOOLS = ["bash", "cat", "cp", "rm", "mkdir", "dirname", "head", "awk", "tee", "sleep"]


class Sandbox:
    """A copy of the bootstrap in a folder with a space, and a PATH that holds nothing but tools and a fake Python."""

    def __init__(self, folder: Path):
        self.root, self.bin = folder / "a checkout", folder / "bin"
        (self.root / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("scripts/bootstrap.sh", "requirements.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool))
        self.script("python3", FAKE_PYTHON.format(real=f"'{sys.executable}'"))
        self.calls_file = folder / "calls"
        self.environment = {"PATH": str(self.bin), "HOME": str(folder), "FAKE_CALLS": str(self.calls_file)}

    def script(self, name: str, text: str) -> None:
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def start(self, **environment: str) -> subprocess.Popen:
        command = f'. "{self.root}/scripts/bootstrap.sh"; echo "ready: $STUDY_PYTHON"'
        return subprocess.Popen(
            [str(self.bin / "bash"), "-c", command],
            cwd="/",
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, **environment: str) -> tuple[int, str, list[str]]:
        process = self.start(**environment)
        out, err = process.communicate(timeout=60)
        return process.returncode, out.strip(), err.splitlines()

    def calls(self) -> int:
        return len(self.calls_file.read_text().splitlines()) if self.calls_file.exists() else 0


@pytest.fixture
def sandbox(tmp_path: Path) -> Sandbox:
    return Sandbox(tmp_path)


def test_an_environment_is_made_once_and_then_found(sandbox: Sandbox) -> None:
    code, out, err = sandbox.run()
    assert (code, out) == (0, f"ready: {sandbox.root}/.venv/bin/python")
    assert [line.split()[0] for line in err] == ["Creating", "Installing", "Installed."]
    assert sandbox.calls() == 2  # the pins, then the checkout
    assert sandbox.run() == (0, out, [])
    assert sandbox.calls() == 2


@pytest.mark.parametrize("file", ["requirements.txt", "pyproject.toml"])
def test_changed_pins_are_installed_into_the_same_environment(sandbox: Sandbox, file: str) -> None:
    sandbox.run()
    with open(sandbox.root / file, "a", encoding="utf-8") as handle:
        handle.write("# changed\n")
    code, _, err = sandbox.run()
    assert code == 0
    assert [line.split()[0] for line in err] == ["Installing", "Installed."]


def test_a_half_finished_install_is_taken_up_again(sandbox: Sandbox) -> None:
    assert sandbox.run(FAKE_PIP_ERROR="ERROR: something")[0] == 1
    assert not (sandbox.root / ".venv/made-for").exists()
    code, _, err = sandbox.run()
    assert code == 0
    assert err[-1] == "Installed."


def test_changed_pins_need_no_python_on_the_path(sandbox: Sandbox) -> None:
    sandbox.run()
    (sandbox.root / "requirements.txt").write_text("other==1\n")
    sandbox.script("python3", "#!/bin/bash\nexit 127\n")
    assert sandbox.run()[0] == 0


def test_a_moved_checkout_gets_an_environment_of_its_own(sandbox: Sandbox) -> None:
    sandbox.run()
    sandbox.root = sandbox.root.rename(sandbox.root.parent / "moved")
    code, out, err = sandbox.run()
    assert (code, out) == (0, f"ready: {sandbox.root}/.venv/bin/python")
    assert [line.split()[0] for line in err] == ["Creating", "Installing", "Installed."]


def test_an_environment_made_without_pip_gets_one(sandbox: Sandbox) -> None:
    sandbox.run()
    (sandbox.root / ".venv/made-for").unlink()
    code, _, err = sandbox.run(FAKE_HAS_NO_PIP="1")
    assert (code, err[0].split()[0]) == (0, "Installing")


def test_an_environment_whose_python_is_gone_is_made_again(sandbox: Sandbox) -> None:
    sandbox.run()
    (sandbox.root / ".venv/bin/python").write_text("#!/nowhere\n")
    code, _, err = sandbox.run()
    assert (code, err[0].split()[0]) == (0, "Creating")


def test_another_python_makes_the_environment_again(sandbox: Sandbox) -> None:
    sandbox.run()
    sandbox.script("other", '#!/bin/bash\nFAKE_VERSION=3.12.9 exec python3 "$@"\n')
    code, _, err = sandbox.run(PYTHON="other")
    assert code == 0
    assert err[0] == "Creating .venv with Python 3.12.9 ..."


def test_an_old_python_is_named_with_the_remedy(sandbox: Sandbox) -> None:
    code, out, err = sandbox.run(FAKE_VERSION="3.9.2")
    assert (code, out, len(err)) == (1, "", 1)
    assert err[0].startswith("Stopped: Python 3.11 or newer is needed (found: python3 is 3.9.2).")
    assert "PYTHON=/path/to/python3.11" in err[0]
    assert sandbox.run(PYTHON=str(sandbox.bin / "python3"))[0] == 0


def test_a_chosen_python_is_the_only_one_looked_at(sandbox: Sandbox) -> None:
    sandbox.script("old", '#!/bin/bash\nFAKE_VERSION=3.8.10 exec python3 "$@"\n')
    for chosen, told in ((str(sandbox.bin / "old"), f"{sandbox.bin}/old is 3.8.10"), ("/no/such/python", "none")):
        code, _, err = sandbox.run(PYTHON=chosen)
        assert (code, len(err)) == (1, 1) and f"(found: {told})" in err[0]


def test_a_name_on_the_path_that_does_not_run_is_passed_over(sandbox: Sandbox) -> None:
    (sandbox.bin / "python3").rename(sandbox.bin / "python3.11")
    sandbox.script("python3", "#!/bin/bash\necho 'no such version' >&2\nexit 127\n")
    assert sandbox.run()[0] == 0
    (sandbox.root / ".venv/made-for").unlink()
    (sandbox.bin / "python3.11").unlink()
    shutil.rmtree(sandbox.root / ".venv")
    code, _, err = sandbox.run()
    assert (code, len(err)) == (1, 1)
    assert "(found: none)" in err[0]


RETRYING = "WARNING: Retrying (Retry(total={}, connect=None)) after connection broken by 'NewConnectionError(...)'\n"
PIP_FAILURES = {
    "unreachable": (
        RETRYING.format(4) + RETRYING.format(0) + "ERROR: No matching distribution found",
        "is out of reach.",
    ),
    "one slow answer": (RETRYING.format(4) + "ERROR: No matching distribution found", "No matching distribution found"),
    "disk": ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "disk is full"),
    "no pip": ("/x/.venv/bin/python: No module named pip", "has no pip. Install it"),
    "last error": (
        "ERROR: one\nERROR: two for torch==2.13.0\n\n[notice] A new release",
        "ERROR: two for torch==2.13.0",
    ),
    "no error line": ("Traceback:\nKeyError: 'x'", "Stopped: KeyError: 'x'"),
}


@pytest.mark.parametrize(("log", "message"), PIP_FAILURES.values(), ids=PIP_FAILURES)
def test_a_failed_install_says_why_in_one_line(sandbox: Sandbox, log: str, message: str) -> None:
    code, out, err = sandbox.run(FAKE_PIP_ERROR=log)
    assert (code, out) == (1, "")
    assert [line for line in err if line.startswith("Stopped:")] == err[-1:]
    assert message in err[-1]
    assert log in (sandbox.root / ".venv.log").read_text()


def test_a_full_disk_is_told_even_when_the_log_cannot_be_written(sandbox: Sandbox) -> None:
    sandbox.script("tee", "#!/bin/bash\necho 'tee: .venv.log: No space left on device' >&2\nexec cat\n")
    code, _, err = sandbox.run(FAKE_PIP_ERROR="ERROR: something")
    assert code == 1 and "the disk is full. Free about 3 GB" in err[-1]


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        ({"FAKE_VENV_ERROR": "/usr/bin/python3: No module named venv"}, "has no venv module"),
        ({"FAKE_VENV_ERROR": "Error: [Errno 28] No space left on device"}, "the disk is full"),
        ({"FAKE_VENV_ERROR": "Error: [Errno 13] Permission denied"}, "Stopped: Error: [Errno 13] Permission denied"),
        ({"FAKE_ENSUREPIP_ERROR": "/usr/bin/python3: No module named ensurepip", "FAKE_HAS_NO_PIP": "1"}, "has no pip"),
    ],
    ids=["no venv", "disk", "other", "no pip"],
)
def test_a_python_that_makes_no_environment_says_why(sandbox: Sandbox, failure: dict[str, str], message: str) -> None:
    code, _, err = sandbox.run(**failure)
    assert code == 1 and message in err[-1] and ("python3-venv" in err[-1]) == (" has no " in err[-1])
    assert sandbox.calls() == 0
    assert sandbox.run()[0] == 0  # once it is mended, the same call goes on


def test_two_commands_at_once_install_once(sandbox: Sandbox) -> None:
    first = sandbox.start(FAKE_PIP_S="1")
    while "Installing" not in first.stderr.readline():
        assert first.poll() is None
    code, out, err = sandbox.run(FAKE_PIP_S="1")
    assert first.communicate(timeout=60)[0].strip() == out == f"ready: {sandbox.root}/.venv/bin/python"
    assert (code, first.returncode, sandbox.calls()) == (0, 0, 2)
    assert err == ["Another command is installing; waiting for it ..."]


def test_a_killed_install_leaves_no_lock(sandbox: Sandbox) -> None:
    first = sandbox.start(FAKE_PIP_S="1")
    while "Installing" not in first.stderr.readline():
        assert first.poll() is None
    first.kill()
    first.communicate(timeout=60)
    code, _, err = sandbox.run()
    assert (code, err[-1]) == (0, "Installed.")


def make_environment(prefix: Path, source: Path, distribution: str) -> None:
    """A real environment without pip that holds `distribution` as an editable install of `source` would."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(prefix)], check=True)
    site = next((prefix / "lib").glob("python3*/site-packages"))
    (site / "study.pth").write_text(f"{source}\n")
    (site / f"{distribution}-0.1.0.dist-info").mkdir()
    (site / f"{distribution}-0.1.0.dist-info" / "METADATA").write_text(f"Name: {distribution}\nVersion: 0.1.0\n")


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_an_active_environment_with_this_checkout_is_used(sandbox: Sandbox, tmp_path: Path, variable: str) -> None:
    (sandbox.root / "src/common").mkdir(parents=True)
    (sandbox.root / "src/common/__init__.py").touch()
    make_environment(tmp_path / "env", sandbox.root / "src", "bert_multitask_study")
    code, out, err = sandbox.run(**{variable: str(tmp_path / "env"), "PYTHONPATH": "/nowhere"})
    assert (code, out) == (0, f"ready: {tmp_path}/env/bin/python")
    assert err == [f"Using the active environment {tmp_path}/env"]
    assert not (sandbox.root / ".venv").exists()


@pytest.mark.parametrize("fault", ["another checkout", "another distribution"])
def test_an_active_environment_of_something_else_is_not_used(sandbox: Sandbox, tmp_path: Path, fault: str) -> None:
    other = tmp_path / "other" if fault == "another checkout" else sandbox.root
    (other / "src/common").mkdir(parents=True)
    (other / "src/common/__init__.py").touch()
    name = "bert_multitask_study" if fault == "another checkout" else "common"
    make_environment(tmp_path / "env", other / "src", name)
    # The path of this checkout in PYTHONPATH must not make the environment look like ours.
    code, out, err = sandbox.run(VIRTUAL_ENV=str(tmp_path / "env"), PYTHONPATH=str(sandbox.root / "src"))
    assert (code, out) == (0, f"ready: {sandbox.root}/.venv/bin/python")
    assert "does not hold this checkout" in err[0]
    assert [line.split()[0] for line in err[1:]] == ["Creating", "Installing", "Installed."]


def test_every_data_file_of_the_package_is_installed_with_it() -> None:
    folder = ROOT / "src" / "common"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["common"]
    named = {path for pattern in patterns for path in folder.glob(pattern)}
    there = {path for path in folder.rglob("*.*") if path.is_file() and path.suffix not in (".py", ".pyc")}
    assert there and there == {path for path in there if {path, *path.parents} & named}
