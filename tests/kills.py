"""Commands killed a hundred times, at random moments and inside writes, then repeated to the end: ``make kills``.

A command runs in a process that is forked from this one, which has imported everything, so a kill and its repetition
take a second or two. After every kill each file that has its final name must be whole; the end must be what one
uninterrupted run leaves, file by file, and nothing beside it. ``python -m tests.kills train`` takes the jobs whose name
contains a word, ``--kills 10 --seed 3`` other numbers.
"""

import argparse
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch
from PIL import Image
from safetensors import safe_open

from storydalle.commands import convert, evaluate, main, prepare, train  # noqa: F401  (imported once, for all)
from storydalle.training import state as training_state
from tests.killing import LOG, Writes, ended, kill, kill_group, start
from tests.test_conversion import HEADS, write_min_dalle
from tests.test_folder import story
from tests.tiny import tiny_story_dalle

KILLS_A_ROUND = 3  # of one folder, before the command may end
OF_ONE_RUN = ("wall_seconds", "peak_memory_megabytes", "cost", "wandb", "start")  # in records
MOST_FAULTS = 20  # then a command is given up


class Job(NamedTuple):
    """A command, and what it finds in its folder."""

    name: str
    arguments: tuple[str, ...]
    make: Callable[[Path], None]
    is_compared: Callable[[str], bool] = lambda name: True  # a file, by its name


@dataclass
class Count:
    kills: int = 0
    inside: int = 0
    rounds: int = 0
    faults: list[str] = field(default_factory=list)


# ------------------------------------------------------------------------------------------------ the jobs


def pictures(folder: Path) -> None:
    """Four stories of one's own and a text-to-image model for them."""
    for name, num_frames in (("a", 3), ("b", 5), ("c", 3), ("d", 4)):
        story(folder / "mine" / name, num_frames, [f"line {k}" for k in range(num_frames)])
    tiny_story_dalle(source_blocks="none", story_depth=0).save_pretrained(folder / "base")


def released(folder: Path) -> None:
    write_min_dalle(folder / "released")


def nothing(folder: Path) -> None:
    pass


MINE = ("data=folder", "data.root=mine", "data.val.split=train", "data.resolution=12")
TINY = ("pretrained=base", "data_module.batch_size=1", "system.story_warmup_steps=1", "ema_decay=0.9", "save_every=2")
RUN = ("name=first", "resume=true", "trainer=smoke", "trainer.max_steps=6", "trainer.val_check_interval=3")
SMALL = (
    *("data.resolution=64", "data.train.num_stories=6", "data.val.num_stories=2", "data_module.batch_size=2"),
    *("tokenizer=tiny", "save_every=1"),
)
GAN = (
    *("network.story_encoder.sentence_dim=8", "network.story_encoder.content_dim=8", "network.generator.dim=32"),
    *("network.image_discriminator.dim=8", "network.story_discriminator.dim=8"),
)
STORY_DALLE = ("experiment=toon/story_dalle", *MINE, *TINY, *RUN[2:])
JOBS = (
    Job("train story_dalle", ("train", *STORY_DALLE, *RUN[:2]), pictures),
    Job("train storyganc", ("train", "experiment=toon/storyganc", *SMALL, *GAN, *RUN), nothing),
    Job("train image_tokenizer", ("train", "experiment=toon/image_tokenizer", *SMALL, *RUN), nothing),
    Job("prepare", ("prepare", *MINE, "pretrained=base", "workers=1", "num_stories=2", "out=out"), pictures),
    Job(
        "evaluate",
        ("evaluate", *MINE, "model=base", "splits=[train]", "num_stories=2", "save=drawn", "out=out"),
        pictures,
    ),
    Job(
        "convert", ("convert", "format=mindalle", "source=released/1.3B", "target=out", f"num_heads={HEADS}"), released
    ),
    Job(
        "a sweep",
        ("train", "-m", *STORY_DALLE, "sweep=ablation", "retrofit=full,no_story"),
        pictures,
        lambda name: "/model/" in name or "/checkpoints/" in name or name.endswith("/metrics.json"),
    ),
)


