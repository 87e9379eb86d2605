"""The distribution, its pins and the script that makes the environment; nothing here needs a network."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml
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
    lines = project["dependencies"] + project["optional-dependencies"]["test"] + PROJECT["build-system"]["requires"]
    return [Requirement(line) for line in lines]


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


def test_conda_takes_only_python_from_conda_and_the_same_pins() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == PROJECT["project"]["name"]
    assert environment["channels"] == ["conda-forge", "nodefaults"]
    python, pip, rest = environment["dependencies"]
    assert (pip, rest) == ("pip", {"pip": ["-r requirements.txt"]})
    assert PROJECT["project"]["requires-python"] == ">=" + python.removeprefix("python=")


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


# --- the environment they make ---

# Stands in for Python: `-m venv` and `-m pip` are played, everything else is the real interpreter's work.
FAKE_PYTHON = """#!/bin/bash
real={real}
case "$*" in
  *version_info*) [ -z "$FAKE_VERSION" ] || {{ echo "$FAKE_VERSION"; exit 0; }} ;;
  "-I - "*) exit 0 ;;
  "-I -c import pip") exit 0 ;;
  "-m venv "*)
    [ -z "$FAKE_VENV_ERROR" ] || {{ echo "$FAKE_VENV_ERROR" >&2; exit 1; }}
    mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "command = x -m venv $3" >"$3/pyvenv.cfg"
    exit ;;
  "-m pip "*)
    sleep "${{FAKE_PIP_S:-0}}"
    echo "$*" >>"$FAKE_CALLS"
    [ -z "$FAKE_PIP_ERROR" ] || {{ echo "$FAKE_PIP_ERROR"; exit 1; }}
    exit 0 ;;
esac
exec "$real" "$@"
"""
TOOLS = ["bash", "sh", "cat", "cp", "mv", "rm", "mkdir", "rmdir", "dirname", "grep", "tail", "awk", "sleep", "df"]


class Sandbox:
    """A copy of the bootstrap in a folder with a space, and a PATH that holds nothing but tools and a fake Python."""

    def __init__(self, folder: Path, tools: list[str]):
        self.root, self.bin = folder / "a checkout", folder / "bin"
        (self.root / "scripts").mkdir(parents=True)
        self.bin.mkdir()
        for name in ("scripts/bootstrap.sh", "requirements.txt", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root / name)
        for tool in tools:
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
    return Sandbox(tmp_path, TOOLS + (["flock"] if shutil.which("flock") else []))


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
    assert not (sandbox.root / ".venv/installed.stamp").exists()
    code, _, err = sandbox.run()
    assert code == 0
    assert err[-1] == "Installed."


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


def test_a_name_on_the_path_that_does_not_run_is_passed_over(sandbox: Sandbox) -> None:
    (sandbox.bin / "python3").rename(sandbox.bin / "python3.11")
    sandbox.script("python3", "#!/bin/bash\necho 'no such version' >&2\nexit 127\n")
    assert sandbox.run()[0] == 0
    (sandbox.root / ".venv/installed.stamp").unlink()
    (sandbox.bin / "python3.11").unlink()
    shutil.rmtree(sandbox.root / ".venv")
    code, _, err = sandbox.run()
    assert (code, len(err)) == (1, 1)
    assert "(found: none)" in err[0]


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (
            "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...)'\n"
            "ERROR: No matching distribution found for torch==2.13.0",
            "Stopped: the package index is out of reach.",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device", "the disk is full"),
        ("ERROR: No matching distribution found for torch==2.13.0", "No matching distribution found for torch==2.13.0"),
    ],
    ids=["unreachable", "disk", "other"],
)
def test_a_failed_install_says_why_in_one_line(sandbox: Sandbox, log: str, message: str) -> None:
    code, out, err = sandbox.run(FAKE_PIP_ERROR=log)
    assert (code, out) == (1, "")
    assert [line for line in err if line.startswith("Stopped:")] == err[-1:]
    assert message in err[-1]
    assert log in (sandbox.root / ".venv/install.log").read_text()


def test_a_python_without_venv_names_the_package(sandbox: Sandbox) -> None:
    code, _, err = sandbox.run(FAKE_VENV_ERROR="The virtual environment was not created: ensurepip is not available.")
    assert code == 1
    assert "no venv module" in err[-1] and "python3-venv" in err[-1]
    assert not (sandbox.root / ".venv").exists()


def test_a_small_disk_is_named_before_anything_is_written(sandbox: Sandbox) -> None:
    sandbox.script("df", "#!/bin/bash\necho Filesystem 1024-blocks Used Available\necho /dev/x 9 9 512000 9% /\n")
    code, _, err = sandbox.run()
    assert (code, len(err)) == (1, 1)
    assert "has 500 MB free, and about 3 GB are needed" in err[0]
    assert not (sandbox.root / ".venv").exists()


@pytest.mark.parametrize("has_flock", [True, False])
def test_two_commands_at_once_install_once(tmp_path: Path, has_flock: bool) -> None:
    if has_flock and not shutil.which("flock"):
        pytest.skip("no flock on this machine")
    sandbox = Sandbox(tmp_path, TOOLS + (["flock"] if has_flock else []))
    first = sandbox.start(FAKE_PIP_S="1")
    while not (sandbox.root / ".venv/install.log").exists():
        assert first.poll() is None
        time.sleep(0.02)
    code, out, err = sandbox.run(FAKE_PIP_S="1")
    assert first.communicate(timeout=60)[0].strip() == out == f"ready: {sandbox.root}/.venv/bin/python"
    assert (code, first.returncode, sandbox.calls()) == (0, 0, 2)
    assert err[0].startswith("Another run is installing; waiting for it ...")
    assert not (sandbox.root / ".venv.lock.d").exists()


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
