"""``storydalle prepare`` killed at random moments: in the end, everything is as if it had not been."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from tests.toy_set import noise

NUM_STORIES = 59
PROGRAM = """
import sys
from storydalle.commands import main
from storydalle.stories import inspection

if __name__ == "__main__":
    inspection.SHARD_SIZE = 2
    sys.exit(main.main(["prepare", *sys.argv[1:]]))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Stories of two pictures each, one of them half and one missing."""
    root = tmp_path / "mine"
    root.mkdir()
    for i in range(NUM_STORIES):
        noise(i, 40, 40).save(root / f"{i}.png")
    (root / "7.png").write_bytes((root / "7.png").read_bytes()[:300])
    rows = [
        {"id": f"s{i}", "frames": [f"{i}.png", f"{i + 1}.png"], "captions": ["", "Bo sits."]}
        for i in range(NUM_STORIES)
    ]
    (root / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return root


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("num_kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_at_random_moments_change_nothing_in_the_end(tmp_path: Path, root: Path, num_kills: int) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}

    def start(out: str) -> subprocess.Popen[bytes]:
        settings = ["data=folder", f"data.root={root}", "workers=2", "preview=4", "num_stories=2", f"out={out}"]
        line = [sys.executable, str(tmp_path / "program.py"), *settings]
        return subprocess.Popen(
            line, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    begin = time.monotonic()
    assert start("whole").wait() == 0
    seconds = time.monotonic() - begin
    random, statuses = Random(num_kills), []
    for _ in range(num_kills):
        process = start("out")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(random.uniform(0.1, 0.8) * seconds)
        process.kill()
        statuses.append(process.wait())
    assert -signal.SIGKILL in statuses and set(statuses) <= {-signal.SIGKILL, 0}
    assert start("out").wait() == 0
    assert written(tmp_path / "out") == written(tmp_path / "whole")
