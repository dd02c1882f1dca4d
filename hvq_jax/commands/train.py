"""Train a hybrid-latent VQ-VAE and a prior over its latent, evaluate both and draw samples.

  python train.py --config=configs/quickstart.py --workdir=runs/quickstart
  python train.py --config=configs/fashion_mnist.py:projected --workdir=runs/a
  python train.py --config=configs/fashion_mnist.py:frequency --config.latent.num_frequent=312 --workdir=runs/b
  python train.py --workdir=runs/a
  python train.py --config=configs/fashion_mnist.py --workdir=runs/c --plan

--config=FILE[:LATENT]   a file of configs/; LATENT is vq, projected, frequency or combined.
                         May be omitted if the workdir already holds a run: its config is used.
--config.KEY=VALUE       changes any option; --config.stage=autoencoder or prior runs one stage only.
--workdir=DIR            where everything is written. Run the same command again to resume.
--coordinator=HOST:PORT --num_processes=N --process_id=I
                         joins N processes into one training. Not needed under SLURM, Open MPI or on a TPU pod, or with
                         HVQ_COORDINATOR, HVQ_NUM_PROCESSES and HVQ_PROCESS_ID in the environment.
--profile=N              traces N training steps of each stage into WORKDIR/profile, for TensorBoard or Perfetto,
                         from the eleventh step after this launch.
--plan                   says what would be trained, with the time and the memory of a step, and trains nothing.
--quiet                  prints warnings and errors only.
--help                   this text and every option.
"""

from hvq_jax.devices.cluster import join
from hvq_jax.devices.parallel import find_devices
from hvq_jax.devices.preemption import RESUMES
from hvq_jax.errors import Preempted
from hvq_jax.runs import options
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.runs.open import run_experiment
from hvq_jax.runs.plan import plan_experiment

INTERRUPTED = f"interrupted: {RESUMES}"


def describe() -> str:
    """Return the help text."""
    return f"{__doc__}\nEvery option with its default:\n\n{options.describe()}\n"


def run(arguments: list[str]) -> None:
    """Run the experiment given on the command line."""
    line = parse_command_line(arguments)
    join(line.coordinator, line.num_processes, line.process_id)
    find_devices()
    if not line.plan:
        run_experiment(line.config, line.workdir, profile_steps=line.profile, quiet=line.quiet)
        return
    try:
        plan_experiment(line.config, line.workdir)
    except KeyboardInterrupt:
        raise Preempted("interrupted: nothing was trained", status=130) from None
