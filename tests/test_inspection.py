"""Reading every clip: what is noted of it, and that nothing is read twice or lost when a run is killed."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storydalle.stories import inspection
from storydalle.stories.inspection import ClipFacts, difference_hash, hash_annotations, inspect
from tests.toy_set import ToySet, noise

NAMES = [f"{i}.png" for i in range(9)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Nine pictures, in shards of two."""
    root = tmp_path / "toy"
    root.mkdir()
    for i, name in enumerate(NAMES):
        noise(i).save(root / name)
    (root / "annotations.txt").write_text("nine pictures")
    return root


@pytest.fixture(autouse=True)
def shards_of_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(inspection, "SHARD_SIZE", 2)
    yield


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.*"))}


def times(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.rglob("*.json")}


def num_read(root: Path, out: Path, clips: list[str] = NAMES, key: str = "") -> int:
    made = ToySet(root)
    inspect(made, clips, out, key)
    return made.num_read


# ------------------------------------------------------------------------------------------------ what is noted


def test_a_clip_is_noted_with_shape_hashes_and_file(root: Path, tmp_path: Path) -> None:
    strip = Image.new("RGB", (12, 36))
    for i in range(3):
        strip.paste(noise(i), (0, 12 * i))
    strip.save(root / "strip.png")
    facts = inspect(ToySet(root), ["strip.png", "0.png"], tmp_path / "out")
    assert list(facts) == ["0.png", "strip.png"]
    content = (root / "strip.png").read_bytes()
    assert facts["strip.png"] == ClipFacts(
        clip="strip.png",
        file="strip.png",
        size=len(content),
        mtime_ns=(root / "strip.png").stat().st_mtime_ns,
        is_shared=False,
        sha256=hashlib.sha256(content).hexdigest(),
        num_frames=3,
        width=12,
        height=12,
        looks=tuple(difference_hash(noise(i)) for i in range(3)),
        problem=None,
    )
    assert facts["0.png"].looks == facts["strip.png"].looks[:1]


def test_the_difference_hash_is_that_of_neighbours_in_a_grid() -> None:
    rising = np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1))
    assert difference_hash(Image.fromarray(rising)) == "f" * 16
    assert difference_hash(Image.fromarray(rising[:, ::-1].copy())) == "0" * 16
    one = np.zeros((8, 9), np.uint8)
    one[1, 3] = 255  # brighter than its left neighbour: the third of eight bits of the second row
    assert difference_hash(Image.fromarray(one)) == "00" + "20" + "00" * 6
    assert difference_hash(Image.fromarray(one).resize((90, 160), Image.Resampling.NEAREST)) == "00" + "20" + "00" * 6


def test_a_picture_looks_the_same_when_it_is_encoded_again(tmp_path: Path) -> None:
    original, other = (tiles(seed).resize((180, 160), Image.Resampling.NEAREST) for seed in (5, 6))
    original.resize((100, 80)).save(tmp_path / "small.jpg", quality=85)
    with Image.open(tmp_path / "small.jpg") as again:
        assert difference_hash(again) == difference_hash(original) != difference_hash(other)


def tiles(seed: int) -> Image.Image:
    """Nine shades in a row, each far from its neighbours'."""
    return Image.fromarray(
        np.random.default_rng(seed).permuted(np.tile(np.arange(9, dtype=np.uint8) * 28, (8, 1)), axis=1)
    )


