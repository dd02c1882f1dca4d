"""The command line of `train.py`: an ml_collections config with overrides; one-line errors."""

import dataclasses
import difflib
import re
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from hvq_jax.errors import UserError
from hvq_jax.layout import CONFIG
from hvq_jax.runs.open import flags_named, with_flags
from hvq_jax.runs.options import RENAMED, stored_config
from hvq_jax.runs.workdir import flatten, load_config


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """A parsed command line."""

    config: ConfigDict  # with its overrides, locked
    workdir: str
    coordinator: str | None  # HOST:PORT of process 0; this and the next two only if flags describe a cluster
    num_processes: int | None
    process_id: int | None
    profile: int  # training steps of each stage to trace; 0: none


def parse_command_line(arguments: list[str]) -> CommandLine:
    """Parse `arguments`, the command line without the program's name; raise UserError for any mistake.

    Without `--config` the config is that of the run in the workdir. No component given by an import path is imported,
    so that nothing uses a device before the process has joined its cluster.
    """
    workdir = _parse(_select(arguments, r"--?workdir(=|$)"), None).workdir
    if not workdir:
        raise UserError("--workdir=DIR is missing: the folder to write to (see --help)")
    base = _base_config(_select(arguments, r"--?config(=|$)"), Path(workdir))
    _check_keys(arguments, base)
    line = _parse(arguments, base)
    line.config.lock()
    return line


def _base_config(arguments: list[str], workdir: Path) -> ConfigDict:
    if arguments:
        file = Path(arguments[-1].removeprefix("--config=").split(":")[0])
        if not file.is_file():
            there = ", ".join(sorted(p.stem for p in file.parent.glob("[!_]*.py"))) or "no config"
            raise UserError(f"--config={file}: no such file; in {file.parent} there is {there}")
        return _parse(arguments, None).config
    if not (workdir / CONFIG).exists():
        raise UserError(f"--config=FILE is missing, and {workdir} holds no run whose config could be used (see --help)")
    with flags_named():
        return stored_config(load_config(workdir))


def _select(arguments: list[str], pattern: str) -> list[str]:
    """Return the arguments that match, each with its value if that is a separate argument."""
    selected = []
    for i, argument in enumerate(arguments):
        if re.match(pattern, argument):
            selected += arguments[i : i + (1 if "=" in argument else 2)]
    return selected


def _check_keys(arguments: list[str], config: ConfigDict) -> None:
    known = list(flatten(config.to_dict()))
    for argument in arguments:
        match = re.match(r"--?(?:no)?config\.([^=]*)", argument)
        if match and match[1] in RENAMED:
            raise UserError(f"--config.{match[1]}: {with_flags(RENAMED[match[1]])}")
        if match and match[1] not in known:
            close = difflib.get_close_matches(match[1], known, n=1)
            hint = f"did you mean --config.{close[0]}?" if close else "--help lists them all"
            raise UserError(f"--config.{match[1]}: there is no such option; {hint}")


def _parse(arguments: list[str], config: ConfigDict | None) -> CommandLine:
    """Parse `arguments` once with absl, with separate flags; `config` takes the place of a `--config` file."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "Processes of the cluster.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Index of this process, from 0.", flag_values=values)
    flags.DEFINE_integer("profile", None, "Steps to trace.", lower_bound=1, flag_values=values)
    argv = ["train.py", *arguments]
    if config is None:
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    else:
        file_arguments = _select(arguments, r"--?config(=|$)")
        argv = [a for a in argv if a not in file_arguments]
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    try:
        left_over = values(argv)[1:]
        parsed = values["config"].value
        if parsed is not None:
            parsed.to_dict()  # an error in loading the file appears only when the value is used
    except flags.Error as error:
        raise UserError(f"{str(error).splitlines()[0]} (see --help)") from None
    except Exception as error:  # a config file is a program and may raise anything
        text = " ".join(str(error).split())
        raise UserError(f"the config cannot be used: {type(error).__name__}: {text}") from None
    if left_over:
        raise UserError(f"{' '.join(left_over)}: not understood; options start with -- (see --help)")
    cluster = (values.coordinator, values.num_processes, values.process_id)
    return CommandLine(parsed, values.workdir, *cluster, values.profile or 0)
