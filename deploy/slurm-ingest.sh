#!/bin/bash
#SBATCH --job-name=vlapipe-ingest
#SBATCH --nodes=4 --ntasks-per-node=1 --cpus-per-task=32 --time=12:00:00
# Ingests on all nodes of a Slurm job. RAW and DATA lie on a disk that all nodes see.
#
#   sbatch --nodes=8 deploy/slurm-ingest.sh RAW DATA [options of vlapipe ingest]
#
# Exit code 5 says that the surroundings stopped the run: the same sbatch goes on where it ended.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: sbatch slurm-ingest.sh RAW DATA [options of vlapipe ingest]" >&2
  exit 2
fi
raw=$1 data=$2
shift 2
file=$PWD/dask-$SLURM_JOB_ID.json # through which the workers find the scheduler
started=()
trap 'kill "${started[@]}" 2>/dev/null || true; wait; rm -f "$file"' EXIT

# Dask has no password, so scheduler and workers listen on the addresses of the nodes' names and not on all.
dask scheduler --host "$(hostname)" --port 0 --no-dashboard --scheduler-file "$file" >"dask-$SLURM_JOB_ID.log" 2>&1 &
started+=($!)
# shellcheck disable=SC2016 # each node says its own name
srun bash -c 'exec dask worker --host "$(hostname)" --scheduler-file "$1" --nworkers "$2" --nthreads 1 \
  --no-dashboard --local-directory "${TMPDIR:-/tmp}"' worker "$file" "${SLURM_CPUS_PER_TASK:-1}" \
  >>"dask-$SLURM_JOB_ID.log" 2>&1 &
started+=($!)
until [ -s "$file" ]; do
  kill -0 "${started[0]}" # else the scheduler has ended: the log says why
  sleep 0.2
done
address=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["address"])' "$file")
vlapipe ingest --dataset "$raw" --out "$data" --scheduler "$address" --scheduler-timeout 600 "$@"
