"""``storydalle COMMAND``: find the command, answer ``--help`` without heavy imports, report mistakes in one line."""

import ast
import importlib
import os
import shutil
import sys
import textwrap
import traceback
from functools import partial
from pathlib import Path
from types import ModuleType

import storydalle
from storydalle.commands.importing import quick_imports
from storydalle.commands.request import Sweep
from storydalle.files.paths import PathError, lend_home
from storydalle.files.registry import Registry
from storydalle.mistakes import Failure, UserError, nearest, told_of_disk

COMMANDS: Registry[object] = Registry(  # and the dataclass of each one's settings
    "a command",
    {
        "demo": "storydalle.commands.demo.DemoSettings",
        "generate": "storydalle.commands.generate.GenerateSettings",
        "train": "storydalle.training.train_settings.TrainSettings",
        "evaluate": "storydalle.evaluation.evaluation_settings.EvaluationSettings",
        "prepare": "storydalle.commands.prepare.PrepareSettings",
        "convert": "storydalle.released.conversion_settings.ConvertSettings",
        "report": "storydalle.commands.report.ReportSettings",
        "bench": "storydalle.commands.bench.BenchSettings",
    },
)
HELP_FLAGS = ("--help", "-h")
FAILED, MISTAKE, STOPPED = 1, 2, 130  # exit statuses


def main(arguments: list[str] | None = None) -> int:
    """Run one command. A user's mistake is one line on stderr and status 2; work that failed has status 1."""
    arguments = sys.argv[1:] if arguments is None else arguments
    # Torch's threads spin while they wait for each other; beside other busy processes a strip then takes 8x as long.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # Remarks of torch's C++ on its own workings, such as every process of a training makes; errors are still told.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        dispatch(arguments)
        sys.stdout.flush()
        return 0
    except (UserError, PathError, Failure) as ended:
        if os.environ.get("STORYDALLE_TRACEBACK") == "1":
            traceback.print_exc()
        print(f"storydalle: {ended}", file=sys.stderr)
        return FAILED if isinstance(ended, Failure) else MISTAKE
    except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return STOPPED
    except KeyboardInterrupt:
        print("storydalle: stopped", file=sys.stderr)
        return STOPPED
    except Exception as error:
        told = told_of_disk(error)
        if told is None:
            raise
        where = f" at {error.filename}" if isinstance(error, OSError) and error.filename else ""
        print(f"storydalle: {told}{where}: free some, or choose another folder", file=sys.stderr)
        return MISTAKE


def dispatch(arguments: list[str]) -> None:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if command in HELP_FLAGS:
        print(overview())
    elif command == "--version":
        print(f"storydalle {storydalle.__version__}")
    elif command in ("--shell-completion", "-sc"):
        from storydalle.commands import completion

        completion.run(rest, tuple(COMMANDS))
    elif command not in COMMANDS:
        raise UserError(f"no command {command!r}; {nearest(command, COMMANDS)}")
    elif any(flag in rest for flag in HELP_FLAGS):
        print(command_help(command))
    else:
        from storydalle.commands import application

        if lent := lend_home():
            print(f"note: this user has no home folder: files that libraries keep there go to {lent}", file=sys.stderr)
        application.run(
            command,
            lambda request: command_module(command).run(request),
            rest,
            lambda: COMMANDS.named(command),
            sweeps_of_trainings if command == "train" else None,
        )


def sweeps_of_trainings() -> Sweep:
    from storydalle.commands.members import TrainingSweeps

    return TrainingSweeps(partial(command_module, "train"), print_table)


def print_table(folder: Path) -> None:
    from storydalle.reporting import compared_runs

    compared_runs.print_table(folder)


def command_module(command: str) -> ModuleType:
    with quick_imports():
        return importlib.import_module(f"storydalle.commands.{command}")


def overview() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {command:<{width}}  {summary(command)}" for command in COMMANDS]
    return "\n".join(
        [
            "storydalle: given one source frame and a list of captions, draw the frames that continue the story",
            "",
            "usage: storydalle COMMAND [key=value ...]",
            "",
            *lines,
            "",
            "storydalle COMMAND --help         what a command reads and writes, with its settings",
            "storydalle COMMAND --cfg job      the values that the settings would have",
            "storydalle train -m key=1,2,3     one run for each value",
            'eval "$(storydalle --shell-completion install=bash)"   tab completion (also zsh, fish)',
        ]
    )


def docstring(command: str) -> str:
    """The docstring of a command's file, read without importing the file."""
    return ast.get_docstring(ast.parse(Path(__file__).with_name(f"{command}.py").read_text(encoding="utf-8"))) or ""


def summary(command: str) -> str:
    """The first line of a command's docstring, without its name."""
    return docstring(command).partition("\n")[0].partition(": ")[2].rstrip(".")


def command_help(command: str) -> str:
    """A command's docstring, its config file as it is, and the names in its config groups."""
    from storydalle.files.conf import conf_folder, config_names

    text = (conf_folder() / f"{command}.yaml").read_text(encoding="utf-8")
    settings = [line for line in text.partition("\n\n")[2].splitlines() if not line.startswith("hydra")]
    groups = [line.split()[-2].rstrip(":") for line in text.splitlines() if line.startswith("  - ") and ":" in line]
    lines = [docstring(command), "", "settings:", *(f"  {line}" for line in settings)]
    width = min(shutil.get_terminal_size().columns, 120)
    for group in groups:
        names = ", ".join(config_names(group))
        lines += textwrap.wrap(
            names, width, initial_indent=f"  {group}=NAME".ljust(20), subsequent_indent=" " * 20, break_on_hyphens=False
        )
    return "\n".join(lines).rstrip()
