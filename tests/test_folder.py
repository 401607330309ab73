"""Your own stories: folders with captions.txt, or rows of stories.jsonl; what is wrong is named by file and line."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from PIL import Image

from storydalle.commands.application import compose
from storydalle.stories.pictures import ClipError
from storydalle.stories.sets.folder import FolderStories
from storydalle.stories.story_set import Problem

SIZE = (8, 6)
WRONG = "wrong number of captions: {} for 3 frames; give one a frame"


def draw(file: Path, red: int = 0, **options: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE, (red, 0, 0)).save(file, **options)


def story(folder: Path, num_frames: int, captions: Sequence[str]) -> Path:
    for k in range(1, num_frames + 1):
        draw(folder / f"{k}.png", red=k)
    (folder / "captions.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    return folder


def rows(root: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    root.mkdir(parents=True, exist_ok=True)
    (root / "stories.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root


def row(id: str, num_frames: int = 3, **more: Any) -> dict[str, Any]:
    frames = [f"art/{id} {k}.png" for k in range(1, num_frames + 1)]
    return {"id": id, "frames": frames, "captions": [f"{id} {k}" for k in range(1, num_frames + 1)], **more}


def ids(made: FolderStories) -> list[str]:
    return [record.id for split in made.splits for record in made.records(split)]


# ------------------------------------------------------------------------------------------------ story folders


def test_a_folder_is_a_story_in_the_natural_order_of_its_pictures(tmp_path: Path) -> None:
    folder = story(tmp_path / "a trip", 11, [f"line  {k}" for k in range(1, 12)])
    draw(folder / "._3.png")  # what macOS leaves on foreign disks
    (folder / ".DS_Store").write_bytes(b"x")
    made = FolderStories(tmp_path)
    assert made.problems == []
    (record,) = made.records("train")
    assert (record.id, record.group, record.characters) == ("a trip", "a trip", None)
    assert record.clips == tuple(f"a trip/{k}.png" for k in range(1, 12))
    assert record.captions == tuple(f"line {k}" for k in range(1, 12))
    assert [made.pictures(clip)[0].getpixel((0, 0)) for clip in record.clips[8:]] == [(9, 0, 0), (10, 0, 0), (11, 0, 0)]


@pytest.mark.parametrize(
    ("lines", "captions"),
    [
        (["source", "one", "two"], ("source", "one", "two")),
        (["", "one", "two"], ("", "one", "two")),
        (["", "one", "two", "", " "], ("", "one", "two")),
        (["\r", "one\r", "two\r"], ("", "one", "two")),
        (["\ufeff", "one", 'twó | "2"\u2028more'], ("", "one", 'twó | "2" more')),
    ],
)
def test_the_sources_caption_may_be_empty(lines: list[str], captions: tuple[str, ...], tmp_path: Path) -> None:
    story(tmp_path / "a trip", 3, lines)
    assert FolderStories(tmp_path).records("train")[0].captions == captions


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        (["one"], "captions.txt", WRONG.format(1)),
        (
            ["1", "2", "3", "4"],
            "captions.txt",
            WRONG.format(4),
        ),
        (["source", "", "two"], "captions.txt:2", "no caption: the 2. of 3 is empty"),
        ([""], "captions.txt", WRONG.format(0)),
    ],
)
def test_a_story_with_too_few_captions_is_left_out_and_named(
    lines: list[str], where: str, what: str, tmp_path: Path
) -> None:
    story(tmp_path / "bad", 3, lines)
    story(tmp_path / "good", 2, ["", "one"])
    made = FolderStories(tmp_path)
    assert made.problems == [Problem(f"bad/{where}", what)]
    assert ids(made) == ["good"]


def test_odd_folders_and_files_are_named(tmp_path: Path) -> None:
    story(tmp_path / "10 good", 2, ["", "one"])
    story(tmp_path / "9 good", 2, ["", "one"])
    draw(tmp_path / "pictures only" / "1.png")
    (tmp_path / "docs").mkdir()
    story(tmp_path / "single", 1, ["one"])
    draw(story(tmp_path / "twice", 2, ["", "one"]) / "2.jpg")
    (tmp_path / "9 good" / "3.tiff").write_bytes(b"x")
    made = FolderStories(tmp_path)
    assert made.problems == [
        Problem("9 good/3.tiff", "not a picture: it is no frame of the story"),
        Problem("docs", "no story: neither pictures nor captions lie in it"),
        Problem("pictures only", "no captions: captions.txt is missing"),
        Problem("single/captions.txt", "short story: 1 frames; a story has 2 or more"),
        Problem("twice/captions.txt", "a frame twice: 2.jpg and 2.png"),
    ]
    assert sorted(ids(made)) == ["10 good", "9 good"]


def test_sub_folders_are_splits(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/a"):
        story(tmp_path / name, 2, ["", "one"])
    story(tmp_path / "astray", 2, ["", "one"])
    made = FolderStories(tmp_path)
    assert made.splits == ("train", "test")
    assert ids(made) == ["train/a", "train/b", "test/a"]
    assert made.problems == [Problem("astray", "no split: it lies beside train, test")]
    with pytest.raises(ValueError, match=r"split val of folder has no story \(train, test have\)"):
        made.records("val")


def test_a_hash_of_the_name_chooses_the_split_where_none_is_given(tmp_path: Path) -> None:
    """SHA-256 begins with these for: "d" 9 of 10 (test), "e" 2 (train); pinned, or splits would mix over versions."""
    for name in ("d", "e", "test"):
        story(tmp_path / name, 2, ["", "one"])  # A story called "test" is no split.
    made = FolderStories(tmp_path)
    split_of = {record.id: split for split in made.splits for record in made.records(split)}
    assert split_of["d"] == "test"
    assert split_of["e"] == "train"
    many = FolderStories(rows(tmp_path / "many", *(row(str(k)) for k in range(1000))))
    shares = [len(many.records(split)) for split in ("train", "val", "test")]
    assert sum(shares) == 1000
    assert np.allclose(shares, [800, 100, 100], atol=35)


def test_a_number_of_targets_cuts_windows_and_names_short_stories(tmp_path: Path) -> None:
    story(tmp_path / "train" / "long", 6, [f"line {k}" for k in range(1, 7)])
    story(tmp_path / "train" / "short", 2, ["", "one"])
    made = FolderStories(tmp_path, num_targets=2, stride=2)
    assert ids(made) == ["train/long#1", "train/long#3"]
    second = made.records("train")[1]
    assert second.clips == tuple(f"train/long/{k}.png" for k in (3, 4, 5))
    assert second.captions == ("line 3", "line 4", "line 5")
    assert second.group == "train/long"
    assert made.problems == [Problem("train/short", "short story: 2 frames of 3")]


def test_captions_in_another_encoding_are_refused(tmp_path: Path) -> None:
    folder = story(tmp_path / "a", 2, ["", "one"])
    (folder / "captions.txt").write_bytes("Zoë".encode("latin1"))
    with pytest.raises(ValueError, match=r"captions.txt is not in UTF-8 \(byte 2\)"):
        FolderStories(tmp_path)


# ------------------------------------------------------------------------------------------------ stories.jsonl


def test_rows_name_frames_captions_and_characters(tmp_path: Path) -> None:
    first = row("a", characters=[["Pip", "Lulu "], [], ["Lulu"]], split="train")
    second = row("b", 2, split="val", characters=[[], []]) | {"captions": ["", "only  the target's"]}
    third = row("c", 2, characters=[[], ["Ada"]], split="train") | {"frames": ["./x.png", "art/../y.png"]}
    made = FolderStories(rows(tmp_path, first, second, "", third))
    assert made.problems == []
    assert made.characters == ("Ada", "Lulu", "Pip")
    a, c = made.records("train")
    assert a.characters == ((0, 1, 1), (0, 0, 0), (0, 1, 0))
    assert c.characters == ((0, 0, 0), (1, 0, 0))
    assert c.clips == ("x.png", "y.png")
    (b,) = made.records("val")
    assert (b.captions, b.characters) == (("", "only the target's"), ((0, 0, 0), (0, 0, 0)))
    assert FolderStories(rows(tmp_path / "other", row("a"))).characters == ()
    windows = FolderStories(tmp_path, num_targets=1)
    assert windows.records("train")[1].id == "a#2"
    assert windows.records("train")[1].characters == ((0, 0, 0), (0, 1, 0))


@pytest.mark.parametrize(
    ("bad", "what"),
    [
        ("{", "not JSON: "),
        ("[" * 100_000, "not JSON: "),
        ("[1]", "not a row: "),
        (row("x") | {"id": 7}, "no id: 7 is no text"),
        (row("x") | {"id": " "}, "no id: ' ' is no text"),
        ({"id": "x", "captions": ["1", "2"]}, "no frames: None is no list of texts"),
        (row("x") | {"captions": "a, b"}, "no captions: 'a, b' is no list of texts"),
        (row("x") | {"captions": ["1", None]}, "no captions: ['1', None] is no list of texts"),
        (row("x") | {"captions": ["1", "2", ""]}, "no caption: the 3. of 3 is empty"),
        (row("x") | {"captions": ["1"]}, "wrong number of captions: 1 for 3 frames"),
        (row("x", 1), "short story: 1 frames"),
        (row("x", split="dev"), "unknown split: 'dev' is none of train, val, test"),
        (row("x", split=["train"]), "unknown split: ['train'] is none"),
        (row("x", characters=[["Pip"]]), "characters: [['Pip']] is no list of 3 lists of names"),
        (row("x", characters=["Pip", [], []]), "characters: ['Pip', [], []] holds something else"),
        (row("x", 2) | {"frames": ["../secret.png", "a.png"]}, "outside the root: '../secret.png'"),
        (row("x", 2) | {"frames": ["a/../../b.png", "a.png"]}, "outside the root: 'a/../../b.png'"),
        (row("x", 2) | {"frames": ["/etc/x.png", "a.png"]}, "outside the root: '/etc/x.png'"),
        (row("x", 2) | {"frames": ["", "a.png"]}, "outside the root: ''"),
        (row("good"), "duplicate story: stories.jsonl:1 has the id 'good' too"),
    ],
)
def test_a_bad_row_is_left_out_and_named_by_its_line(bad: Any, what: str, tmp_path: Path) -> None:
    made = FolderStories(rows(tmp_path, row("good"), "", bad, row("fine")))
    assert sorted(ids(made)) == ["fine", "good"]
    (problem,) = made.problems
    assert problem.where == "stories.jsonl:3"
    assert problem.what.startswith(what)


def test_rows_with_and_without_a_split_do_not_mix(tmp_path: Path) -> None:
    made = FolderStories(rows(tmp_path, row("a", split="test"), row("b")))
    assert ids(made) == ["a"]
    assert made.problems == [Problem("stories.jsonl:2", "no split: other rows have one, so every row needs one")]


def test_a_name_that_no_file_can_hold_is_replaced(tmp_path: Path) -> None:
    made = FolderStories(rows(tmp_path, row("a", split="train") | {"captions": ["1", "2", "\ud800"]}))
    assert made.records("train")[0].captions == ("1", "2", "?")


def test_two_layouts_at_once_are_refused(tmp_path: Path) -> None:
    story(tmp_path / "a", 2, ["", "one"])
    rows(tmp_path, row("b"))
    with pytest.raises(ValueError, match=r"both stories.jsonl and story folders with captions, such as a"):
        FolderStories(tmp_path)


def test_a_set_without_a_good_story_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"gives no story: stories.jsonl:1: no frames"):
        FolderStories(rows(tmp_path, {"id": "x"}))
    with pytest.raises(ValueError, match="gives no story"):
        FolderStories(rows(tmp_path))


# ------------------------------------------------------------------------------------------------ both


def test_annotation_files_are_what_was_read(tmp_path: Path) -> None:
    story(tmp_path / "f" / "a", 2, ["", "one"])
    assert FolderStories(tmp_path / "f").annotation_files() == [tmp_path / "f" / "a" / "captions.txt"]
    assert FolderStories(rows(tmp_path / "r", row("a"))).annotation_files() == [tmp_path / "r" / "stories.jsonl"]


def test_pictures_are_upright_and_on_white(tmp_path: Path) -> None:
    folder = story(tmp_path / "a", 3, ["", "one", "two"])
    Image.new("RGBA", SIZE, (200, 0, 0, 0)).save(folder / "1.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone that was held upright
    (folder / "2.png").unlink()
    draw(folder / "2.jpg", exif=exif)
    Image.new("L", SIZE, 7).save(folder / "3.png")
    made = FolderStories(tmp_path)
    see_through, turned, grey = (made.pictures(f"a/{name}")[0] for name in ("1.png", "2.jpg", "3.png"))
    assert [picture.mode for picture in (see_through, turned, grey)] == ["RGB"] * 3
    assert see_through.getpixel((0, 0)) == (255, 255, 255)
    assert turned.size == (6, 8)
    assert grey.getpixel((0, 0)) == (7, 7, 7)


def test_damaged_pictures_are_named_when_they_are_read(tmp_path: Path) -> None:
    made = FolderStories(rows(tmp_path, row("a")))
    with pytest.raises(ClipError, match=r"^missing$"):
        made.pictures("art/a 1.png")
    draw(tmp_path / "art" / "a 1.png")
    data = (tmp_path / "art" / "a 1.png").read_bytes()
    (tmp_path / "art" / "a 1.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ClipError, match=r"^truncated|^corrupt"):
        made.pictures("art/a 1.png")
    Image.fromarray(np.full((6, 8), np.nan, np.float32)).save(tmp_path / "art" / "a 2.png", "TIFF")
    with pytest.raises(ClipError, match=r"^unsupported: numbers"):
        made.pictures("art/a 2.png")


def test_pictures_of_sixteen_bits_keep_their_tones(tmp_path: Path) -> None:
    made = FolderStories(rows(tmp_path, row("a")))
    (tmp_path / "art").mkdir()
    Image.fromarray(np.full((6, 8), 40000, np.uint16)).save(tmp_path / "art" / "a 1.png")
    assert made.pictures("art/a 1.png")[0].getpixel((0, 0)) == (156, 156, 156)


def test_a_wrong_root_is_told_where_the_stories_are(tmp_path: Path) -> None:
    around = tmp_path / "far" / "from" / "the" / "folders of other tests"
    root = around / "mine"
    story(root / "a", 2, ["", "one"])
    for wrong in (around, root / "a"):
        with pytest.raises(ValueError, match=f"give data.root={root}"):
            FolderStories(wrong)
    (around / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no stories.*make a folder a story"):
        FolderStories(around / "empty")


@pytest.mark.parametrize("options", [{"num_targets": 0}, {"stride": 0}])
def test_settings_out_of_bounds_are_refused(options: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}=0"):
        FolderStories(rows(tmp_path, row("a")), **options)


def test_the_config_opens_the_set(tmp_path: Path) -> None:
    story(tmp_path / "train" / "a", 4, ["", "one", "two", "three"])
    whole, cut = (
        instantiate(compose("prepare", ["data=folder", f"data.root={tmp_path}", *more]).data.set)
        for more in ([], ["data.num_targets=1", "data.set.stride=2"])
    )
    assert [len(record.clips) for record in whole.records("train")] == [4]
    assert ids(cut) == ["train/a#1", "train/a#3"]
