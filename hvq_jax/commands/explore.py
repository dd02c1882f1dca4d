"""Open a page in the browser that shows what a trained run can do.

    python -m hvq_jax.explore --workdir=runs/a
    python -m hvq_jax.explore --workdir=runs/a --port=8000

Draw images with sliders for temperature, guidance, top-p and seed; complete an image of yours; and change the code or
the gain at a position of a latent, to see what changes in the image. The page is served to this machine alone, at
http://127.0.0.1:PORT, until ctrl-C; it loads nothing from elsewhere and sends nothing.
"""

import argparse
import importlib.util

from hvq_jax.commands.sample import OneLineParser, path_argument
from hvq_jax.devices.parallel import find_devices
from hvq_jax.errors import UserError
from hvq_jax.extras import install_command

PORT = 5006


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    options = OneLineParser(description=__doc__)
    options.add_argument("--workdir", type=path_argument, required=True, help="folder of a trained run")
    options.add_argument("--port", type=int, default=PORT, help=f"where to serve the page; 0: any (default: {PORT})")
    return options


def run(arguments: list[str]) -> None:
    """Serve the page until ctrl-C."""
    options = parser().parse_args(arguments)
    if importlib.util.find_spec("bokeh") is None:
        raise UserError(f"this needs the package bokeh: {install_command('explore')}")
    from hvq_jax.explore.server import open_server, serve

    find_devices()
    serve(open_server(options.workdir, options.port))
