"""Four simulated devices, the XLA options that the entry points set, and a compilation cache that all tests share.

All have to be in the environment before JAX first looks for devices. Compiling takes most of the suite's time, so XLA
is configured to spend less on it: fewer optimisations, and no splitting of a program into parts that several threads
compile, since all cores are busy anyway. Tests of exact identities, marked `optimised`, run separately and compile as
`train.py` does: `pytest -m optimised`.

The reason why a pytest-xdist worker dies (the message with which XLA aborts, the threads that faulthandler and
pytest-timeout dump) is written to the file descriptors of standard output and error, and lost by execnet and pytest's
capture. So each worker redirects both to a file, and the first process prints the end of the file of a worker that
dies. This needs `--capture=sys`, which leaves the descriptors alone (in `addopts`).
"""

import atexit
import fcntl
import gc
import os
import shutil
import tempfile
from pathlib import Path

from hvq_jax.devices.xla import knows_options, set_cpu_options

gc.disable()  # while modules and tests are imported, of which nothing is garbage
set_cpu_options()
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4"

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers inherit the folders of the process that starts them
    _cache, _outputs = (tempfile.mkdtemp(prefix=f"hvq_jax_{name}_") for name in ("compiled", "outputs"))
    for _folder in (_cache, _outputs):
        atexit.register(shutil.rmtree, _folder, ignore_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"  # eagerly, all workers compile the same small ones
    os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"  # neither lines of Python nor names of modules in programs
    os.environ["FLAX_PROFILE"] = "0"
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # its threads wait by spinning, and all cores are busy anyway
    os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"  # as in commands that tests start
    os.environ["HVQ_JAX_WORKER_OUTPUTS"] = _outputs
    # Compiling allocates and frees millions of small objects: keep their memory, and never merge it in between, which
    # takes a twelfth of the time. Only processes that start from here on read this.
    _options = ("mxfast=0", "mmap_threshold=67108864", "top_pad=16777216", "trim_threshold=268435456")
    _tunables = (*(f"glibc.malloc.{option}" for option in _options), os.environ.get("GLIBC_TUNABLES"))  # the last wins
    os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, _tunables))
elif "HVQ_JAX_WORKER_OUTPUTS" in os.environ:
    _output = os.open(
        Path(os.environ["HVQ_JAX_WORKER_OUTPUTS"], os.environ["PYTEST_XDIST_WORKER"]),
        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
    )
    for _descriptor in (1, 2):
        os.dup2(_output, _descriptor)
    os.close(_output)

import hypothesis  # noqa: E402 - after the environment is set

# No deadline, because of compiling; the same examples every time, so that only the code can cause a failure.
hypothesis.settings.register_profile("hvq_jax", deadline=None, derandomize=True, max_examples=50)
hypothesis.settings.load_profile("hvq_jax")

import jax  # noqa: E402
import pytest  # noqa: E402

import train  # noqa: E402
from hvq_jax.data.builders.idx import read_idx  # noqa: E402
from hvq_jax.data.datasets import load_dataset  # noqa: E402
from hvq_jax.evaluation import plots  # noqa: E402
from tests.data.published_files import write_idx_files  # noqa: E402
from tests.mlir_context import share_context  # noqa: E402

if knows_options():  # and what is within this version of JAX
    share_context()

EMBEDDED = Path(__file__).parents[1] / "hvq_jax" / "data" / "embedded" / "fashion_mnist_test"

OUTPUT_LINES_SHOWN = 300  # of a worker that died: XLA's message, and a stack for each thread

# A whole run in seconds, on the embedded images.
TINY = (
    "--config.latent.dim=8",
    "--config.network.num_blocks=0",
    "--config.latent.num_codes=16",
    "--config.latent.num_frequent=8",
    "--config.autoencoder.batch_size=64",
    "--config.autoencoder.num_steps=6",
    "--config.autoencoder.eval_every_steps=3",
    "--config.prior.width=8",
    "--config.prior.num_layers=2",
    "--config.prior.head_width=8",
    "--config.prior.batch_size=64",
    "--config.prior.num_steps=4",
    "--config.prior.eval_every_steps=2",
    "--config.prior.coded_images=0",
    "--config.sampling.classify=False",
    "--config.sampling.per_class=2",
)


