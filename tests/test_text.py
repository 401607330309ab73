"""Text of files: decoded, split into lines and cleaned in one place."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from storydalle.commands import inputs
from storydalle.files.text import clean, decoded, split_lines
from storydalle.stories import sets
from storydalle.stories.set_stories import listed
from storydalle.stories.sets.folder import FolderStories
from storydalle.stories.story_set import StoryRecord

ODD_LINES = {
    "Pip\u2028waves.": "Pip waves.",
    "Pip\u2029waves.": "Pip waves.",
    "Pip\x85waves.": "Pip waves.",
    "Pip\x0bwaves.\x0c": "Pip waves.",
    "\u3000Pip\xa0 waves.\t": "Pip waves.",
    "\ufeffPip wa\u200bves.\u2060": "Pip waves.",
    "\x1b[31mPip\x07 waves.": "[31mPip waves.",
    "Pip \ud83d waves.": "Pip ? waves.",
}
NOTHING = ["", " \t", "\u200b", "\ufeff", "\u200b \u2060", "\u200d", "\u2028", "\x85", "\u200e\u202a"]
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.mark.parametrize(("line", "expected"), ODD_LINES.items())
def test_white_space_is_single_and_what_does_not_show_is_gone(line: str, expected: str) -> None:
    assert clean(line) == expected
    assert clean(expected) == expected


@pytest.mark.parametrize("line", NOTHING)
def test_a_line_that_shows_nothing_is_empty(line: str) -> None:
    assert clean(line) == ""


@pytest.mark.parametrize(
    "spelled", ["\u0645\u06cc\u200c\u062e\u0648", "\U0001f469\u200d\U0001f680 waves", "naïve Ünal", "不"]
)
def test_joiners_that_are_part_of_the_spelling_stay(spelled: str) -> None:
    assert clean(spelled) == spelled


def test_only_line_feeds_and_returns_end_a_line() -> None:
    assert split_lines("a\nb\r\nc\rd\u2028e\x85f\x0bg") == ["a", "b", "c", "d\u2028e\x85f\x0bg"]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_text_is_read_in_the_encodings_of_usual_editors(encoding: str) -> None:
    written = "Pip waves — in Ünal's “meadow”.\r\nLulu sits.\n"
    assert decoded(written.encode(encoding)) == written


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"Pip\0waves", "zero bytes"),
        (b"\xff\xfeP", "UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0\xff", "UTF-8"),
        (b"\xe9", "byte 0"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        decoded(data)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_generate_and_folder_read_the_same_captions(tmp_path: Path, encoding: str) -> None:
    lines = [line for line in ODD_LINES if "\ud83d" not in line]
    written = "\r\n".join([*lines, "\u200b", " "])
    story = tmp_path / "stories" / "a"
    story.mkdir(parents=True)
    for number in range(len(lines)):
        Image.new("RGB", (8, 8)).save(story / f"{number + 1}.png")
    (story / "captions.txt").write_bytes(written.encode(encoding))
    captions = inputs.read_captions(str(story / "captions.txt"))
    assert captions == [ODD_LINES[line] for line in lines]
    (record,) = FolderStories(tmp_path / "stories").records("train")
    assert list(record.captions) == captions


def test_rows_of_a_folder_are_cleaned_alike(tmp_path: Path) -> None:
    row = {"id": "a\u200b\u2028b", "frames": ["1.png", "2.png"], "captions": ["\u2060", "Pip\x85waves\u200b."]}
    (tmp_path / "stories.jsonl").write_bytes(("\u200b\n" + json.dumps(row)).encode("utf-16"))
    stories = FolderStories(tmp_path)
    assert stories.problems == []
    record = next(record for split in stories.splits for record in stories.records(split))
    assert (record.id, record.captions) == ("a b", ("", "Pip waves."))


def test_ids_are_told_apart_by_what_shows(tmp_path: Path) -> None:
    records = [StoryRecord(id, ("1.png", "2.png"), ("", "Pip waves."), group=id) for id in ("a  trip", "b\u2028c", "d")]
    (tmp_path / "ids.txt").write_bytes("a trip\r\n\u200b\n b c \n".encode("utf-16"))
    assert listed(records, tmp_path / "ids.txt") == records[:2]
    (tmp_path / "ids.txt").write_text("elsewhere\n")
    with pytest.raises(ValueError, match="names 'elsewhere'"):
        listed(records, tmp_path / "ids.txt")


@pytest.mark.parametrize(
    "name", ["arldm", "didemo", "flintstones", "folder", "longstory", "openstory", "pororo", "vist"]
)
def test_captions_of_every_set_are_cleaned_in_one_place(name: str) -> None:
    code = (Path(sets.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    assert "clean(" in code and not re.search(r'" "\.join\((?!str\(error\))', code)
