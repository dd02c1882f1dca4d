"""Convert checkpoints of the PyTorch reference (ritheshkumar95/pytorch-vqvae) to a run.

    python convert.py --config=configs/reference.py:vq --workdir=runs/reference \\
        --autoencoder=models/vqvae/best.pt --prior=models/pixelcnn_prior/prior.pt

  --autoencoder=FILE   state dict of the autoencoder, a .pt (needs torch) or the same arrays as .npz
  --prior=FILE         state dict of the PixelCNN, optional
  --config, --config.KEY, --workdir   as for train.py; the sizes of the networks are read from the files

Then evaluate the run with `python train.py --workdir=runs/reference`, and draw samples with sample.py.
"""

from hvq_jax.devices.parallel import find_devices
from hvq_jax.errors import UserError
from hvq_jax.runs.flags import parse_command_line
from hvq_jax.torch_reference.convert import convert


def run(arguments: list[str]) -> None:
    """Convert the files named on the command line."""
    files = {"autoencoder": "", "prior": ""}
    rest = []
    for argument in arguments:
        name, _, value = argument.partition("=")
        if name.removeprefix("--") in files and value:
            files[name.removeprefix("--")] = value
        else:
            rest.append(argument)
    line = parse_command_line(rest)
    for name in line.of_training:
        raise UserError(f"--{name} is for train.py, and this trains nothing: omit it")
    if not files["autoencoder"]:
        raise UserError("--autoencoder=FILE is missing (see --help)")
    find_devices()
    convert(line.config, line.workdir, autoencoder=files["autoencoder"], prior=files["prior"] or None)
