"""The command line of `train.py`: an ml_collections config with overrides; one-line errors."""

import dataclasses
import difflib
import itertools
import re
import traceback
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

import hvq_jax
from hvq_jax.errors import UserError
from hvq_jax.files import full_path
from hvq_jax.layout import CONFIG
from hvq_jax.options import is_optional, type_in_words
from hvq_jax.runs.open import with_flags
from hvq_jax.runs.options import KEYS, RENAMED, stored_config
from hvq_jax.runs.workdir import flatten, load_config


@dataclasses.dataclass(frozen=True)
class CommandLine:
    """A parsed command line."""

    config: ConfigDict  # with its overrides, locked
    workdir: str
    coordinator: str | None = None  # HOST:PORT of process 0; this and the next two only if flags describe a cluster
    num_processes: int | None = None
    process_id: int | None = None
    profile: int = 0  # training steps of each stage to trace; 0: none
    plan: bool = False  # say what would be trained, and train nothing
    quiet: bool = False  # print warnings only

    def __post_init__(self) -> None:
        """Raise UserError for flags that contradict each other."""
        if self.plan and self.profile:
            raise UserError("--plan trains nothing that --profile could trace: omit one of them")
        if self.plan and self.quiet:
            raise UserError("--plan only prints, and --quiet prints nothing: omit one of them")

    @property
    def of_training(self) -> list[str]:
        """The flags that are set among those that say how to train, rather than what and where."""
        fields = [field for field in dataclasses.fields(self) if field.name not in ("config", "workdir")]
        return [field.name for field in fields if getattr(self, field.name) != field.default]


FLAGS = ("workdir", "config", "coordinator", "num_processes", "process_id", "profile", "plan", "quiet", "help")


def parse_command_line(arguments: list[str]) -> CommandLine:
    """Parse `arguments`, the command line without the program's name; raise UserError for any mistake.

    Without `--config` the config is that of the run in the workdir. No component given by an import path is imported,
    so that nothing uses a device before the process has joined its cluster.
    """
    arguments = _find_configs([_in_full(_expand_home(argument)) for argument in arguments])
    _check_names(arguments)
    workdir = _parse(_select(arguments, r"--?workdir(=|$)"), None).workdir
    if not workdir:
        raise UserError("--workdir=DIR is missing: the folder to write to (see --help)")
    arguments, unset = _split_none(arguments)
    base = _base_config(_select(arguments, r"--?config(=|$)"), Path(workdir))
    line = _parse(arguments, base)
    line.config.update_from_flattened_dict(dict.fromkeys(unset))
    line.config.lock()
    return line


def _expand_home(argument: str) -> str:
    flag, equals, path = argument.partition("=~")
    return f"{flag}={full_path('~' + path)}" if equals and re.fullmatch("--?(workdir|config)", flag) else argument


def _in_full(argument: str) -> str:
    """Return `argument` with the option in place of the section that is short for it."""
    return re.sub(r"^(--?config\.init_from)(?==|$)", r"\1.run", argument)


def _find_configs(arguments: list[str]) -> list[str]:
    """Return the arguments with each `--config=NAME` that is no file replaced by the packaged config of that name.

    NAME may have the form `quickstart`, `quickstart.py` or `configs/quickstart.py`, and `:LATENT` behind it.
    """
    found = list(arguments)
    for i, argument in enumerate(arguments):
        flag, equals, given = argument.partition("=")
        if not re.fullmatch("--?config", flag) or not (equals or arguments[i + 1 :]):
            continue
        given = given if equals else arguments[i + 1]
        name, colon, mode = given.partition(":")
        packaged = _configs() / f"{Path(name).stem}.py"
        short = name in (packaged.stem, packaged.name, f"configs/{packaged.name}")
        if short and not Path(name).is_file() and packaged.is_file():
            found[i + (not equals)] = f"{flag}=" * bool(equals) + f"{packaged}{colon}{mode}"
    return found


def _configs() -> Path:
    """Return the folder of the packaged configs: in the package where it is installed, and beside it in a checkout."""
    package = Path(hvq_jax.__file__).parent
    installed = package / "configs"
    return installed if installed.is_dir() else package.parent / "configs"


