"""The server of the page: on this machine's loopback address, for as long as the command runs."""

from functools import partial
from pathlib import Path

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.server.server import Server

from hvq_jax.errors import UserError
from hvq_jax.explore.page import add_page
from hvq_jax.runs.loaded import LoadedRun, load

HOST = "127.0.0.1"
_LARGEST_MESSAGE = 256 * 2**20  # bytes; an uploaded image is one message, in base64


def open_server(workdir: str | Path, port: int) -> Server:
    """Return a server of the page of the run in `workdir`, which listens and does not answer yet.

    Args:
        workdir: of the run.
        port: of 127.0.0.1; 0 for any that is free.

    Raises:
        UserError: there is no run with an autoencoder in `workdir`, its files are damaged, or the port cannot be used.
    """
    if not 0 <= port < 2**16:
        raise UserError(f"--port={port}: must be from 0 to {2**16 - 1}")
    run = load(workdir)
    _read(run)
    application = Application(FunctionHandler(partial(add_page, run=run)))
    try:
        return Server(
            {"/": application}, address=HOST, port=port, websocket_max_message_size=_LARGEST_MESSAGE, use_index=False
        )
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"--port={port}: {reason}; choose another one, or 0 for any that is free") from None


def _read(run: LoadedRun) -> None:
    """Read the checkpoints, so that what is wrong with them is said before the page opens."""
    _ = run.stream.variables_on_device
    if run.stream.has_prior:
        _ = run.stream.prior_params_on_device, run.stream.tables


def serve(server: Server) -> None:
    """Print the address of `server`, and answer until ctrl-C."""
    server.start()
    print(f"http://{HOST}:{server.port}/  (ctrl-C ends)", flush=True)
    try:
        server.io_loop.start()
    except KeyboardInterrupt:
        print()
    finally:
        server.stop()
