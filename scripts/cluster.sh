#!/usr/bin/env bash
# A Dask cluster for ./run_all.sh --scheduler ADDRESS (README, "Several machines, several GPUs"):
#   scripts/cluster.sh key                           make cluster.pem and cluster.key; copy both into every checkout
#   scripts/cluster.sh scheduler HOST [PORT]         on one machine; HOST is its address in your network
#   scripts/cluster.sh worker tls://HOST:PORT [N]    on any machine, N runs at a time
set -euo pipefail
HERE="$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" >/dev/null && pwd -P)"
usage() { sed -n 's/^# //p' "$HERE/cluster.sh" >&2 && exit 2; }
[ "${1:-}" = key ] || [ $# -ge 2 ] || usage
# shellcheck source=scripts/bootstrap.sh
. "$HERE/bootstrap.sh"
cd -- "$ROOT"
export DASK_CONFIG="${DASK_CONFIG:-$HERE/cluster.yaml}"
closed=(--no-dashboard --dashboard-address 127.0.0.1:0) # web pages would not be encrypted
case "$1" in
  key)
    [ ! -e cluster.key ] || { echo "cluster.key is there already." >&2 && exit 2; }
    umask 077
    openssl req -x509 -newkey rsa:4096 -nodes -days 365 -subj /CN=study -keyout cluster.key -out cluster.pem
    ;;
  scheduler) exec "$STUDY_PYTHON" -m dask scheduler --protocol tls --host "$2" --port "${3:-8786}" "${closed[@]}" ;;
  worker) exec "$STUDY_PYTHON" -m dask worker "$2" --nworkers "${3:-1}" --nthreads 1 --memory-limit 0 "${closed[@]}" ;;
  *) usage ;;
esac
