"""Work that several runs have in common is done once: by the first that needs it, while the others wait.

It is a run as any other (see ``recipes``), in a process of its own. Its folder's lock says that somebody trains it, and
ends with the process: then another goes on, from the last checkpoint.
"""

import math
import os
from pathlib import Path

from storydalle.commands.application import Command, Request
from storydalle.commands.member_process import is_forked, status_apart
from storydalle.commands.members import killed_by, mark, trained
from storydalle.commands.recipes import SharedRun, shared_run
from storydalle.files import locks
from storydalle.mistakes import Failure, Taken, UserError
from storydalle.settings import filled
from storydalle.training.runs import State, memory, state_of
from storydalle.training.sweeps import last_error
from storydalle.training.train_settings import EXPERIMENT, PRETRAINED, Group, RunChoice


def shared_model(recipe: Group, by: Request, train: Command) -> Path:
    """The folder of the finished run that a recipe means, which is trained or waited for here.

    Raises Failure, with the reason, if its training failed.
    """
    shared = shared_run(recipe, by)
    make(shared, train, is_tried_again=filled(RunChoice, by.settings).retry or not by.is_member)
    return shared.folder


def make(shared: SharedRun, train: Command, is_tried_again: bool) -> None:
    """Train a run unless it is finished; where another command does it, wait."""
    folder = shared.folder
    while state_of(folder) is not State.FINISHED:
        if is_waited_for(folder):
            is_tried_again = False
        state = state_of(folder)
        if state is State.FAILED and not is_tried_again:
            raise Failure(f"what it is built on, {folder}, failed: {last_error(folder)}")
        if state is not State.FINISHED:
            print(f"{folder} is trained first, once for all runs that are built on it", flush=True)
            train_apart(shared.request, folder, train)
            is_tried_again = False


def is_waited_for(folder: Path) -> bool:
    """Wait until nobody trains a run, and tell of it; False if nobody did."""
    try:
        with locks.held(folder, "train", patience=locks.UNTOLD):
            return False
    except Taken:
        print(f"waiting for {folder}, which {locks.living_holder(folder) or 'another command'} trains", flush=True)
    with locks.held(folder, "train", patience=math.inf):
        return True


def train_apart(request: Request, folder: Path, train: Command) -> None:
    """Train in a process of its own, whose record says how it ended, also if it was killed."""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise UserError(
            f"{folder} is not trained yet, and cannot be among the processes of a launcher: train it first, "
            f"storydalle train {' '.join(request.overrides)}"
        )
    if not is_forked():
        trained(train, request)
        return
    status = status_apart(lambda: trained(train, request))
    if status:
        mark(request, killed_by(-status) if status < 0 else Failure(f"its process ended with status {status}"))


def shared_work(recipe: Group, by: Request) -> list[dict[str, str]]:
    """The work that a run shares by its recipe, with that on which it is built itself: what, hash, where."""
    shared = shared_run(recipe, by)
    own = {"what": PRETRAINED, EXPERIMENT: shared.request.choices[EXPERIMENT]}
    return [own | {"sha256": shared.sha256, "where": str(shared.folder)}, *memory(shared.folder).get("shared", [])]
