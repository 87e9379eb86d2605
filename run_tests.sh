#!/usr/bin/env bash
# Runs every check of the study; usage says which.
set -euo pipefail
usage() {
  cat <<'TEXT'
usage: run_tests.sh [-h] [argument of pytest ...]

Runs every check and fails if any of them does: ruff, a smoke study, the notebooks, the published copies, the tests.
The first call makes the environment; after that nothing needs a network. Arguments go to the last pytest.

examples:
  ./run_tests.sh                     everything that is not slow
  ./run_tests.sh --runslow           everything
  ./run_tests.sh -k data             of the tests only those with "data" in their names
  ./run_tests.sh tests/methods -x    one folder of tests, until the first failure
TEXT
}
for word; do
  case "$word" in -h | --help) usage && exit 0 ;; esac
done
SELF="${BASH_SOURCE[0]}"
# A link to this script is followed: what it needs lies beside the script itself.
while [ -L "$SELF" ]; do
  LINK="$(readlink -- "$SELF")"
  case "$LINK" in /*) SELF="$LINK" ;; *) SELF="$(dirname -- "$SELF")/$LINK" ;; esac
done
HERE="$(cd -- "$(dirname -- "$SELF")" >/dev/null && pwd -P)"
# shellcheck source=scripts/bootstrap.sh
. "$HERE/scripts/bootstrap.sh"
cd -- "$ROOT"
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TOKENIZERS_PARALLELISM=false
# One thread a process: two pytest workers fill two cores, and more threads only wait for each other.
export OMP_NUM_THREADS=1

failed=""
check() {
  local title="$1"
  shift
  printf '\n== %s\n' "$title"
  "$@" || failed="$failed, $title"
}
# The notebooks run in kernels of their own; a warning in this process is nbval's or the kernel client's, not ours.
nbval() { "$STUDY_PYTHON" -m pytest -q -W default --nbval-lax --nbval-current-env --nbval-cell-timeout=600 "$@"; }
any_notebook() { compgen -G "$1/*.ipynb" >/dev/null; }

check "ruff check" "$STUDY_PYTHON" -m ruff check .
check "ruff format" "$STUDY_PYTHON" -m ruff format --check .
if any_notebook notebooks; then
  # The runner's pool trains every row once; the notebooks then read, and the tests look at the figures.
  check "smoke study" "$STUDY_PYTHON" -m common.runner --profile smoke
  STUDY_PROFILE=smoke check "notebooks" nbval notebooks
fi
if any_notebook results/cpu/notebooks; then
  check "published notebooks" nbval results/cpu/notebooks
fi
[ -z "$failed" ] || printf '\nFailed so far: %s\n' "${failed#, }"
check "tests" "$STUDY_PYTHON" -m pytest -n 2 --dist loadfile "$@"
[ -z "$failed" ]
