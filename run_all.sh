#!/usr/bin/env bash
# Runs the study: notebooks, tables, figures and the page. ./run_all.sh --help lists the options.
set -euo pipefail
SELF="${BASH_SOURCE[0]}"
# A link to this script is followed: what it needs lies beside the script itself.
while [ -L "$SELF" ]; do
  LINK="$(readlink -- "$SELF")"
  case "$LINK" in /*) SELF="$LINK" ;; *) SELF="$(dirname -- "$SELF")/$LINK" ;; esac
done
HERE="$(cd -- "$(dirname -- "$SELF")" >/dev/null && pwd -P)"
# Help needs any Python 3, but no environment.
for word; do
  case "$word" in -h | --help) exec "${PYTHON:-python3}" -I -S "$HERE/src/common/cli.py" --help ;; esac
done
# shellcheck source=scripts/bootstrap.sh
. "$HERE/scripts/bootstrap.sh"
# The tokenizers warn about forks when this is unset.
export TOKENIZERS_PARALLELISM=false
# A relative --data or --encoder means the folder the command was called from.
export STUDY_CALLED_FROM="$PWD"
cd -- "$ROOT"
exec "$STUDY_PYTHON" -m common.runner "$@"
