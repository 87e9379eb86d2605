#!/usr/bin/env bash
# Sourced by run_all.sh and run_tests.sh: leaves the study's interpreter in STUDY_PYTHON and the checkout in ROOT.
# An active environment that holds this very checkout is used; otherwise .venv is made once from requirements.txt,
# with the Python that PYTHON=/path/to/python names or the first one found. Kept to bash 3.2, which macOS has.
set -euo pipefail
# `common` is a frequent name: nothing outside the environment may stand in for it. Libraries need their docstrings.
unset PYTHONPATH PYTHONHOME PYTHONOPTIMIZE
export PYTHONNOUSERSITE=1
ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." >/dev/null && pwd -P)"
VENV="$ROOT/.venv" STAMP="$ROOT/.venv/made-for" LOG="$ROOT/.venv.log"
HOLDS_CHECKOUT='import common, importlib.metadata as m, os, sys
sys.exit(not (m.version("bert-multitask-study") and os.path.samefile(common.__path__[0], sys.argv[1] + "/src/common")))'

say() { printf '%s\n' "$*" >&2; }
fail() { say "Stopped: $*" && exit 1; }
# Version of interpreter $1 as 3.11.7; nothing when it does not run (a name on PATH may be an empty shim).
version_of() { "$1" -I -S -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || true; }
# What .venv must have been made for: a moved checkout, a replaced Python and changed pins all show.
wanted() { echo "$ROOT $(version_of "$VENV/bin/python")" && cat "$ROOT/requirements.txt" "$ROOT/pyproject.toml"; }
is_ready() { is_sound && [ "$(wanted)" = "$(cat "$STAMP" 2>/dev/null)" ]; }
# True when .venv has a Python that runs and is the chosen one, and has not been moved.
is_sound() {
  local version && version="$(version_of "$VENV/bin/python")"
  if [ -z "$version" ] || [ "$(version_of "${PYTHON:-$VENV/bin/python}")" != "$version" ]; then return 1; fi
  [ ! -f "$STAMP" ] || [ "$(head -n 1 "$STAMP")" = "$ROOT $version" ]
}
# Sets `python` to the first Python that is new enough.
find_python() {
  local version seen=""
  if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11 python; fi
  for python; do
    version="$(version_of "$python")"
    case "$version" in 3.1[1-9].* | 3.[2-9][0-9].*) return 0 ;; esac
    [ -z "$version" ] || seen="${seen:+$seen,} $python is $version"
  done
  fail "Python 3.11 or newer is needed (found:${seen:- none}). Install it, or name it: PYTHON=/path/to/python3.11 $0"
}
# Runs a command of the installation. When it fails, what it printed decides on the one line that says why.
run() {
  local output
  output="$({ "$@" 2>&1 | tee -a "$LOG"; } 2>&1)" && return
  case "$output" in
    *"No space left on device"*) fail "the disk is full. Free about 3 GB, and run this again." ;;
    *"No module named venv"*) fail "$1 has no venv module. Install it (Debian: apt install python3-venv), or set PYTHON." ;;
    *"No module named ensurepip"* | *"No module named pip"* | *"ensurepip is disabled"*)
      fail "$1 has no pip. Install it (Debian: apt install python3-venv), or set PYTHON to a Python that has it." ;;
    *"Retry(total=0,"* | *"Max retries exceeded"* | *"Could not fetch URL"* | *"exceptions.ReadTimeoutError"*)
      fail "the package index is out of reach. Check the network and pip's settings (see $LOG), and run this again." ;;
  esac
  fail "$(printf '%s\n' "$output" | awk '/^ERROR/ { e = $0 } NF { l = $0 } END { print (e ? e : l) }') (see $LOG)"
}
# Two commands must not install into one folder. The lock lasts as long as descriptor 9, however the script ends.
lock() { "$python" -I -S -c "import fcntl; fcntl.flock(9, $1)" 2>/dev/null; }
install() {
  local python="$VENV/bin/python" made_for
  is_sound || find_python
  if ! lock "fcntl.LOCK_EX | fcntl.LOCK_NB"; then
    say "Another command is installing; waiting for it ..."
    lock fcntl.LOCK_EX || say "$LOG cannot be locked on this file system: start no second command now."
  fi
  if is_ready; then return; fi
  if ! is_sound; then
    say "Creating .venv with Python $(version_of "$python") ..."
    run "$python" -m venv --without-pip --clear "$VENV"
  fi
  say "Installing pinned packages (once, a few minutes; details in .venv.log) ..."
  made_for="$(wanted)" python="$VENV/bin/python"
  rm -f "$STAMP" # it comes back last, so an installation that is cut off is taken up again
  "$python" -I -c 'import pip' 2>/dev/null || run "$python" -m ensurepip --default-pip
  run "$python" -m pip install --disable-pip-version-check --no-input -r "$ROOT/requirements.txt"
  run "$python" -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e "$ROOT"
  printf '%s\n' "$made_for" >"$STAMP"
  say "Installed."
}

for prefix in ${VIRTUAL_ENV:+"$VIRTUAL_ENV"} ${CONDA_PREFIX:+"$CONDA_PREFIX"} "$VENV"; do
  if [ "$prefix" = "$VENV" ]; then
    if ! is_ready; then
      exec 9>>"$LOG"
      install
      exec 9>&-
    fi
    export VIRTUAL_ENV="$VENV" PATH="$VENV/bin:$PATH"
  elif ! "$prefix/bin/python" -I -c "$HOLDS_CHECKOUT" "$ROOT" 2>/dev/null; then
    say "The active environment $prefix does not hold this checkout; it is left alone." && continue
  else
    say "Using the active environment $prefix"
  fi
  export STUDY_PYTHON="$prefix/bin/python" && break
done