# ------------------------------------------------------------------------------------------------ a process


def start_job(job: Job, folder: Path, chosen: int | None, dies_at_once: bool) -> tuple[int, int]:
    """A process that runs a command in a folder: its id, and where it tells of the chosen write.

    At the end it tells how many writes there were.
    """
    hears, told = os.pipe()

    def work() -> int:
        writes = Writes(folder, chosen, kill_group if dies_at_once else lambda: os.write(told, b"x"), kill_group)
        status = main.main(list(job.arguments))
        os.write(told, f"{writes.number}\n".encode())
        return status

    pid = start(work, folder)
    os.close(told)
    return pid, hears


def is_done(status: int, folder: Path) -> bool:
    """It ended well, or found that a run killed after its last write had left nothing to do."""
    last = (folder / LOG).read_text(errors="replace").strip().rpartition("\n")[2]
    return status == 0 or (status == 2 and ("is finished" in last or "exists already" in last))


def run_to_the_end(job: Job, folder: Path) -> tuple[float, int]:
    """Seconds and writes of a run that nobody kills."""
    begin = time.monotonic()
    pid, hears = start_job(job, folder, None, False)
    status = ended(pid, 300)
    text = os.read(hears, 100).decode()
    os.close(hears)
    if status is None or not is_done(status, folder):
        log = (folder / LOG).read_text(errors="replace")
        raise RuntimeError(f"{job.name} ended with {status}:\n{log[-3000:]}")
    return time.monotonic() - begin, int(text)


def run_and_kill(job: Job, folder: Path, random: Random, seconds: float, writes: int) -> tuple[int, bool]:
    """The exit status of a run that is killed, if it has not ended before; and whether the kill was inside a write."""
    if random.random() < 0.3:
        pid, hears = start_job(job, folder, None, False)
        status = ended(pid, random.uniform(0.1, 1.0) * seconds)
        os.close(hears)
        return (kill(pid) if status is None else status), False
    pid, hears = start_job(job, folder, random.randint(1, writes), random.random() < 0.5)
    ready, _, _ = select.select([hears], [], [], 300)
    is_told = bool(ready) and os.read(hears, 1) == b"x"  # what is read as the pipe closes is nothing
    if is_told:
        time.sleep(random.choice([0, 0.0003, 0.002]))
    os.close(hears)
    status = ended(pid, 0.0 if is_told else 300)
    status = kill(pid) if status is None else status
    return status, status == -signal.SIGKILL


# ------------------------------------------------------------------------------------------------ what is there


