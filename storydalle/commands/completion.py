"""Tab completion: commands and names of groups here, everything else by Hydra's own completion."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence

from storydalle.commands import application
from storydalle.files.conf import config_groups, config_names
from storydalle.mistakes import UserError


def run(arguments: list[str], commands: Sequence[str]) -> None:
    """Answer ``--shell-completion install=SHELL`` and ``query=SHELL``, which the shell asks with COMP_LINE set."""
    if not arguments:
        raise UserError("--shell-completion needs install=SHELL: bash, zsh or fish")
    line = os.environ.get("COMP_LINE", "")
    words = line.split()
    begun = "" if line.endswith(" ") or not words else words.pop()
    if arguments[0].startswith("query="):
        group, equals, _ = begun.partition("=")
        if len(words) < 2:
            print(" ".join(command for command in commands if command.startswith(begun)))
            return
        if equals and group in config_groups():
            names = (f"{group}={name}" for name in config_names(group))
            print(" ".join(name for name in names if name.startswith(begun)))
            return
        os.environ["COMP_LINE"] = line.replace(words[1], "", 1)
    command = words[1] if len(words) > 1 and words[1] in commands else commands[0]
    sys.argv[0] = "storydalle"  # The name that the shell function is bound to.
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer):
        application.run(command, lambda request: None, ["--shell-completion", *arguments])
    groups = config_groups()
    # Hydra ends a group that has folders in a slash, though its names are given after "=" like any other's.
    print(
        re.sub(r"(\S+)/(?=\s)", lambda found: f"{found[1]}=" if found[1] in groups else found[0], answer.getvalue()),
        end="",
    )
