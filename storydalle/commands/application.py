"""Commands as Hydra applications: overrides, ``-m``, ``--cfg job`` and completion, with errors of one line.

Only this file uses Hydra and OmegaConf. Other files get plain Python from it: ``Request``, ``as_written``,
``instantiate`` and ``factory`` for a ``_target_``, and settings as YAML.
"""

import io
import json
import os
import re
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storydalle.commands import typed
from storydalle.commands.chosen_jobs import Chooser, OnlyShown, jobs_chosen, told_of_jobs
from storydalle.commands.launchers import check_launcher, no_launcher, workers_of
from storydalle.commands.request import Command, Jobs, Kind, Request, Sweep, Sweeps
from storydalle.files import dotted
from storydalle.files.conf import conf_folder, config_groups, config_names
from storydalle.files.json_values import as_object
from storydalle.files.text import parsed
from storydalle.mistakes import UserError, cause_of, nearest
from storydalle.settings import declared
from storydalle.stories.own_sizes import RESOLVERS, Counted, count

if TYPE_CHECKING:  # each is imported where it is used, since --help needs neither
    from omegaconf import DictConfig, ListConfig
else:
    DictConfig = ListConfig = object


EXTENSIBLE = ("train", "evaluate")  # Their configs take keys that are not there yet, as in +trainer.max_time=...


def run(
    command: str, task: Command, arguments: list[str], kind: Kind | None = None, sweeps: Sweeps | None = None
) -> None:
    """Run ``task`` as Hydra asks for it: once, once a job of a sweep, or not at all (``--cfg job``).

    ``kind`` returns the dataclass of the command's settings: ``--cfg job`` shows what it declares. ``sweeps`` makes
    what plans the jobs of ``-m`` and runs each; else they run as they are.
    """
    flags = check_flags(arguments)
    shown = kind() if kind is not None and flags.cfg == "job" and not flags.package else None
    if flags.cfg and flags.multirun:
        if flags.cfg != "job" or flags.package:
            raise UserError(f"--cfg {flags.cfg} shows one run: leave out -m, or use --cfg job alone")
        arguments = typed.without_flag(arguments, "--cfg", "-c")
    if added := [argument for argument in arguments if argument.startswith("+") and command not in EXTENSIBLE]:
        raise UserError(f"{command} has no setting {added[0]!r} to add; see storydalle {command} --help")
    arguments = typed.as_typed(arguments, reading)
    import hydra

    failures: list[Exception] = []
    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises what goes wrong instead of printing and exiting.
    sys.argv = [sys.argv[0], *arguments]
    with errors_of_one_line(command, arguments):
        sweep = sweeps() if sweeps is not None and flags.multirun and not flags.cfg else None
        with (
            printed_as(None if flags.multirun else shown),
            composed_once(flags, arguments),
            jobs_chosen(jobs_as_asked(flags, shown, sweep), sweep, sweepers),
        ):
            perform = task_of_job(task, sweep, failures)
            hydra.main(version_base="1.3", config_path=str(conf_folder()), config_name=command)(perform)()
        if sweep is not None:
            sweep.end()
        if failures:
            raise failures[0]


