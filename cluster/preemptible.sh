#!/usr/bin/env bash
# Runs a command and reports to a scheduler whether it has to be started again:
#
#   cluster/preemptible.sh python train.py ...
#
# status 0    the command is done
# status 143  SIGTERM stopped the command, and it can be resumed: train.py then saves and exits with 0, as if it were done
# any other   the status of the command
#
# Schedulers take a status of 0 to mean that nothing is left to do, regardless of earlier signals.
set -euo pipefail

signals=0
child=
trap 'signals=$((signals + 1)); [[ -z $child ]] || kill -TERM "$child" 2>/dev/null || true' TERM
"$@" &
child=$!
if ((signals > 0)); then
  kill -TERM "$child" # the signal arrived before the child was started
fi

# A signal interrupts `wait`, which must then be called again to get the status of the command.
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