def _split_none(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without `--config.KEY=None` of options that may be None, and the options left at None.

    The parsers of ml_collections know no None: numbers refuse it, and a path would be a folder of that name.
    """
    optional = "|".join(re.escape(key) for key, field in KEYS.items() if is_optional(field.type))
    rest: list[str] = []
    unset: dict[str, None] = {}
    remaining = iter(arguments)
    for argument in remaining:
        given = [argument]
        if match := re.fullmatch(rf"--?config\.({optional})(=.*)?", argument, re.DOTALL):
            given += [] if match[2] else itertools.islice(remaining, 1)  # its value is a separate argument
            unset.pop(match[1], None)
            if "=".join(given).endswith("=None"):
                unset[match[1]] = None
                continue
        rest += given
    return rest, list(unset)


def _check_names(arguments: list[str]) -> None:
    """Raise UserError, with suggestions, for a flag that does not exist."""
    for argument in arguments:
        match = re.match(r"--?(?=[^-\d])([^=]*)", argument)
        if not match or match[1] in FLAGS:
            continue
        name = match[1].removeprefix("no") if match[1].startswith("noconfig.") else match[1]
        key = name.removeprefix("config.")
        if key in RENAMED:
            raise UserError(f"--config.{key}: {with_flags(RENAMED[key])}")
        if name == key or key not in KEYS:
            raise UserError(f"--{name}: there is no such option; {_suggestions(key, flags=name == key)}")


def _suggestions(key: str, *, flags: bool = False) -> str:
    """Return the options that `key` may stand for, in words: those of its last part, or else those like it."""
    short: dict[str, list[str]] = {}
    for known in KEYS:
        short.setdefault(known.rpartition(".")[2], []).append(f"--config.{known}")
    names = {**{known: [f"--config.{known}"] for known in KEYS}, **short}
    if flags:
        names |= {flag: [f"--{flag}"] for flag in FLAGS}
    close = names.get(key) or names.get(key.rpartition(".")[2])
    if not close:
        found = difflib.get_close_matches(key, names, n=1) or difflib.get_close_matches(
            key.rpartition(".")[2], names, n=1
        )
        close = names[found[0]] if found else []
    return f"did you mean {' or '.join(close)}?" if close else "--help lists them all"


def _base_config(arguments: list[str], workdir: Path) -> ConfigDict:
    if not arguments:
        if not (workdir / CONFIG).exists():
            raise UserError(
                f"--config=FILE is missing, and {workdir} holds no run whose config could be used (see --help)"
            )
        return stored_config(load_config(workdir))
    name = arguments[-1].removeprefix("--config=").removeprefix("-config=").split(":")[0]
    if not Path(name).is_file():
        raise UserError(f"--config={name}: no such file; {_other_configs(Path(name))}")
    config = _parse(arguments, None).config
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={name}: get_config must return a ConfigDict, not {type(config).__name__}")
    given = set(flatten(config.to_dict()))
    for key in sorted(given - set(KEYS)):
        if key in RENAMED:
            raise UserError(f"--config={name} sets {key}: {with_flags(RENAMED[key])}")
        raise UserError(f"--config={name} sets {key}: there is no such option; {_suggestions(key)}")
    if missing := sorted(set(KEYS) - given):
        raise UserError(
            f"--config={name}: {', '.join(missing)} is missing; start from hvq_jax.runs.options.default_config"
        )
    return config


def _other_configs(file: Path) -> str:
    if (_configs() / f"{file.stem}.py").is_file():
        return f"did you mean --config={file.stem}?"
    there = ", ".join(sorted(path.stem for path in _configs().glob("[!_]*.py")))
    return f"the packaged configs are {there}"


def _select(arguments: list[str], pattern: str) -> list[str]:
    """Return the arguments that match, each with its value if that is a separate argument."""
    selected = []
    for i, argument in enumerate(arguments):
        if re.match(pattern, argument):
            selected += arguments[i : i + (1 if "=" in argument else 2)]
    return selected


def _parse(arguments: list[str], config: ConfigDict | None) -> CommandLine:
    """Parse `arguments` once with absl, with separate flags; `config` takes the place of a `--config` file."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0.", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "Processes of the cluster.", flag_values=values)
    flags.DEFINE_integer("process_id", None, "Index of this process, from 0.", flag_values=values)
    flags.DEFINE_integer("profile", None, "Steps to trace.", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("plan", False, "Train nothing.", flag_values=values)
    flags.DEFINE_bool("quiet", False, "Print warnings only.", flag_values=values)
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
        if isinstance(parsed, ConfigDict):
            parsed.to_dict()  # an error in loading the file appears only when the value is used
    except (Exception, SystemExit) as error:  # a config file is a program and may raise anything
        raise UserError(_reason(error)) from None
    if left_over:
        raise UserError(f"{' '.join(left_over)}: not understood; options start with -- (see --help)")
    cluster = (values.coordinator, values.num_processes, values.process_id)
    return CommandLine(parsed, values.workdir, *cluster, values.profile or 0, values.plan, values.quiet)


def _reason(error: BaseException) -> str:
    """Say what is wrong with a flag, or in a config file, whose own errors absl and ml_collections wrap in others."""
    flag = re.match(r"flag --config\.(?P<key>[\w.]+)=(?P<value>.*?): ", str(error), re.DOTALL)
    if isinstance(error, flags.Error) and flag and flag["key"] in KEYS:
        return f"--config.{flag['key']}={flag['value']}: must be {type_in_words(KEYS[flag['key']].type)}"
    if isinstance(error, flags.Error) and not str(error).startswith("flag --config="):
        return f"{str(error).splitlines()[0]} (see --help)"
    own: BaseException = error
    while own.__context__ is not None and not own.__suppress_context__:
        own = own.__context__
    text = " ".join(str(own).split())
    if isinstance(own, UserError):
        return text
    frames = traceback.extract_tb(own.__traceback__)
    where = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"the config cannot be used: {type(own).__name__}: {text}{where}"
