#!/usr/bin/env bash
# Sourced by run_all.sh and run_tests.sh: finds or makes the Python environment, and leaves its interpreter in
# STUDY_PYTHON and the checkout in ROOT. An active environment is used when it holds this very checkout; otherwise
# .venv is made once from requirements.txt. PYTHON=/path/to/python chooses what .venv is made with.
set -euo pipefail

ROOT="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." >/dev/null && pwd -P)"
VENV="$ROOT/.venv"
STAMP="$VENV/installed.stamp"
LOG="$VENV/install.log"
NEEDED_GB=3 # with a CPU build of PyTorch; a CUDA build takes more
# What pip's log says when it cannot talk to the index.
UNREACHABLE='connection broken|NewConnectionError|name resolution|network is unreachable|Read ?Timeout|ProxyError|SSLError'

say() { printf '%s\n' "$*" >&2; }
fail() {
  say "Stopped: $*"
  exit 1
}

# True when the environment of interpreter $1 holds the distribution and imports `common` from this checkout.
# -I keeps PYTHONPATH and the working directory out of the answer.
holds_checkout() {
  "$1" -I - "$ROOT/src/common" >/dev/null 2>&1 <<'PY'
import importlib.metadata, importlib.util, pathlib, sys

importlib.metadata.distribution("bert-multitask-study")
origin = pathlib.Path(importlib.util.find_spec("common").origin)
sys.exit(origin.resolve().parent != pathlib.Path(sys.argv[1]).resolve())
PY
}

# Sets STUDY_PYTHON to the interpreter of an active environment that holds this checkout.
use_active() {
  local prefix
  for prefix in "${VIRTUAL_ENV:-}" "${CONDA_PREFIX:-}"; do
    if [ -z "$prefix" ] || [ "$prefix" = "$VENV" ]; then continue; fi
    if holds_checkout "$prefix/bin/python"; then
      say "Using the active environment $prefix"
      STUDY_PYTHON="$prefix/bin/python"
      return 0
    fi
    say "The active environment $prefix does not hold this checkout; using .venv instead."
  done
  return 1
}

# Version of interpreter $1 as 3.11.7; nothing when it does not run (a name on PATH may be an empty shim).
version_of() { "$1" -I -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null || true; }

# What .venv must have been made from: the pins, the distribution's metadata and the version of interpreter $1.
stamp_of() {
  "$1" -I -c '
import hashlib, sys
digest = hashlib.sha256()
for path in sys.argv[1:]:
    digest.update(open(path, "rb").read())
print("%d.%d.%d" % sys.version_info[:3], digest.hexdigest())
' "$ROOT/requirements.txt" "$ROOT/pyproject.toml" 2>/dev/null
}

# True when .venv is complete for the present pins. A chosen PYTHON of another version asks for a new one.
is_ready() {
  [ -x "$VENV/bin/python" ] && [ -f "$STAMP" ] || return 1
  [ "$(stamp_of "$VENV/bin/python")" = "$(cat "$STAMP")" ] || return 1
  [ -z "${PYTHON:-}" ] || [ "$(version_of "$PYTHON")" = "$(version_of "$VENV/bin/python")" ] || return 1
  # A checkout that was moved or copied leaves the old path behind.
  holds_checkout "$VENV/bin/python"
}

# Prints the first interpreter of Python 3.11 or newer.
find_python() {
  local candidate version seen=""
  for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
    version="$(version_of "$candidate")"
    case "$version" in
      3.1[1-9].* | 3.[2-9][0-9].*)
        command -v "$candidate"
        return
        ;;
      ?*) seen="$seen, $candidate is $version" ;;
    esac
    [ -z "${PYTHON:-}" ] || break
  done
  seen="${seen:-, none}"
  fail "Python 3.11 or newer is needed (found: ${seen#, })." \
    "Install it, or name it: PYTHON=/path/to/python3.11 $0"
}