def task_of_job(task: Command, sweep: Sweep | None, failures: list[Exception]) -> Callable[[DictConfig], None]:
    """The function that Hydra calls for each job, with its config; an error of a single one goes into ``failures``."""

    def perform(config: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig
        from hydra.types import RunMode

        register_resolvers()  # A sweep's jobs may run in processes of their own.
        own = HydraConfig.get()
        is_of_sweep = own.mode is RunMode.MULTIRUN
        try:
            request = requested(config, own)
            if is_of_sweep and sweep is not None:
                sweep.run(task, request._replace(is_member=True), workers_of(own.launcher))
            else:
                task(request)
        except Exception as error:
            if is_of_sweep:
                raise
            failures.append(error)  # Hydra would print a line of its own before it raises.

    return perform


def requested(config: DictConfig, runtime: Any) -> Request:
    """The request of a job, from its config and Hydra's own."""
    settings = plain(config)
    typed.check_texts(settings)
    choices = {str(group): str(name) for group, name in runtime.runtime.choices.items() if name is not None}
    return Request(settings, tuple(runtime.overrides.task), choices)


def jobs_as_asked(flags: Namespace, kind: type | None, sweep: Sweep | None) -> Chooser | None:
    """Return a function that shows the jobs of a sweep or chooses among them; None if all run."""

    def show(sweeper: Any, jobs: Jobs) -> list[list[str]]:
        tree = plain(config_of_job(sweeper, jobs[0])[0], is_resolved=flags.resolve)
        print(to_yaml(tree if kind is None else declared(kind, tree)), end="")
        print(*(f"# {line}" for line in told_of_jobs(jobs, tree)), sep="\n")
        raise OnlyShown

    def plan(sweeper: Any, jobs: Jobs) -> list[list[str]]:
        assert sweep is not None
        check_launcher(sweeper.config.hydra.launcher._target_)
        return sweep.plan(jobs, [requested(*config_of_job(sweeper, job)) for job in jobs])

    return show if flags.cfg else plan if sweep is not None else None


def sweepers() -> Any:
    """The class of Hydra's own sweepers; looking for plugins defines it anew, so that comes first."""
    from hydra.core.plugins import Plugins

    Plugins.instance()
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    return BasicSweeper


def config_of_job(sweeper: Any, overrides: Sequence[str]) -> tuple[DictConfig, Any]:
    """The config that a job of a sweep will have, and Hydra's own beside it."""
    from hydra.core.hydra_config import HydraConfig

    config = sweeper.hydra_context.config_loader.load_sweep_config(sweeper.config, list(overrides))
    HydraConfig.instance().set_config(config)
    return taken_apart(config)


def taken_apart(config: DictConfig) -> tuple[DictConfig, Any]:
    from omegaconf import open_dict

    own = config.copy()
    with open_dict(own):
        del own["hydra"]
    return own, config.hydra


@contextmanager
def errors_of_one_line(command: str, arguments: list[str]) -> Iterator[None]:
    """Raise an error of Hydra or OmegaConf as the user's mistake that it is."""
    from hydra.errors import HydraException, InstantiationException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except InstantiationException as error:
        raise cause_of(error) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(error, command, arguments) from error


@contextmanager
def composed_once(flags: Namespace, arguments: list[str]) -> Iterator[None]:
    """Keep Hydra from composing the config twice: the first time it only looks for ``hydra.mode``.

    The configs of this project leave that to ``-m``; configs of the user's own, and arguments, may set it.
    """
    from hydra._internal.hydra import Hydra

    has_own_configs = flags.config_dir or flags.config_path or flags.config_name
    if has_own_configs or any("hydra.mode" in argument for argument in arguments):
        yield
        return
    get_mode = Hydra.get_mode
    Hydra.get_mode = lambda *_, **__: None  # type: ignore[method-assign]  # None: as the flags say
    try:
        yield
    finally:
        Hydra.get_mode = get_mode  # type: ignore[method-assign]


@contextmanager
def printed_as(kind: type | None) -> Iterator[None]:
    """Catch the config that Hydra prints inside, and print the part that the dataclass ``kind`` declares; None: all."""
    from omegaconf import OmegaConf

    if kind is None:
        yield
        return
    with redirect_stdout(io.StringIO()) as printed:
        yield
    print(to_yaml(declared(kind, plain(OmegaConf.create(printed.getvalue()), is_resolved=False))), end="")


def check_flags(arguments: list[str]) -> Namespace:
    """Read the flags; an unknown one is a mistake told in one line, where Hydra would print its usage."""
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> None:
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        flags = [flag for action in parser._actions for flag in action.option_strings]
        raise UserError(f"no flag {unknown[1]}; {nearest(unknown[1], flags)}" if unknown else message)

    vars(parser)["error"] = refuse
    return parser.parse_args(arguments)


def config_flags() -> list[str]:
    """The flags of this command line that say where configs are; a process that is started needs them too."""
    from hydra._internal.utils import get_args_parser

    found, _ = get_args_parser().parse_known_args(sys.argv[1:])
    named = {"--config-dir": found.config_dir, "--config-name": found.config_name, "--config-path": found.config_path}
    return [word for flag, value in named.items() if value is not None for word in (flag, value)]


def explained(error: Exception, command: str, arguments: list[str]) -> UserError:
    """An error of Hydra or OmegaConf as one line, with the nearest names that exist."""
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import MissingMandatoryValue

    message = str(error)
    if isinstance(error, OverrideParseException):
        form = "write key=value" if "=" not in error.override else "put quotes around the value, for shell and Hydra"
        return UserError(f"cannot read {error.override!r}: {form}; see storydalle {command} --help")
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        group, _, name = str(error.missing_cfg_file).removeprefix("hydra/").partition("/")
        if group == "launcher":
            return UserError(f"no launcher {name!r}; {no_launcher(name)}")
        return UserError(f"no {group} {name!r}; {nearest(name, config_names(group))}")
    if unchosen := re.search(r"You must specify '([^',]+)'", message):
        group = unchosen[1]
        return UserError(f"no {group} is chosen: give {group}=NAME, {nearest('', config_names(group))}")
    if isinstance(error, MissingMandatoryValue) and (missing := re.search(r"value: (\S+)", message)):
        return UserError(f"{missing[1]} is not set: give {missing[1]}=VALUE; see storydalle {command} --help")
    if unknown := re.search(r"Could not override '([^']+)'", message):
        key = unknown[1].partition("@")[0]
        choices = known_keys(command, arguments) + (config_groups() if command in EXTENSIBLE else [])
        return UserError(f"{command} has no setting {key!r}; {nearest(key, choices)}")
    if missing := re.search(r"Interpolation key 'data\.(\w+)' not found", message):
        return UserError(
            f"the chosen data has no {missing[1]}, which {command} needs: a data set without pictures can only be "
            "prepared, and drawn with generate; choose another data=NAME"
        )
    return UserError(next(iter(message.splitlines()), type(error).__name__))


def known_keys(command: str, arguments: list[str]) -> list[str]:
    """The dotted keys of a command's config, composed with the groups that the arguments choose."""
    from hydra.errors import HydraException

    groups = set(config_groups())
    chosen = [argument for argument in arguments if argument.partition("=")[0].lstrip("+") in groups]
    for overrides in (chosen, []):
        try:
            return list(dotted.all_keys(as_written(command, overrides)))
        except HydraException:
            continue
    return []


def reading(value: str) -> typed.Reading:
    """How Hydra's grammar understands a value: as text, a list, a sweep and so on."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ChoiceSweep, QuotedString, Sweep
    from hydra.errors import HydraException

    try:
        read = OverridesParser.create().parse_override(f"key={value}")._value
    except HydraException:
        return typed.Reading.NOTHING
    if isinstance(read, ChoiceSweep):
        return typed.Reading.CHOICES if read.simple_form else typed.Reading.SWEEP
    if isinstance(read, Sweep):
        return typed.Reading.SWEEP
    kinds = {str: "TEXT", QuotedString: "TEXT", type(None): "NULL", list: "LIST", dict: "GROUP"}
    return typed.Reading[kinds.get(type(read), "OTHER")]


# ------------------------------------------------------------------------------------------------ plain Python


def compose(command: str, overrides: Sequence[str], with_hydra: bool = False) -> DictConfig:
    """Compose the config of a command without running it."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra

    register_resolvers()
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(conf_folder()), version_base="1.3"):
        return hydra.compose(command, [*overrides, *own_folders()], return_hydra_config=with_hydra)