def test_damages_are_told_in_the_words_of_the_set(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise(1, 64, 64).save(root / "1.png")
    (root / "1.png").write_bytes((root / "1.png").read_bytes()[:900])
    (root / "2.png").write_bytes(b"no picture")
    (root / "4.png").write_bytes(b"")
    Image.new("L", (80, 80)).save(root / "5.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)  # 6,400 pixels are over it, though not over its double.
    facts = inspect(ToySet(root), [*NAMES[:6], "none.png"], tmp_path / "out")
    kinds = {clip: (each.problem or "").partition(":")[0] for clip, each in facts.items()}
    assert kinds["1.png"] in ("truncated", "corrupt")
    assert {clip: kinds[clip] for clip in kinds if clip != "1.png"} == {
        "0.png": "", "2.png": "corrupt", "3.png": "", "4.png": "corrupt", "5.png": "too large", "none.png": "missing",
    }  # fmt: skip
    assert facts["none.png"][2:10] == (0, 0, False, None, 0, 0, 0, ())
    assert facts["2.png"].sha256 == hashlib.sha256(b"no picture").hexdigest()


def test_what_a_set_does_not_expect_is_a_problem_of_the_clip(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def odd(self: ToySet, clip: str) -> list[Image.Image]:
        raise ValueError("conversion\nnot supported")

    monkeypatch.setattr(ToySet, "pictures", odd)
    facts = inspect(ToySet(root), NAMES[:1], tmp_path / "out")
    assert facts["0.png"].problem == "unreadable: conversion not supported"


def test_clips_of_one_file_are_told_apart_by_their_pixels(root: Path, tmp_path: Path) -> None:
    strip = Image.new("RGB", (12, 36))
    for top, seed in ((0, 1), (12, 2), (24, 1)):
        strip.paste(noise(seed), (0, top))
    strip.save(root / "strip.png")
    clips = [f"strip.png@{i}" for i in range(3)]
    facts = inspect(ToySet(root), clips, tmp_path / "out")
    hashes = [facts[clip].sha256 for clip in clips]
    assert hashes[0] == hashes[2] != hashes[1]
    assert all(each.is_shared and each.file == "strip.png" for each in facts.values())
    assert num_read(root, tmp_path / "out", clips) == 0
    assert num_read(root, tmp_path / "out", clips[:1]) == 1, "alone it is hashed as a file"


# ------------------------------------------------------------------------------------------------ going on


def test_an_unchanged_set_is_not_read_again(root: Path, tmp_path: Path) -> None:
    first = inspect(ToySet(root), NAMES, tmp_path / "out")
    before = times(tmp_path / "out")
    assert len(before) == 5
    made = ToySet(root)
    assert inspect(made, NAMES, tmp_path / "out") == first
    assert (made.num_read, times(tmp_path / "out")) == (0, before)


def test_only_changed_files_are_read_again(root: Path, tmp_path: Path) -> None:
    inspect(ToySet(root), [*NAMES, "none.png"], tmp_path / "out")
    before = times(tmp_path / "out")
    noise(30).save(root / "3.png")
    os.utime(root / "6.png", ns=(1, 1))
    (root / "8.png").unlink()
    noise(31).save(root / "none.png")
    made = ToySet(root)
    facts = inspect(made, [*NAMES, "none.png"], tmp_path / "out")
    assert made.num_read == 4
    assert facts["3.png"].looks == (difference_hash(noise(30)),)
    assert facts["8.png"].problem == "missing"
    assert facts["none.png"].problem is None
    changed = {name for name, time in times(tmp_path / "out").items() if before[name] != time}
    assert changed == {"00001.json", "00003.json", "00004.json"}


def test_another_key_reads_everything_and_a_spoilt_shard_is_made_again(root: Path, tmp_path: Path) -> None:
    assert num_read(root, tmp_path / "out", key="a") == 9
    assert num_read(root, tmp_path / "out", key="b") == 9
    whole = written(tmp_path / "out")
    shard = tmp_path / "out" / "clips" / "00002.json"
    for spoilt in (shard.read_bytes()[:-30], b"[]", b'"text"', b"\xff"):
        shard.write_bytes(spoilt)
        assert num_read(root, tmp_path / "out", key="b") == 2
        assert written(tmp_path / "out") == whole


def test_other_clips_of_the_same_set_use_what_is_known(root: Path, tmp_path: Path) -> None:
    inspect(ToySet(root), NAMES[1:], tmp_path / "out")
    assert num_read(root, tmp_path / "out") == 1
    inspect(ToySet(root), NAMES, tmp_path / "fresh")
    assert written(tmp_path / "out") == written(tmp_path / "fresh")
    (tmp_path / "out" / "clips" / "00004.json.partial").write_text("half")
    assert num_read(root, tmp_path / "out", NAMES[:3]) == 0
    assert set(written(tmp_path / "out")) == {"clips/00000.json", "clips/00001.json"}


def test_an_interruption_loses_the_shard_in_work_alone(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect(ToySet(root), NAMES, tmp_path / "whole")
    read, told = ToySet.pictures, []

    def stopped(self: ToySet, clip: str) -> list[Image.Image]:
        if clip == "5.png":
            raise KeyboardInterrupt
        return read(self, clip)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(ToySet, "pictures", stopped)
        inspect(ToySet(root), NAMES, tmp_path / "out", progress=told.append)
    assert told == [2, 2]
    assert num_read(root, tmp_path / "out") == 5
    assert written(tmp_path / "out") == written(tmp_path / "whole")


def test_processes_find_what_one_finds_without_importing_torch(root: Path, tmp_path: Path) -> None:
    (root / "7.png").unlink()
    told: list[int] = []
    alone = inspect(ToySet(root), NAMES, tmp_path / "alone")
    together = inspect(ToySet(root), NAMES, tmp_path / "together", workers=2, progress=told.append)
    assert together == alone
    assert sorted(told) == [1, 2, 2, 2, 2]
    assert written(tmp_path / "together") == written(tmp_path / "alone")


PROGRAM = """
import sys, time
from pathlib import Path
from storydalle.stories import inspection
from tests.toy_set import ToySet

class SlowSet(ToySet):
    def pictures(self, clip):
        time.sleep(0.02)
        return super().pictures(clip)

if __name__ == "__main__":
    inspection.SHARD_SIZE = 2
    root, out = map(Path, sys.argv[1:])
    inspection.inspect(SlowSet(root), sorted(path.name for path in root.glob("*.png")), out, workers=2)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_run_goes_on_and_leaves_no_process_behind(root: Path, tmp_path: Path) -> None:
    inspect(ToySet(root), NAMES, tmp_path / "whole")
    program, out = tmp_path / "program.py", tmp_path / "out"
    program.write_text(PROGRAM)
    line = [sys.executable, str(program), str(root), str(out)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    children: set[int] = set()
    for num_shards in (0, 2):  # killed when so many more shards are there
        process = subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL)
        have = len(list(out.glob("clips/*.json")))
        deadline = time.monotonic() + 60
        while process.poll() is None and len(list(out.glob("clips/*.json"))) < have + num_shards:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        children |= descendants(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "processes that read go on for ever"
        time.sleep(0.05)
    subprocess.run(line, env=environment, check=True)
    assert written(out) == written(tmp_path / "whole")


def descendants(parent: int) -> set[int]:
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(status.parent.name)] = int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {parent}
    while more := {child for child, its in parents.items() if its in found} - found:
        found |= more
    return found - {parent}


# ------------------------------------------------------------------------------------------------ annotations


def test_annotation_files_are_hashed_again_when_they_change(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = hash_annotations(ToySet(root), tmp_path)
    assert first == {"annotations.txt": hashlib.sha256(b"nine pictures").hexdigest()}
    with monkeypatch.context() as patched:
        patched.setattr(inspection, "sha256_of", lambda file: pytest.fail("hashed again"))
        assert hash_annotations(ToySet(root), tmp_path) == first
    (root / "annotations.txt").write_text("eight pictures")
    assert hash_annotations(ToySet(root), tmp_path) != first
    (tmp_path / "annotations.json").write_text("[1]")
    (root / "annotations.txt").unlink()
    assert hash_annotations(ToySet(root), tmp_path) == {"annotations.txt": None}