create_venv() {
  local python output free_kb
  python="$(find_python)"
  free_kb="$(df -Pk "$ROOT" | awk 'NR == 2 { print $4 }')"
  [ "$free_kb" -ge $((NEEDED_GB * 1024 * 1024)) ] ||
    fail "the disk of $ROOT has $((free_kb / 1024)) MB free, and about $NEEDED_GB GB are needed. Free some space."
  say "Creating .venv with Python $(version_of "$python") ..."
  rm -rf "$VENV"
  output="$("$python" -m venv "$VENV" 2>&1)" || {
    rm -rf "$VENV"
    case "$output" in
      *"No space left"*) fail "the disk is full. Free about $NEEDED_GB GB and run this again." ;;
      *ensurepip* | *"No module named venv"*)
        fail "$python has no venv module. Install it (Debian, Ubuntu: apt install python3-venv) or set PYTHON."
        ;;
      *) fail "$python -m venv did not work: ${output##*$'\n'}" ;;
    esac
  }
}

# One line for what pip's log says went wrong.
explain_log() {
  if grep -qi 'no space left on device' "$LOG"; then
    fail "the disk is full. Free about $NEEDED_GB GB and run this again; what is installed is kept."
  elif grep -qiE "$UNREACHABLE" "$LOG"; then
    fail "the package index is out of reach. Check the network and pip's settings, then run this again (see .venv/install.log)."
  fi
  fail "pip could not install the pinned packages: $(grep '^ERROR' "$LOG" | tail -n 1 || true) (see .venv/install.log)"
}

run_pip() {
  "$VENV/bin/python" -m pip install --disable-pip-version-check --no-input "$@" >>"$LOG" 2>&1 || explain_log
}

# Makes .venv complete. The stamp comes last, so an install that was cut off is taken up again.
install() {
  local python chosen=""
  if [ -n "${PYTHON:-}" ]; then
    python="$(find_python)"
    chosen="$(version_of "$python")"
  fi
  if ! "$VENV/bin/python" -I -c 'import pip' 2>/dev/null ||
    ! grep -qF " $VENV" "$VENV/pyvenv.cfg" ||
    { [ -n "$chosen" ] && [ "$chosen" != "$(version_of "$VENV/bin/python")" ]; }; then
    create_venv
  fi
  say "Installing pinned packages (once, a few minutes; details in .venv/install.log) ..."
  rm -f "$STAMP"
  : >"$LOG"
  run_pip -r "$ROOT/requirements.txt"
  run_pip --no-deps --no-build-isolation -e "$ROOT"
  stamp_of "$VENV/bin/python" >"$STAMP.new"
  mv "$STAMP.new" "$STAMP"
  say "Installed."
}

install_unless_ready() { is_ready || install; }

# Two commands started together must not install into one folder: the second waits, then finds it ready.
# Descriptor 9 is the lock file; without flock (macOS) a folder serves, which a killed run leaves behind.
install_locked() {
  local busy="Another run is installing; waiting for it ..."
  if command -v flock >/dev/null; then
    flock -n 9 || {
      say "$busy"
      flock 9
    }
  elif ! mkdir "$ROOT/.venv.lock.d" 2>/dev/null; then
    say "$busy (If none is, delete $ROOT/.venv.lock.d.)"
    until mkdir "$ROOT/.venv.lock.d" 2>/dev/null; do sleep 1; done
  fi
  trap 'rm -rf "$ROOT/.venv.lock.d"' EXIT
  is_ready || install
}

if ! use_active; then
  if ! is_ready; then
    (install_locked) 9>"$ROOT/.venv.lock"
  fi
  STUDY_PYTHON="$VENV/bin/python"
  export VIRTUAL_ENV="$VENV" PATH="$VENV/bin:$PATH"
fi
# `common` is a frequent name: nothing outside the environment may stand in for it.
unset PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE=1 STUDY_PYTHON
