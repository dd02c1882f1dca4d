"""Train a hybrid-latent VQ-VAE and a prior over its latent, evaluate both and draw samples.

  python train.py --config=configs/quickstart.py --workdir=runs/quickstart
  python train.py --config=configs/fashion_mnist.py:projected --workdir=runs/a
  python train.py --config=configs/fashion_mnist.py:frequency --config.latent.num_frequent=312 --workdir=runs/b
  python train.py --workdir=runs/a

--config=FILE[:LATENT]   a file of configs/; LATENT is vq, projected, frequency or combined.
                         May be left out where the workdir already holds a run: its own config is used.
--config.KEY=VALUE       changes any option; --config.stage=autoencoder or prior runs one stage only.
--workdir=DIR            where everything is written. Started again, a run goes on where it stopped.
--coordinator=HOST:PORT --num_processes=N --process_id=I
                         joins N processes into one training, where SLURM, Open MPI, a TPU pod or HVQ_COORDINATOR,
                         HVQ_NUM_PROCESSES and HVQ_PROCESS_ID in the environment do not say so by themselves.
--profile=N              traces N training steps of each stage, from the eleventh of this start on, into
                         WORKDIR/profile, for TensorBoard or Perfetto.
--help                   this text and every option.
"""

import sys
from functools import partial
from pathlib import Path

from hvq_jax.training.xla import keep_compiled_programs, set_cpu_options

set_cpu_options()  # before anything uses a device
keep_compiled_programs()

from hvq_jax.errors import exit_status
from hvq_jax.experiment import run_experiment
from hvq_jax.training.cluster import join
from hvq_jax.training.flags import parse_command_line
from hvq_jax.training.logging import set_quiet
from hvq_jax.training.preemption import GOES_ON
from hvq_jax.training.profiling import profiled


def main(arguments: list[str]) -> int:
    """Runs the command; the exit status."""
    set_quiet()
    if {"--help", "-h", "-help"} & set(arguments):
        options = Path(__file__).with_name("configs") / "default.py"
        print(f"{__doc__}\nEvery option and its default, from configs/default.py:\n\n{options.read_text()}")
        return 0
    return exit_status(partial(train, arguments), interrupted=f"interrupted: {GOES_ON}")


def train(arguments: list[str]) -> None:
    """Runs the experiment that the command line asks for."""
    line = parse_command_line(arguments)
    join(line.coordinator, line.num_processes, line.process_id)
    with profiled(line.profile):
        run_experiment(line.config, line.workdir)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
