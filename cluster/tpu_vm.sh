#!/usr/bin/env bash
# Trains on a Cloud TPU slice with any number of hosts, and restarts after preemption and maintenance:
#
#   cluster/tpu_vm.sh --config=configs/fashion_mnist.py:projected --workdir=/mnt/shared/runs/a
#
# It runs the last commit of this repository. The script runs until the training is done, so start it in tmux or on a
# small machine, after `gcloud auth login` and `gcloud config set project PROJECT`. Ctrl-C stops the script but not the
# training. When the script is started again, it stops that training, which saves, and resumes it.
set -euo pipefail

# Edit these.
name=hvq
zone=us-central1-a
type=v5litepod-16
runtime=v2-alpha-tpuv5-lite # v6e: v2-alpha-tpuv6e, v5p: v2-alpha-tpuv5, v4: tpu-ubuntu2204-base
tier=(--spot)               # or (--reserved), or () for on-demand
# All hosts need the same storage for the workdir and the data: here a Filestore share in the same network.
mount='sudo apt-get install -y -qq nfs-common && sudo mkdir -p /mnt/shared &&
  { mountpoint -q /mnt/shared || sudo mount 10.0.0.2:/share /mnt/shared; }'

poll_seconds=${POLL_SECONDS:-60}
arguments=$(printf '%q ' "$@")
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
git -C "$(dirname "$0")/.." archive --format=tar.gz --output="$temporary/code.tar.gz" HEAD

queued() { # a subcommand, then its own options
  gcloud compute tpus queued-resources "$1" "$name" --zone="$zone" --quiet "${@:2}"
}

state() { # WAITING_FOR_RESOURCES, PROVISIONING, ACTIVE, SUSPENDING, SUSPENDED, FAILED ...; empty if there is no request
  queued describe --format='value(state.state)' 2>"$temporary/error" && return
  if ! grep -qi 'not.found' "$temporary/error"; then
    cat "$temporary/error" >&2
    echo UNKNOWN # for example a network error: try again
  fi
}

on_all_hosts() { # without ServerAliveInterval, ssh would wait forever for a host that has been taken away
  gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --quiet --worker=all \
    --ssh-flag='-o ServerAliveInterval=30' --command="$1"
}

train() { # status 0: done
  on_all_hosts "while pkill -TERM -f '[.]venv/bin/python train.py'; do sleep 5; done; $mount" &&
    gcloud compute tpus tpu-vm scp "$temporary/code.tar.gz" "$name:code.tar.gz" --zone="$zone" --quiet --worker=all &&
    # The Python of the images is too old; uv installs its own.
    on_all_hosts 'set -e; mkdir -p hvq_jax; tar -xzf code.tar.gz -C hvq_jax; cd hvq_jax
      test -x ~/.local/bin/uv || curl -LsSf https://astral.sh/uv/install.sh | sh
      test -d .venv || ~/.local/bin/uv venv --quiet --python 3.11
      ~/.local/bin/uv pip install --quiet -r requirements.txt "jax[tpu]==0.10.2"' &&
    on_all_hosts "cd hvq_jax && cluster/preemptible.sh .venv/bin/python train.py $arguments"
}

failures=0
while ((failures < 5)); do
  now=$(state)
  echo "$(date '+%F %T') $name: ${now:-no request, creating one}"
  case $now in
    '')
      queued create --node-id="$name" --accelerator-type="$type" --runtime-version="$runtime" "${tier[@]}"
      ;;
    ACTIVE)
      started=$SECONDS
      if train; then
        echo "training is done: releasing the TPU"
        queued delete --force
        exit 0
      fi
      # A training that ran for a while was interrupted; one that did not is broken.
      ((SECONDS - started > 900)) && failures=0
      failures=$((failures + 1))
      sleep "$poll_seconds"
      ;;
    SUSPENDED | FAILED) # preempted or unavailable: such a request never becomes active again
      [[ $now == FAILED ]] && failures=$((failures + 1))
      queued delete --force
      ;;
    *)
      sleep "$poll_seconds"
      ;;
  esac
done
echo "error: five failures in a row, see above; if the TPU still exists, it costs money; to release it, run:" \
  "gcloud compute tpus queued-resources delete $name --zone=$zone --force" >&2
exit 1