def own_folders() -> list[str]:
    """``--config-dir`` of this command, as an override."""
    from hydra.core.hydra_config import HydraConfig

    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else []
    own = [each.path for each in sources if each.provider == "command-line"]
    return [f"hydra.searchpath=[{','.join(typed.quoted(f'file://{path}') for path in own)}]"] if own else []


def composed(command: str, overrides: Sequence[str]) -> Request:
    """The request that a command line with these overrides would be."""
    with errors_of_one_line(command, list(overrides)):
        return requested(*taken_apart(compose(command, overrides, with_hydra=True)))


def as_written(command: str, overrides: Sequence[str]) -> dict[str, object]:
    """The settings of a command before they are resolved: ``${max_steps}``, and ``???`` where a value is missing."""
    return plain(compose(command, overrides), is_resolved=False)


def plain(config: DictConfig | ListConfig, is_resolved: bool = True) -> dict[str, object]:
    """A config as plain dictionaries and lists."""
    from omegaconf import OmegaConf

    tree = OmegaConf.to_container(config, resolve=is_resolved, throw_on_missing=is_resolved)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


def instantiate(settings: Mapping[str, object]) -> Any:
    """Build the object that settings with a ``_target_`` describe, and the objects inside them."""
    from hydra.utils import instantiate

    return instantiate(settings)


def factory(settings: Mapping[str, object]) -> Callable[..., Any]:
    """The function of a ``_target_`` with these settings filled in; call it with the arguments that are left."""
    from hydra.utils import instantiate

    return instantiate(settings, _partial_=True)


def to_yaml(settings: Mapping[str, object]) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(dict(settings)))


def read_yaml(path: Path) -> dict[str, object]:
    """The settings of a YAML file, unresolved. Raises ValueError if it holds anything else."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        settings = OmegaConf.to_container(OmegaConf.load(path))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise ValueError(" ".join(str(error).split())) from error
    if not isinstance(settings, dict):
        raise ValueError("it holds no settings")
    return {str(key): value for key, value in settings.items()}


# ------------------------------------------------------------------------------------------------ inside configs


def register_resolvers() -> None:
    """Register the resolvers by which a config asks for sizes of its own stories, ``data.train``; see ``own_sizes``."""
    from omegaconf import OmegaConf

    def answering(resolver: Callable[..., object]) -> Callable[..., object]:
        return lambda *asked, _root_: resolver(counted(_root_), *asked)

    for name, resolver in RESOLVERS.items():
        OmegaConf.register_new_resolver(name, answering(resolver), replace=True)


def counted(config: DictConfig) -> Counted:
    """Counts of the training stories; the smallest possible ones without ``data.root``, or if they cannot be opened."""
    from hydra.errors import InstantiationException
    from omegaconf import OmegaConf

    if OmegaConf.select(config, "data.root") is None:
        return Counted()
    try:
        return _counted(json.dumps(plain(config.data.train), sort_keys=True))
    except InstantiationException:
        return Counted()


@lru_cache(maxsize=1)  # a config asks for several sizes
def _counted(data: str) -> Counted:
    return count(instantiate(as_object(parsed(data))))
