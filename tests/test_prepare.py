"""``storydalle prepare`` on copies that are not whole: what it says, writes and leaves out."""

import csv
import hashlib
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image

from storydalle.commands import main, prepare
from storydalle.files import outputs
from storydalle.reporting import findings, prepared
from storydalle.stories.inspection import inspect
from storydalle.stories.story_set import Problem
from tests.test_vist import write_annotations
from tests.toy_set import ToySet, noise, story

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "openstory-256"
Run = namedtuple("Run", "status out err")
Command = Callable[..., Run]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs ``storydalle prepare`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["storydalle"])

    def run(*arguments: str) -> Run:
        capsys.readouterr()
        status = main.main(["prepare", "workers=1", *arguments])
        return Run(status, *capsys.readouterr())

    return run


def assert_mistake(run: Run, *words: str) -> None:
    assert run.status == 2, run.out
    assert len(run.err.splitlines()) == 1, run.err
    assert all(word in run.err for word in words), run.err


def row(id: str, split: str, frames: str, captions: list[str], **more: Any) -> dict[str, Any]:
    return {"id": id, "split": split, "frames": frames.split(), "captions": captions, **more}


ROWS = [
    row("a", "train", "1.png 2.png 3.png", ["Ada", "Ada runs.", "She sits."], characters=[["Ada"], ["Ada"], []]),
    row("broken", "train", "4.png cut.png", ["", "Bo waves."], characters=[[], []]),
    row("silent", "train", "4.png 5.png", ["", ""], characters=[[], []]),
    row("c/d", "test", "1copy.png 6.png", ["", "ada runs."], characters=[[], ["Ada"]]),
    row("still", "test", "7.png 7copy.png", ["", "Nothing moves."], characters=[[], []]),
    row("gone", "test", "8.png none.png", ["", "It went away."], characters=[[], []]),
    row("wide", "test", "9.png wide.png", ["", "One two three four five."], characters=[[], []]),
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of stories with a damaged, a missing and a wide picture, and pictures that occur twice."""
    root = tmp_path / "mine"
    root.mkdir()
    for seed in range(1, 10):
        noise(seed, 40, 40).save(root / f"{seed}.png")
    for name in ("1", "7"):
        shutil.copy(root / f"{name}.png", root / f"{name}copy.png")
    (root / "cut.png").write_bytes((root / "5.png").read_bytes()[:300])
    noise(20, 300, 60).save(root / "wide.png")
    (root / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return root


def written(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------------------------------------ what it finds


def test_stories_with_a_bad_picture_are_counted_as_left_out(command: Command, root: Path) -> None:
    run = command("data=folder", f"data.root={root}")
    assert run.status == 0, run.err
    assert run.out.startswith("folder: 4 of 6 stories can be used, each a source and 1 to 2 targets\n")
    report = json.loads(Path("prepared/folder/report.json").read_text())
    counts = {split: (each["stories"], each["usable"]) for split, each in report["splits"].items()}
    assert counts == {"train": (2, 1), "test": (4, 3)}
    assert Path("prepared/folder/ids-train.txt").read_text() == "a\n"
    ids = Path("prepared/folder/ids-test.txt").read_bytes()
    assert ids == b"c/d\nstill\nwide\n"
    assert report["splits"]["test"]["ids_sha256"] == hashlib.sha256(ids).hexdigest()


def test_problems_are_listed_with_their_kinds(command: Command, root: Path) -> None:
    run = command("data=folder", f"data.root={root}")
    with Path("prepared/folder/problems.csv").open(newline="") as file:
        header, *problems = csv.reader(file)
    assert header == ["where", "what"]
    assert [(where, what.partition(":")[0]) for where, what in problems] == [
        ("stories.jsonl:3", "no caption"),
        ("cut.png", "truncated"),
        ("none.png", "missing"),
    ]
    assert "problems of the annotations: 1\n  no caption  1\n    stories.jsonl:3: no caption" in run.out
    assert "problems of pictures: 2\n  missing    1\n  truncated  1\n    cut.png: truncated" in run.out


def test_what_occurs_twice_and_leaks_is_found(command: Command, root: Path) -> None:
    run = command("data=folder", f"data.root={root}")
    report = json.loads(Path("prepared/folder/report.json").read_text())
    assert report["same_bytes"] == {
        "number": 2,
        "num_clips": 4,
        "examples": [["1.png", "1copy.png"], ["7.png", "7copy.png"]],
    }
    assert report["in_several_stories"]["examples"] == [["1.png", "1copy.png"]]
    assert report["repeated_frames"]["examples"] == [["7.png", "7copy.png"]]
    assert report["repeated_sources"]["examples"] == [["still", "7copy.png"]]
    assert {(leak["kind"], leak["number"]) for leak in report["leaks"]} == {("pictures", 1), ("captions", 1)}
    assert (
        "train and test share 1 pictures, byte for byte (of 5 in test; in 1 and 1 stories, as in a and c/d)" in run.out
    )


def test_captions_and_characters_are_counted(command: Command, root: Path) -> None:
    run = command("data=folder", f"data.root={root}", "caption_tokenizer=story_dalle")
    report = json.loads(Path("prepared/folder/report.json").read_text())
    assert report["captions"]["train"]["pronoun_share"] == 0.5
    assert report["captions"]["test"]["max_words"] == 5
    assert report["captions"]["test"]["mean_tokens"] > report["captions"]["test"]["mean_words"]
    assert report["captions"]["test"]["num_truncated"] == 0
    assert report["characters"]["train"] == {"Ada": 1, "nobody": 1, "not labelled": 0}
    assert report["characters"]["test"] == {"Ada": 1, "nobody": 2, "not labelled": 0}
    assert f"over {report['text_length']}" in run.out


def test_official_counts_and_contents_stand_beside_those_found(root: Path, tmp_path: Path) -> None:
    class Book(ToySet):
        whole = "tales"

        def contents(self) -> dict[str, int]:
            return {"books": 1234}

        def unusable(self, hashes: Any) -> list[Problem]:
            return [Problem("2.png", f"odd: one of {len(hashes)}")]

    made = Book(root, {"train": [story("s#1", "1.png 2.png"), story("s#2", "3.png 4.png", group="s")], "val": []})
    records = {split: made.records(split) for split in made.splits}
    clips = [clip for stories in records.values() for record in stories for clip in record.clips]
    found = findings.findings_of(made, records, inspect(made, clips, tmp_path / "out"), [])
    assert found.picture_problems == [Problem("2.png", "odd: one of 4")]
    report = findings.report_of(made, found)
    train = report["splits"]["train"]
    assert (train["official"], train["usable"], train["difference"], train["whole_stories"]) == (3, 1, -2, 1)
    lines = findings.report_text(report).splitlines()
    assert lines[:2] == ["toy: 1 of 2 stories can be used, each a source and 1 target", "the copy holds 1,234 books"]
    assert " ".join(lines[2].split()) == "stories usable official difference tales frames"
    assert " ".join(lines[3].split()) == "train 2 1 3 -2 1 4"
    assert len({len(line) for line in lines[2:6]}) == 1, "columns stand under each other"
    assert "official: as published" in lines[6]
    assert "pictures in more than one of the tales, byte for byte: 0" in "\n".join(lines)


def test_names_that_are_no_text_can_be_printed(root: Path) -> None:
    assert findings.printable_lines("a\udcffb\nc") == "a?b\nc"


def test_placeholders_of_vist_are_found_by_their_bytes(command: Command, tmp_path: Path) -> None:
    root = tmp_path / "vist"
    (root / "images").mkdir(parents=True)
    for i in range(12):
        (noise(i, 20, 20) if i < 6 else Image.new("RGB", (20, 20))).save(root / "images" / f"{i}.jpg")
    stories = {"train": ("0 1 2 3 4", "0 1 2 3 6", "7 8 9 10 11"), "val": ("1 2 3 4 5",), "test": ("5 4 3 2 1",)}
    for split, told in stories.items():
        rows = [
            {"story_id": f"{split}{number}", "photo_flickr_id": photo, "original_text": "Words.", "album_id": split}
            for number, photos in enumerate(told)
            for photo in photos.split()
        ]
        write_annotations(root / "sis" / f"{split}.story-in-sequence.json", rows)
    run = command("data=vist", f"data.root={root}", "out=look")
    assert run.status == 0, run.err
    assert Path("look/ids-train.txt").read_text() == "train0\n"
    assert "  replaced photo  6\n" in run.out


# ------------------------------------------------------------------------------------------------ what it writes


def test_the_manifest_is_the_same_wherever_and_whenever_the_copy_is_read(command: Command, root: Path) -> None:
    shutil.copytree(root, root.parent / "copy")
    for path in (root.parent / "copy").iterdir():
        os.utime(path, (1, 1))
    command("data=folder", f"data.root={root}", "out=one")
    command("data=folder", f"data.root={root.parent / 'copy'}", "out=two")
    one, two = written(Path("one")), written(Path("two"))
    assert {name for name in one if one[name] != two[name]} == {"clips/00000.json", "annotations.json"}
    clips = one["clips.jsonl"]
    manifest = json.loads(one["manifest.json"])
    assert manifest == {
        "set": "folder",
        "options": {"num_targets": None, "stride": 1},
        "annotations": {"stories.jsonl": hashlib.sha256((root / "stories.jsonl").read_bytes()).hexdigest()},
        "splits": {"train": {"stories": 2, "usable": 1}, "test": {"stories": 4, "usable": 3}},
        "clips": {"file": "clips.jsonl", "number": 13, "sha256": hashlib.sha256(clips).hexdigest()},
    }
    rows = dict(json.loads(line) for line in clips.splitlines())
    assert rows["1copy.png"] == hashlib.sha256((root / "1.png").read_bytes()).hexdigest()
    assert rows["none.png"] is None


def test_a_second_run_reads_nothing_and_changes_nothing(
    command: Command, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = command("data=folder", f"data.root={root}", "preview=2")
    before = written(Path("prepared"))
    monkeypatch.setattr("storydalle.stories.inspection.read_clip", lambda *_: pytest.fail("a clip was read again"))
    again = command("data=folder", f"data.root={root}", "preview=2")
    assert (again.status, again.out) == (0, first.out)
    assert written(Path("prepared")) == before


def test_a_changed_option_or_annotation_is_noticed(command: Command, root: Path) -> None:
    command("data=folder", f"data.root={root}")
    first = json.loads(Path("prepared/folder/manifest.json").read_text())
    command("data=folder", f"data.root={root}", "data.num_targets=1")
    assert json.loads(Path("prepared/folder/manifest.json").read_text())["options"]["num_targets"] == 1
    assert (Path("prepared/folder/ids-train.txt")).read_text() == "a#1\na#2\n"
    (root / "stories.jsonl").write_text((root / "stories.jsonl").read_text().replace("Ada runs.", "Ada walks."))
    command("data=folder", f"data.root={root}")
    changed = json.loads(Path("prepared/folder/manifest.json").read_text())
    assert {key for key in first if first[key] != changed[key]} == {"annotations"}


def test_strips_are_spread_over_the_split(command: Command, root: Path) -> None:
    run = command("data=folder", f"data.root={root}", "preview=2", "data.resolution=64")
    assert {path.name for path in Path("prepared/folder/strips").iterdir()} == {"c~d.png", "still.png"}
    assert "drew prepared/folder/contact_sheet.png: folder, test: 3 of 3 stories" in run.out
    assert prepare.spread(3, 9) == [0, 3, 6]
    assert prepare.spread(8, 3) == [0, 1, 2]
    assert prepare.spread(2, 0) == []


def test_windows_with_pictures_already_shown_are_passed_over() -> None:
    windows = [story(f"s#{i}", f"{i} {i + 1} {i + 2}") for i in range(1, 6)] + [story("t#1", "8 9")]
    assert [record.id for record in prepared.disjoint(windows, 6)] == ["s#1", "s#4", "t#1"]
    assert [record.id for record in prepared.disjoint(windows, 2)] == ["s#1", "s#4"]


def test_a_split_that_nobody_asked_for_may_be_absent(command: Command, root: Path) -> None:
    (root / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]), encoding="utf-8")
    assert "train: 1 of 1 stories" in command("data=folder", f"data.root={root}").out
    assert_mistake(command("data=folder", f"data.root={root}", "split=test"), "no split 'test'", "train")


def test_another_split_is_drawn_where_no_story_of_the_usual_one_can_be_used(command: Command, root: Path) -> None:
    (root / "stories.jsonl").write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(ROWS[5]) + "\n", encoding="utf-8")
    assert "train: 1 of 1 stories" in command("data=folder", f"data.root={root}").out
    assert "no story of test can be used" in command("data=folder", f"data.root={root}", "split=test").out


def test_toon_is_drawn_with_strips_too(command: Command) -> None:
    run = command("data.resolution=64", "num_stories=1", "preview=2", "out=look")
    assert run.status == 0, run.err
    assert len(list(Path("look/strips").iterdir())) == 2
    assert not Path("look/manifest.json").exists()


# ------------------------------------------------------------------------------------------------ mistakes


def test_a_root_that_is_none_is_told_in_one_line(command: Command, root: Path, tmp_path: Path) -> None:
    assert_mistake(command("data=folder"), "data.root is not set")
    assert_mistake(command("data=folder", "data.root=nowhere"), "data.root=nowhere is no folder")
    far = tmp_path / "far" / "from the folders of other tests"
    shutil.copytree(root, far / "mine")
    assert_mistake(command("data=folder", f"data.root={far}"), f"give data.root={far / 'mine'}")
    assert_mistake(command("data=openstory", f"data.root={root}"), "holds no openstory")
    (root / "stories.jsonl").write_text("{}")
    assert_mistake(command("data=folder", f"data.root={root}"), "gives no story", "stories.jsonl:1: no id")
    assert not Path("prepared").exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("data=folde", ["no data 'folde'", "folder"]),
        ("data.num_targets=many", ["of the wrong kind (num_targets=many, stride=1)"]),
        ("data.num_targets=0", ["num_targets=0"]),
        ("num_stories=0", ["num_stories=0"]),
        ("preview=-1", ["preview=-1"]),
        ("workers=0", ["workers=0"]),
        ("caption_tokenizer=nowhere", ["caption_tokenizer=nowhere"]),
        ("out=mine/stories.jsonl", ["is a file"]),
        ("out=mine/stories.jsonl/deeper", ["cannot be written"]),
        ("out=mine", ["holds other files"]),
    ],
)
def test_settings_out_of_bounds_are_refused(command: Command, root: Path, setting: str, words: list[str]) -> None:
    before = written(root)
    assert_mistake(command("data=folder", f"data.root={root}", setting), *words)
    assert written(root) == before


def test_a_folder_that_cannot_be_written_is_told(command: Command, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: False)
        assert_mistake(command("data=folder", f"data.root={root}"), "cannot be written")

    def full(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(prepare, "hash_annotations", full)
    assert_mistake(command("data=folder", f"data.root={root}"), "cannot be written", "Read-only")


def test_space_is_checked_before_anything_is_written(
    command: Command, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda path: usage(10**9, 10**9, 49_000_000))
    assert_mistake(command("data=folder", f"data.root={root}"), "no disk space")
    assert not Path("prepared").exists()


def test_a_second_run_at_the_same_time_is_refused(command: Command, root: Path) -> None:
    command("data=folder", f"data.root={root}")
    with FileLock("prepared/folder/.storydalle.lock"):
        assert_mistake(command("data=folder", f"data.root={root}"), "another prepare")


def test_a_killed_reader_is_told_with_a_remedy(command: Command, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: Any) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr(prepare, "inspect", killed)
    assert_mistake(command("data=folder", f"data.root={root}"), "was killed after 0 of 13 clips", "workers=1")


# ------------------------------------------------------------------------------------------------ the real pack


@pytest.mark.data
@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/openstory-256 is absent")
def test_the_numbers_of_openstory_are_those_counted_by_hand(command: Command) -> None:
    run = command("data=openstory", f"data.root={REAL}", "out=look")
    assert run.status == 0, run.err
    assert (
        "the copy holds 156 books, 1,811 pages, 118 groups of books that share pictures or a title, "
        "1,187 windows of 1 + 4 pages\n"
    ) in run.out
    assert "pictures in more than one of the books, byte for byte: 71," in run.out
    assert "consecutive frames of a story that are the same, byte for byte: 7\n" in run.out
    report = json.loads(Path("look/report.json").read_text())
    assert [report["all"][key] for key in ("stories", "whole_stories", "groups")] == [1175, 156, 118]
    assert {leak["kind"] for leak in report["leaks"]} == {"looks", "captions"}, "no group and no picture is shared"
    whole = ["data.set.max_ratio=null", "data.set.min_side=1"]
    run = command("data=openstory", f"data.root={REAL}", *whole, "data.num_targets=2", "out=look")
    assert run.out.startswith("openstory: 1,499 of 1,499 stories can be used, each a source and 2 targets\n")
    report = json.loads(Path("look/report.json").read_text())
    assert [report["all"][key] for key in ("stories", "whole_stories", "groups", "frames")] == [1499, 156, 118, 1811]
    assert (report["repeated_frames"]["number"], report["in_several_stories"]["number"]) == (7, 71)
