"""Your own stories in tables with a row a frame, as an imagefolder or a csv, and as pairs of picture and text."""

import json
from pathlib import Path
from typing import Any

import pytest

from storydalle.stories.sets.folder import FolderStories
from storydalle.stories.story_set import Problem
from tests.test_folder import draw, ids, row, rows, story

CSV = """story,frame,file,caption,characters
trip,2,art/b.png,"Pip climbs it, slowly.",Pip; Lulu
trip,1,art/a.png,A hill.,
storm,0,art/c.png,,Lulu
storm,1,art/d.png,Rain.,Lulu
"""


def table(file: Path, *lines: Any) -> Path:
    """A table, and the pictures that it names where they are none yet."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n")
    for line in lines:
        if isinstance(line, dict) and isinstance(line.get("file_name"), str):
            draw(file.parent / line["file_name"])
    return file.parent


def frame(file: str, text: str | None, **more: Any) -> dict[str, Any]:
    return {"file_name": file, "text": text, **more}


def shown(made: FolderStories) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    records = [record for split in made.splits for record in made.records(split)]
    return {record.id: (record.clips, record.captions) for record in records}


# ------------------------------------------------------------------------------------------------ csv


@pytest.mark.parametrize("between", [",", ";", "\t"])
def test_a_csv_has_a_row_a_frame(between: str, tmp_path: Path) -> None:
    lines = CSV.replace(";", "|").replace('"Pip climbs it, slowly."', "Pip climbs.").replace(",", between)
    (tmp_path / "stories.csv").write_bytes(lines.replace("\n", "\r\n").encode("utf-8-sig"))
    made = FolderStories(tmp_path)
    assert made.problems == []
    assert shown(made) == {
        "trip": (("art/a.png", "art/b.png"), ("A hill.", "Pip climbs.")),
        "storm": (("art/c.png", "art/d.png"), ("", "Rain.")),
    }
    assert made.characters == ("Lulu", "Pip")
    labels = {record.id: record.characters for split in made.splits for record in made.records(split)}
    assert labels == {"trip": ((0, 0), (1, 1)), "storm": ((1, 0), (1, 0))}
    assert made.annotation_files() == [tmp_path / "stories.csv"]


def test_a_csv_keeps_what_is_in_quotes(tmp_path: Path) -> None:
    made = FolderStories(table(tmp_path / "stories.csv", CSV.replace("A hill.", '"A hill,\nand ""Pip""."')))
    assert shown(made)["trip"][1] == ('A hill, and "Pip".', "Pip climbs it, slowly.")


def test_paths_written_on_windows_are_read(tmp_path: Path) -> None:
    made = FolderStories(table(tmp_path / "stories.csv", CSV.replace("art/", "art\\")))
    assert shown(made)["trip"][0] == ("art/a.png", "art/b.png")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("trip,1,a.png,A hill.\ntrip,2,b.png,Pip.", r"stories.csv:1: no column file: the first line names the columns"),
        ("story,frame,file\nx,1,a.png", r"stories.csv:1: no column caption: "),
        ("story,file,caption,text\nx,a.png,1,2", r"stories.csv:1: two columns hold the caption: keep one"),
        ("story,frame,file,caption\nx,1,a.png,Pip climbs, then falls.", r"stories.csv:2: 5 cells for 4 columns: put "),
        ("story,frame,file,caption\nx,1,a.png", r"stories.csv:2: 3 cells for 4 columns"),
        ('story,frame,file,caption\nx,1,a.png,"no end', r"stories.csv:2: not a csv: "),
        ("story,frame,file,caption\n,1,a.png,One.", r"stories.csv:2: its story is empty: "),
        ("story,file,caption\nTrip,1.png,One.\ntrip,2.png,Two.", r"'Trip' \(line 2\) and 'trip' \(line 3\) differ by"),
        ("file,caption\n1.png,One.\n2.png,Two.", r"stories.csv:2: its picture lies in no folder of a story"),
        ("file,caption\ntrain/1.png,One.", r"stories.csv:2: its picture lies in no folder of a story"),
        ("", r"stories.csv is empty"),
    ],
)
def test_a_table_whose_rows_cannot_be_told_apart_is_refused_with_its_line(
    lines: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        FolderStories(table(tmp_path / "stories.csv", lines))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "line", "what"),
    [
        ("x,1,a.png,1,\nx,3,b.png,2,", 3, "gap in numbering: 2 is missing"),
        ("x,1,a.png,1,\nx,01,b.png,2,", 3, "a frame twice: 1, as in line 2"),
        ("x,first,a.png,1,\nx,2,b.png,2,", 2, "frame: 'first' is no whole number"),
        ("x,1,a.png,1,\nx,2,b.png,,", 3, "no caption: the 2. of 2 is empty"),
        ("x,1,a.png,1,\nx,2,../b.png,2,", 3, "outside the root: '../b.png'"),
        ("x,1,a.png,1,\nx,2,C:\\b.png,2,", 3, "outside the root: 'C:\\\\b.png'"),
        ("x,1,a.png,1,\nx,2,,2,", 3, "outside the root: ''"),
        ("x,1,a.png,1,train\nx,2,b.png,2,test", 2, "two splits: train and test in one story"),
        ("x,1,a.png,1,train\nx,2,b.png,2,", 2, "two splits: train and None in one story"),
        ("x,1,a.png,1,dev\nx,2,b.png,2,dev", 2, "unknown split: 'dev' is none of train, val, test"),
        ("x,1,a.png,1,", 2, "short story: 1 frames"),
    ],
)
def test_a_story_of_bad_rows_is_left_out_and_named_by_the_line(
    lines: str, line: int, what: str, tmp_path: Path
) -> None:
    good = "good,1,c.png,1,\ngood,2,d.png,2,"
    made = FolderStories(table(tmp_path / "stories.csv", "story,frame,file,caption,split", lines, good))
    (problem,) = made.problems
    assert problem.where == f"stories.csv:{line}"
    assert problem.what.startswith(what) and problem.what.endswith(" (story x)")
    assert ids(made) == ["good"]


def test_a_column_that_is_not_read_is_named(tmp_path: Path) -> None:
    made = FolderStories(table(tmp_path / "stories.csv", CSV.replace("characters", "charcters")))
    (problem,) = made.problems
    assert problem.where == "stories.csv:1" and problem.what.startswith("unknown column: 'charcters' is not read")
    assert sorted(ids(made)) == ["storm", "trip"] and made.characters == ()


# ------------------------------------------------------------------------------------------------ imagefolder


def test_an_imagefolder_is_read_with_a_folder_a_story(tmp_path: Path) -> None:
    lines = [frame(f"{name}/{k}.jpg", f"{name} {k}") for k in (10, 9, 11) for name in ("trip", "storm")]
    made = FolderStories(table(tmp_path / "metadata.jsonl", *(line for line in lines if "9" not in line["text"])))
    assert made.problems == []
    assert shown(made) == {
        name: ((f"{name}/10.jpg", f"{name}/11.jpg"), (f"{name} 10", f"{name} 11")) for name in ("trip", "storm")
    }


def test_an_imagefolder_is_read_with_a_column_of_stories(tmp_path: Path) -> None:
    for split, folder in (("train", "train"), ("val", "validation")):
        lines = [frame(f"{k}.png", f"line {k}", story=f"{split} {k > 2}", width=8) for k in (4, 3, 2, 1)]
        table(tmp_path / folder / "metadata.jsonl", *lines)
    made = FolderStories(tmp_path)
    assert shown(made)["validation/val True"] == (("validation/3.png", "validation/4.png"), ("line 3", "line 4"))
    assert {split: len(made.records(split)) for split in made.splits} == {"train": 2, "val": 2}
    assert {problem.where for problem in made.problems} == {"train/metadata.jsonl:1", "validation/metadata.jsonl:1"}


def test_metadata_may_lie_in_the_storys_own_folder(tmp_path: Path) -> None:
    table(tmp_path / "a" / "metadata.jsonl", frame("2.png", "two"), frame("1.png", None))
    table(tmp_path / "b" / "metadata.csv", "file_name,text", "2.png,two", "1.png,one")
    for k in (1, 2):
        draw(tmp_path / "b" / f"{k}.png")
    made = FolderStories(tmp_path)
    assert made.problems == []
    assert shown(made) == {
        "a": (("a/1.png", "a/2.png"), ("", "two")),
        "b": (("b/1.png", "b/2.png"), ("one", "two")),
    }


@pytest.mark.parametrize(
    ("lines", "where", "what"),
    [
        ([frame("x/1.png", "1"), frame("x/3.png", "3")], 1, "gap in numbering: 2 is missing before 3.png"),
        ([frame("x/1.png", "1"), frame("x/2.png", "2"), frame("x/2.png", "2")], 3, "a frame twice: x/2.png"),
        ([frame("x/1.png", "1"), frame("x/2.png", 7)], 2, "caption: 7 is no text"),
        ([frame("x/1.png", "1"), {"file_name": ["x"], "text": "2"}], None, "lies in no folder of a story"),
        ([frame("x/1.png", "1", characters=["Pip"]), frame("x/2.png", "2")], 2, "no characters: other rows have"),
        ([frame("x/1.png", "1", characters=["Pip"]), frame("x/2.png", "2", characters=7)], 2, "characters: "),
        ([frame("../1.png", "1"), frame("../2.png", "2")], 1, "outside the root: '../1.png'"),
        (["{"], None, "metadata.jsonl:1: not JSON: "),
        (["[1]"], None, "metadata.jsonl:1: not a row: "),
    ],
)
def test_a_row_of_an_imagefolder_that_is_wrong_is_named(
    lines: list[Any], where: int | None, what: str, tmp_path: Path
) -> None:
    good = [frame(f"good/{k}.png", "a", **({"characters": []} if "characters" in str(lines) else {})) for k in (1, 2)]
    root = table(tmp_path / "metadata.jsonl", *lines, *good)
    if where is None:
        with pytest.raises(ValueError, match=what):
            FolderStories(root)
        return
    made = FolderStories(root)
    (problem,) = made.problems
    assert problem.where == f"metadata.jsonl:{where}" and problem.what.startswith(what), problem
    assert ids(made) == ["good"]


def test_a_row_that_is_wrong_is_named_behind_other_stories_too(tmp_path: Path) -> None:
    good = [frame(f"good/{k}.png", "a") for k in (1, 2)]
    made = FolderStories(table(tmp_path / "metadata.jsonl", *good, frame("x/1.png", "1"), frame("x/2.png", 7)))
    (problem,) = made.problems
    assert problem.where == "metadata.jsonl:4" and problem.what.startswith("caption: 7 is no text"), problem


def test_a_split_that_its_folder_contradicts_is_named(tmp_path: Path) -> None:
    def root(split: str) -> Path:
        lines = [frame(f"{k}.png", "a", story="x", split=split) for k in (1, 2)]
        return table(tmp_path / split / "train" / "metadata.jsonl", *lines).parent

    assert FolderStories(root("train")).splits == ("train",)
    with pytest.raises(ValueError, match=r"train/metadata.jsonl:1: two splits: test in the folder of train"):
        FolderStories(root("test"))


def test_a_picture_of_a_story_without_a_row_is_named(tmp_path: Path) -> None:
    root = table(tmp_path / "metadata.jsonl", *(frame(f"{name}/{k}.png", "a") for name in "xy" for k in (1, 2)))
    draw(root / "x" / "3.png")
    made = FolderStories(root)
    assert made.problems == [Problem("metadata.jsonl:1", "no row: 3.png is a picture of the story (story x)")]
    assert ids(made) == ["y"]


# ------------------------------------------------------------------------------------------------ pairs


def pairs(folder: Path, texts: dict[str, str | None]) -> None:
    for name, text in texts.items():
        draw(folder / f"{name}.png")
        if text is not None:
            (folder / f"{name}.txt").write_text(text)


def test_pictures_are_paired_with_the_texts_of_their_names(tmp_path: Path) -> None:
    pairs(tmp_path / "a", {"10": "ten", "9": "nine\n", "11": "eleven"} | {str(k): str(k) for k in range(1, 9)})
    pairs(tmp_path / "b", {"0": None, "1": "one"})
    made = FolderStories(tmp_path)
    assert made.problems == []
    assert shown(made)["a"][1] == (*map(str, range(1, 9)), "nine", "ten", "eleven")
    assert shown(made)["b"] == (("b/0.png", "b/1.png"), ("", "one"))
    assert len(made.annotation_files()) == 12


@pytest.mark.parametrize(
    ("texts", "more", "where", "what"),
    [
        ({"1": "one", "2": None, "3": "three"}, {}, "x/2.txt", "no caption: the 2. of 3 is empty"),
        ({"1": "one", "2": " "}, {}, "x/2.txt", "no caption: the 2. of 2 is empty"),
        ({"1": "one", "2": "a\nb"}, {}, "x/2.txt:2", "2 lines: a picture's text is its one caption"),
        ({"1": "one", "2": "two"}, {"3.txt": "three"}, "x/3.txt", "no picture of its name"),
        ({"1": "one", "2": "two"}, {"1.TXT": "other"}, "x/1.txt", "a text twice: 1.TXT and 1.txt"),
        ({"1": "one", "3": "three"}, {}, "x", "gap in numbering: 2 is missing before 3.png"),
        ({"1": "one", "2": "two"}, {"captions.txt": "1\n2"}, "x", "two lists of captions: captions.txt and 1.txt"),
        ({"1": "one", "2": "two"}, {"metadata.csv": "file,caption"}, "x", "two lists of captions: metadata.csv and"),
    ],
)
def test_pairs_that_leave_a_doubt_are_named(
    texts: dict[str, str | None], more: dict[str, str], where: str, what: str, tmp_path: Path
) -> None:
    pairs(tmp_path / "x", texts)
    for name, text in more.items():
        (tmp_path / "x" / name).write_text(text)
    story(tmp_path / "good", 2, ["", "one"])
    made = FolderStories(tmp_path)
    (problem,) = made.problems
    assert problem.where == where and problem.what.startswith(what), problem
    assert ids(made) == ["good"]


# ------------------------------------------------------------------------------------------------ several at once


def test_layouts_at_one_place_are_not_mixed_but_folders_may_differ(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"both stories.jsonl and stories.csv: keep one"):
        FolderStories(rows(table(tmp_path / "two" / "stories.csv", CSV), row("b")))
    pairs(tmp_path / "mixed" / "a", {"1": "one", "2": "two"})
    story(tmp_path / "mixed" / "b", 2, ["one", "two"])
    table(tmp_path / "mixed" / "c" / "metadata.jsonl", frame("1.png", "one"), frame("2.png", "two"))
    made = FolderStories(tmp_path / "mixed")
    assert {id: captions for id, (_, captions) in shown(made).items()} == dict.fromkeys("abc", ("one", "two"))


def test_names_of_a_table_that_differ_by_case_are_refused_with_their_lines(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'Lulu' \(stories.csv:2\) and 'lulu' \(stories.csv:5\) differ by case"):
        FolderStories(table(tmp_path / "stories.csv", CSV.replace("Rain.,Lulu", "Rain.,lulu").replace(",,Lulu", ",,")))
