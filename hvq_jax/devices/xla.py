"""Options of JAX and XLA that must be set in the environment before JAX first uses a device or compiles a program."""

import hashlib
import os
import platform
import sys
import warnings
from pathlib import Path

import jaxlib

from hvq_jax.devices.accelerators import chooses_cpu
from hvq_jax.errors import UserError
from hvq_jax.files import full_path, home_folder

_CPU_OPTIONS = (
    # Library kernels for matrix products, convolutions and reductions: they halve the time of a training step.
    "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    # Otherwise XLA removes optimisation barriers before fusion, and `convolution.materialised` has no effect.
    "--xla_disable_hlo_passes=cse_barrier_expander",
)
# XLA ends the process ("Fatal Python error: Aborted") where a simulated device is later than this at a reduction, by
# default 40 s: a busy machine may be that late. Half an hour, as XLA gives other processes. (Devices that wait for each
# other for ever, see `training/step_log.py`, end the same way.)
_PATIENCE_OPTION = "--xla_cpu_collective_call_terminate_timeout_seconds"
_PATIENCE_SECONDS = 1800
# An unknown option aborts the process when the backend starts, so only versions that were tested get these.
_KNOWN_JAXLIB = ("0.10.2",)


def knows_options() -> bool:
    """Return whether options of XLA were tested with the installed jaxlib."""
    return jaxlib.__version__ in _KNOWN_JAXLIB


def set_cpu_options() -> None:
    """Set the fast options, and patience with simulated devices, where JAX will run on CPU.

    XLA_FLAGS that the user has set get no fast options, and patience only where they do not set it themselves. Where
    they name a file of options, they are left alone.
    """
    if not knows_options() or not chooses_cpu():
        return
    flags = os.environ.get("XLA_FLAGS", " ".join(_CPU_OPTIONS)).split()
    if not any(flag.startswith(_PATIENCE_OPTION) for flag in flags) and all(flag.startswith("-") for flag in flags[:1]):
        flags.append(f"{_PATIENCE_OPTION}={_PATIENCE_SECONDS}")
    os.environ["XLA_FLAGS"] = " ".join(flags)


def keep_compiled_programs() -> None:
    """Let JAX cache compiled programs in the user's cache folder for the next start; call this before any is compiled.

    JAX_COMPILATION_CACHE_DIR and other options of JAX that the user has set are kept. If the folder is not writable,
    nothing is cached.
    """
    # A program that another process is writing, or did not finish writing, is compiled again; no need to warn the user.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache")
    _set_option("jax_persistent_cache_min_compile_time_secs", 0)
    _set_option("jax_persistent_cache_enable_xla_caches", "none")  # others add the folder's path to the key
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    caches, home = os.environ.get("XDG_CACHE_HOME"), home_folder()
    if not caches and home is None:
        return
    try:
        folder = full_path(caches or f"{home}/.cache") / "hvq_jax" / "xla" / processor()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, UserError):
        return
    if os.access(folder, os.W_OK):
        _set_option("jax_compilation_cache_dir", str(folder))


def _set_option(name: str, value: str | int) -> None:
    """Set an option of JAX for this process and those that it starts, unless it is in the environment."""
    if name.upper() in os.environ:
        return
    os.environ[name.upper()] = str(value)
    if "jax" in sys.modules:  # it has read the environment
        sys.modules["jax"].config.update(name, value)


def processor() -> str:
    """Return a name for the kind of CPU: a program for one may not run on another, but JAX gives both the same key."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else [platform.processor()]
    kind = sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))} or lines[:1])
    return f"{platform.machine()}-{hashlib.sha256(''.join(kind).encode()).hexdigest()[:12]}"