def pytest_configure(config):
    """Compile in a third of the time, to slower programs, unless `-m optimised` is given."""
    if config.option.markexpr != "optimised":
        if knows_options():  # an unknown one would abort the process
            os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"  # for processes that tests start
        jax.config.update("jax_disable_most_optimizations", True)


def pytest_collection_finish():
    """Collect garbage less often, and never look at the modules and the tests, which stay until the end."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    """Print the last lines written by a worker that died."""
    output = Path(os.environ["HVQ_JAX_WORKER_OUTPUTS"], node.gateway.id)
    if error and output.exists():
        reporter = node.config.pluginmanager.getplugin("terminalreporter")
        reporter.write_sep("=", f"last output of worker {node.gateway.id}, which died ({error})")
        lines = output.read_text(errors="replace").splitlines()
        for line in lines[-OUTPUT_LINES_SHOWN:]:
            reporter.write_line(line)


def made_once(tmp_path_factory, name, make):
    """Return the folder `name` that all workers share; the first to ask for it fills it by `make`, the others wait."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (root / f"{name}.made").exists():
            make(root / name)
            (root / f"{name}.made").touch()
    return root / name


def pytest_ignore_collect(collection_path, config):
    """Under `-m optimised`, import only the files that have a test marked so."""
    if config.option.markexpr == "optimised" and collection_path.name.startswith("test_"):
        return "mark.optimised" not in collection_path.read_text() or None
    return None


# Of the embedded images: evaluations and encodings of thousands would be most of a tiny run.
NUM_IMAGES = {"train": 640, "test": 128}


@pytest.fixture(scope="session")
def manual_dir(tmp_path_factory):
    """A folder with a few hundred real images in the four files of Fashion-MNIST."""

    def make(folder):
        images = read_idx(EMBEDDED / "t10k-images-idx3-ubyte.gz", (28, 28))
        labels = read_idx(EMBEDDED / "t10k-labels-idx1-ubyte.gz", ())
        train, test = NUM_IMAGES["train"], NUM_IMAGES["test"]
        parts = {"train": slice(0, train), "test": slice(train, train + test)}
        write_idx_files(folder, {split: (images[rows], labels[rows]) for split, rows in parts.items()})

    return made_once(tmp_path_factory, "images", make)


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory, manual_dir):
    """The folder of prepared TFDS data sets for tests that train, never the user's; one data set is in it."""
    sizes = {"validation_size": NUM_IMAGES["test"]}
    return made_once(
        tmp_path_factory,
        "data",
        lambda folder: load_dataset("fashion_mnist", data_dir=folder, manual_dir=manual_dir, **sizes),
    )


@pytest.fixture(scope="session")
def tiny_arguments(data_dir, manual_dir):
    """Arguments of `train.py` for a tiny run; add --workdir and overrides."""
    folders = (f"--config.data.data_dir={data_dir}", f"--config.data.manual_dir={manual_dir}")
    size = f"--config.data.validation_size={NUM_IMAGES['test']}"
    return ["--config=configs/quickstart.py", "--config.data.name=fashion_mnist", *folders, size, *TINY]


@pytest.fixture
def without_plots(monkeypatch):
    """Write empty files for the plots of a run, which take a tenth of a tiny one; those of `trained_run` are drawn."""
    monkeypatch.setattr(plots, "_write", lambda figure, path: path.touch())


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory, tiny_arguments):
    """The workdir of a finished tiny run of both stages; to be read, not changed."""

    def make(workdir):
        assert train.main([*tiny_arguments, f"--workdir={workdir}"]) == 0

    return made_once(tmp_path_factory, "tiny_run", make)
