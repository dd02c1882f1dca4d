#!/usr/bin/env bash
# Trains with N processes of M devices each on this machine, as a cluster would. Use it to try things out before paying
# for machines; the tests use it too.
#
#   cluster/local.sh 2 2 --config=configs/quickstart.py --workdir=runs/cluster
#
# Process I writes to WORKDIR-logs/I.log, and process 0 also to the terminal. Ctrl-C and SIGTERM are sent to all of them:
# the run saves and exits with status 0. If a process dies, a line names it, and the others exit within the heartbeat
# timeout.
set -euo pipefail

if (($# < 3)) || ! [[ $1 =~ ^[1-9][0-9]*$ && $2 =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: cluster/local.sh PROCESSES DEVICES --workdir=DIR ARGUMENTS OF train.py..." >&2
  exit 2
fi
processes=$1 devices=$2
shift 2
for argument in "$@"; do
  [[ $argument == --workdir=* ]] && logs=${argument#--workdir=}-logs
done
if [[ -z ${logs:-} ]]; then
  echo "error: --workdir=DIR is missing: the folder to write to" >&2
  exit 2
fi
mkdir -p "$logs"

root=$(dirname "$(dirname "$(realpath "$0")")")
python=${PYTHON:-$root/.venv/bin/python}
# Use any free port.
port=$("$python" -c 'import socket; s = socket.socket(); s.bind(("localhost", 0)); print(s.getsockname()[1])')
export HVQ_COORDINATOR=localhost:$port HVQ_NUM_PROCESSES=$processes
export JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=$devices

pids=()
for ((i = 0; i < processes; i++)); do
  if ((i == 0)); then
    HVQ_PROCESS_ID=$i "$python" "$root/train.py" "$@" > >(tee "$logs/$i.log") 2> >(tee -a "$logs/$i.log" >&2) &
  else
    HVQ_PROCESS_ID=$i "$python" "$root/train.py" "$@" >"$logs/$i.log" 2>&1 &
  fi
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT

# Report the first process to fail: the others fail because of it.
status=0
running=("${pids[@]}")
while ((${#running[@]})); do
  ended=0
  code=0
  { wait -n -p ended "${running[@]}" || code=$?; } 2>/dev/null # otherwise bash itself reports signals
  if [[ -z ${ended:-} || $ended == 0 ]]; then
    continue # a signal interrupted the wait
  fi
  left=()
  for pid in "${running[@]}"; do
    [[ $pid != "$ended" ]] && left+=("$pid")
  done
  running=("${left[@]}")
  if ((code != 0 && status == 0)); then
    status=$code
    for ((i = 0; i < processes; i++)); do
      [[ ${pids[i]} == "$ended" ]] && died=$i
    done
    if ((code > 128)); then
      echo "error: process $died was killed by signal $((code - 128)); see $logs/$died.log; run the same command again to resume" >&2
    else
      echo "error: process $died ended with status $code; see $logs/$died.log" >&2
    fi
  fi
done
exit "$status"
