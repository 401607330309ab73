"""A sweep's own time, and what a second core brings: members of one thread, by real commands.

``python -m tests.sweep_speed`` trains a member alone, two in one process after the other, and four by joblib, two at a
time. It prints elapsed times, so nothing else may run. ``--steps 85`` is the length of a member.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

SMALL = (
    *("experiment=toon/image_tokenizer", "trainer=smoke", "tokenizer=tiny", "logger=none", "trainer.accelerator=cpu"),
    *("data.resolution=64", "data.train.num_stories=64", "data.val.num_stories=2", "data_module.batch_size=8"),
    "save_every=100000",
)
JOBS = 2


class Took(NamedTuple):
    """Seconds of a command and of the trainings in it, which leave out the start of their process."""

    command: float
    trainings: list[float]

    def own(self, jobs: int) -> float:
        """What the command took beyond its trainings, of which so many were at a time."""
        return self.command - sum(self.trainings) / jobs

    def told(self, jobs: int, start: float) -> str:
        """Its own time over that of its trainings, in all and beyond the start that a single command has."""
        share = sum(self.trainings) / jobs
        return f"{self.own(jobs):.1f} s, {self.own(jobs) / share:.1%}; {(self.own(jobs) - start) / share:.1%}"


def took(folder: Path, name: str, *command: str) -> Took:
    begin = time.monotonic()
    words = [sys.executable, "-m", "storydalle", "train", *command, f"name={name}"]
    subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.monotonic() - begin
    records = (folder / "runs/toon/image_tokenizer" / name).rglob("metrics.json")
    return Took(seconds, [json.loads(path.read_text())["wall_seconds"] for path in records])


def main(steps: int) -> None:
    settings = (*SMALL, f"trainer.max_steps={steps}", f"trainer.val_check_interval={steps}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        alone = took(folder, "alone", *settings)
        in_turn = took(folder, "in-turn", "-m", *settings, "seeds=2")
        by_joblib = took(folder, "by-joblib", "-m", *settings, "seeds=4", "hydra/launcher=two_jobs")
    start, mean = alone.own(1), sum(by_joblib.trainings) / len(by_joblib.trainings)
    print(f"a training of {steps} steps with one thread: {alone.trainings[0]:.1f} s, after a start of {start:.1f} s")
    print("a sweep's own time: in all, over its trainings; and beyond one such start")
    print(f"  2 in turn:        {in_turn.told(1, start)}")
    print(f"  4 by joblib of 2: {by_joblib.told(JOBS, start)}")
    print(f"trainings per second, {JOBS} at a time against one: {JOBS * alone.trainings[0] / mean:.2f}x")
    print(f"whole commands, 4 by joblib against 4 alone: {4 * alone.command / by_joblib.command:.2f}x")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=85)
    os.environ |= {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    main(parser.parse_args().steps)
