"""Train a hybrid-latent VQ-VAE and a prior over its latent, evaluate both and draw samples.

  python train.py --config=configs/quickstart.py --workdir=runs/quickstart
  python train.py --config=configs/fashion_mnist.py:projected --workdir=runs/a
  python train.py --config=configs/fashion_mnist.py:frequency --config.latent.num_frequent=312 --workdir=runs/b
  python train.py --workdir=runs/a

--config=FILE[:LATENT]   a file of configs/; LATENT is vq, projected, frequency or combined.
                         May be left out where the workdir already holds a run: its own config is used.
--config.KEY=VALUE       changes any option; --config.stage=autoencoder or prior runs one stage only.
--workdir=DIR            where everything is written. Started again, a run goes on where it stopped.
--help                   this text and every option.
"""

import sys
from pathlib import Path

from absl import logging

from hvq_jax.training.xla import set_cpu_options

set_cpu_options()  # before anything uses a device

from hvq_jax.errors import UserError
from hvq_jax.experiment import run_experiment
from hvq_jax.training.flags import parse_config


def main(arguments: list[str]) -> int:
    """Runs the command; the exit status."""
    logging.set_verbosity(logging.ERROR)  # Orbax and TFDS warn about what is meant
    if {"--help", "-h", "-help"} & set(arguments):
        options = Path(__file__).with_name("configs") / "default.py"
        print(f"{__doc__}\nEvery option and its default, from configs/default.py:\n\n{options.read_text()}")
        return 0
    try:
        config, workdir = parse_config(arguments)
        run_experiment(config, workdir)
    except (UserError, OSError) as error:  # OSError: a full disk, a folder that went away
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