def files(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != LOG and "wandb" not in path.parts:
            yield path.relative_to(folder).as_posix(), path


def is_unfinished(name: str) -> bool:
    """Names that no reader takes for something whole."""
    return any(part.endswith((".partial", ".lock")) or part.startswith(".") for part in Path(name).parts)


def content(path: Path) -> Any:
    """The content of a file on which two runs must agree; raises if the file is not whole."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = dict(file.metadata() or {})
        if training_state.TREE in metadata:
            state = training_state.load_state(path)
            metadata, tensors = {}, {"/": torch.tensor(state["global_step"]), **state["state_dict"]}
            tensors |= dict(leaves(state["optimizer_states"], "optimizer"))
        return metadata, {name: (value.dtype, value.flatten().tolist()) for name, value in sorted(tensors.items())}
    if path.suffix == ".json":
        return comparable(json.loads(path.read_text()))
    if path.suffix == ".png":
        with Image.open(path) as picture:
            picture.load()
            return picture.size, picture.tobytes()
    return path.read_bytes()


def leaves(tree: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(tree, torch.Tensor):
        yield name, tree
    elif isinstance(tree, dict | list | tuple):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(value, f"{name}/{key}")


def comparable(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: comparable(value) for key, value in tree.items() if key not in OF_ONE_RUN}
    return [comparable(value) for value in tree] if isinstance(tree, list) else tree


def broken(folder: Path) -> list[str]:
    """Files with their final names that are not whole."""
    found = []
    for name, path in files(folder):
        if not is_unfinished(name):
            try:
                content(path)
            except Exception as error:
                found.append(f"{name} is not whole: {' '.join(str(error).split())[:200]}")
    return found


def steps(folder: Path) -> int:
    """Those of the last checkpoint; none where there is no training."""
    return max((training_state.load_state(path)["global_step"] for path in folder.rglob("last.safetensors")), default=0)


def differences(whole: Path, cut: Path) -> list[str]:
    first, second = (dict(files(folder)) for folder in (whole, cut))
    both = sorted(first.keys() & second.keys())
    return [
        *(f"{name} is missing" for name in sorted(first.keys() - second.keys())),
        *(f"{name} is left over" for name in sorted(second.keys() - first.keys())),
        *(f"{name} differs" for name in both if content(first[name]) != content(second[name])),
    ]


# ------------------------------------------------------------------------------------------------ many kills


def killed(job: Job, folder: Path, kills: int, random: Random) -> Count:
    """Rounds of some kills, each in a folder of its own that is then compared with one of no kill."""
    (made := folder / "made").mkdir(parents=True)
    job.make(made)
    shutil.copytree(made, whole := folder / "whole")
    measured, count = run_to_the_end(job, whole), Count()
    while count.kills < kills and len(count.faults) < MOST_FAULTS:
        shutil.copytree(made, cut := folder / f"cut-{count.rounds}")
        most = min(KILLS_A_ROUND, kills - count.kills)
        faults = kill_some(job, cut, most, random, measured, count)
        try:
            run_to_the_end(job, cut)
            faults += [told for told in differences(whole, cut) if job.is_compared(told.split()[0])]
        except RuntimeError as error:
            faults.append(str(error))
        count.rounds += 1
        count.faults += [f"{cut.name}: {fault}" for fault in faults]
        if not faults:
            shutil.rmtree(cut)
    return count


def kill_some(job: Job, cut: Path, most: int, random: Random, measured: tuple[float, int], count: Count) -> list[str]:
    """Start and kill until one run ends before its kill; after each, files must be whole and checkpoints no older."""
    faults: list[str] = []
    done = 0
    for _ in range(most):
        status, is_inside = run_and_kill(job, cut, random, *measured)
        if status >= 0:
            break
        count.kills, count.inside = count.kills + 1, count.inside + is_inside
        faults += broken(cut)
        if (reached := steps(cut)) < done:
            faults.append(f"the checkpoint of step {done} was lost, and {reached} is there")
        done = reached
    return faults


def table(counts: dict[str, Count]) -> str:
    rows = [("command", "kills", "inside a write", "rounds", "faults")]
    rows += [(name, *map(str, (c.kills, c.inside, c.rounds, len(c.faults)))) for name, c in counts.items()]
    rows.append(("all", *(str(sum(map(int, column))) for column in list(zip(*rows[1:], strict=True))[1:])))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def kill_all(words: Sequence[str], kills: int, seed: int, folder: Path) -> int:
    jobs = [job for job in JOBS if not words or any(word in job.name for word in words)]
    counts: dict[str, Count] = {}
    for number, job in enumerate(jobs):
        share = kills // len(jobs) + (number < kills % len(jobs))
        begin = time.monotonic()
        counts[job.name] = killed(job, folder / job.name.replace(" ", "-"), share, Random(f"{seed} {job.name}"))
        print(f"{job.name}: {counts[job.name].kills} kills in {time.monotonic() - begin:.0f} s", flush=True)
        for fault in counts[job.name].faults:
            print(f"  {fault}")
    print(f"\n{table(counts)}")
    return int(any(count.faults for count in counts.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*")
    parser.add_argument("--kills", type=int, default=102)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for what is written, kept where something went wrong")
    given = parser.parse_args()
    os.environ |= {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(kill_all(given.words, given.kills, given.seed, given.keep or Path(temporary)))
