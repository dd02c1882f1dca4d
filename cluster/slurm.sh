#!/usr/bin/env bash
# Trains on several nodes under SLURM, and resumes after preemption, time limits and crashes. Run from the repository:
#
#   sbatch cluster/slurm.sh --config=configs/fashion_mnist.py:projected --workdir=/shared/runs/a
#
# The repository, its .venv, the workdir and the data must be on storage shared by all nodes. For GPUs, .venv also needs
# .venv/bin/pip install "jax[cuda12]==0.10.2".

# Edit these. Use one task per GPU, as JAX expects under SLURM: task i of a node uses the node's i-th GPU. Each task must
# therefore see all GPUs of its node: no --gpus-per-task, no --gpu-bind, whole nodes. (A single task per node would use
# only the first GPU, unless JAX_LOCAL_DEVICE_IDS=0,1,... is exported below.) On CPUs: --ntasks-per-node=1 and no --gres.
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --job-name=hvq
#SBATCH --output=%x-%j.log

# Keep these. Three minutes before the time limit the tasks receive SIGTERM, which leaves time to save and to requeue the
# job. If the job is preempted, the time is the partition's GraceTime.
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1} # since SLURM 22.05 srun does not inherit it from sbatch

for attempt in 1 2 3; do
  status=0
  # If a task dies, the others notice within 30 seconds and exit. SLURM must not kill those that are still saving.
  srun --kill-on-bad-exit=0 cluster/preemptible.sh .venv/bin/python train.py "$@" || status=$?
  if ((status == 0)); then
    exit 0
  fi
  if ((status == 143)); then
    echo "stopped by SIGTERM and saved: requeueing job $SLURM_JOB_ID"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
  fi
  echo "attempt $attempt of 3 ended with status $status: see above for the first error" >&2
done
exit "$status"
