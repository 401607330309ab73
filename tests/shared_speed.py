"""What sharing saves: six runs with one tokenizer and backbone, against six that train their own; by real commands.

``python -m tests.shared_speed`` prints the time of processors of both sweeps, which other programs hardly change, and
what would be left if sharing itself cost nothing. ``--steps 150 20`` are those of each shared training and of each run.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.test_documents import TINY_TOON

RUNS = 6
FEW = (*TINY_TOON[:5], "save_every=1000", "trainer.val_check_interval=1000")


def literal(steps: int, *more: str) -> str:
    settings = [each.replace("=", ":", 1) for each in FEW if not each.startswith("trainer=")]
    return ",".join([*settings, "trainer:smoke", f"trainer.max_steps:{steps}", *more])


def seconds(folder: Path, name: str, steps: tuple[int, int], seed: str) -> float:
    """Of processors, for a sweep whose shared trainings have this seed."""
    shared, own = steps
    tokenizer = f"{{experiment:toon/image_tokenizer,tokenizer:tiny,{literal(shared, seed)}}}"
    backbone = f"experiment:toon/text_to_image,tokenizer:tiny,backbone:tiny,{literal(shared, seed)}"
    command = [sys.executable, "-m", "storydalle", "train", "-m", "experiment=toon/story_dalle", f"seeds={RUNS}"]
    command += [*FEW, f"trainer.max_steps={own}", "system.story_warmup_steps=0", "logger=none", f"name={name}"]
    command.append(f"pretrained={{{backbone},pretrained:{tokenizer}}}")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(shared: int, own: int) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder, steps = Path(temporary), (shared, own)
        once = seconds(folder, "shared", steps, "seed:7")
        again = seconds(folder, "again", (shared, own + 1), "seed:7")  # all but what is shared
        each = seconds(folder, "own", steps, "seed:${seed}")
    least = once / (RUNS * (once - again) + again)
    print(f"{RUNS} runs of {own} steps on a tokenizer and a backbone of {shared} steps each")
    print(f"shared: {once:.1f} s, of which {again:.1f} s for the runs themselves; each its own: {each:.1f} s")
    print(f"ratio {once / each:.2f}; it would be {least:.2f} if six times the shared part were all that is saved")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, nargs=2, default=(150, 20))
    given = parser.parse_args()
    os.environ |= {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    main(*given.steps)
