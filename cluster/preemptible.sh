#!/usr/bin/env bash
# Runs a command and tells a scheduler whether it has to be started again:
#
#   cluster/preemptible.sh python train.py ...
#
# status 0    the command is done
# status 143  SIGTERM stopped it, and it can go on: train.py saves and ends with 0 then, as if it were done
# any other   the command's own
#
# To schedulers a status of 0 means that there is nothing left to do, whatever was signalled before.
set -euo pipefail

signals=0
child=
trap 'signals=$((signals + 1)); [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' TERM
"$@" &
child=$!
if ((signals > 0)); then
  kill -TERM "$child" # it came before there was anyone to tell
fi

# A signal interrupts `wait`, which then has to be called again for the command's own status.
seen=-1
status=0
while ((seen != signals)); do
  seen=$signals
  status=0
  wait "$child" || status=$?
done
if ((status == 0 && signals > 0)); then
  status=143
fi
exit "$status"
