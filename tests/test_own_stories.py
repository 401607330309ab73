"""Nothing is guessed: numbers, counts, labels and names that can be read in two ways are named with file and line."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.utils import instantiate
from PIL import Image

from storydalle.commands.application import compose
from storydalle.stories.own_story import RefusedStory, in_order, spelled_twice
from storydalle.stories.pictures import ClipError
from storydalle.stories.set_stories import SetStories
from storydalle.stories.sets.folder import FolderStories
from storydalle.stories.story_set import Problem
from tests.test_folder import draw, ids, row, rows, story


def told(root: Path, names: Sequence[str], captions: Sequence[str]) -> list[Problem]:
    """The problems of a story of these pictures, which lies beside a good one and is left out if it has any."""
    story(root / "good", 2, ["", "one"])
    for name in names:
        draw(root / "story" / name)
    (root / "story" / "captions.txt").write_text("\n".join(captions), encoding="utf-8")
    made = FolderStories(root)
    assert sorted(ids(made)) == (["good"] if made.problems else ["good", "story"])
    return made.problems


# ------------------------------------------------------------------------------------------------ numbering


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["0.png", "1.png", "3.png", "4.png"], "gap in numbering: 2 is missing before 3.png"),
        (["1.png", "2.png", "7.png", "8.png"], "gap in numbering: 3 to 6 are missing before 7.png"),
        (["2.png", "3.png", "4.png", "5.png"], "gap in numbering: 1 is missing before 2.png"),
        (["page 1.png", "page 2.png", "page 4.png"], "gap in numbering: 3 is missing before page 4.png"),
        (["IMG_2034.jpg", "IMG_2036.jpg"], "gap in numbering: 2035 is missing before IMG_2036.jpg"),
        (["1.png", "01.png", "2.png"], "a frame twice: 01.png and 1.png"),
        (["1.png", "1.jpg", "2.png"], "a frame twice: 1.jpg and 1.png"),
        (["1.png", "2.png", "2 (1).png"], "a frame twice: 2 (1).png and 2.png"),
        (["2.png", "2.PNG", "3.png"], "a frame twice: 2.PNG and 2.png"),
        (["begin.png", "end.png"], "no number: begin.png; frames are in the order of the numbers in their names"),
        (["1.png", "2.png", "end.png"], "no number: end.png; frames are in the order of the numbers in their names"),
        (["1-2.png", "2-1.png"], "two orders: 1-2.png, 2-1.png or 2-1.png, 1-2.png; keep one number in their names"),
    ],
)
def test_a_numbering_that_is_not_one_row_is_named_and_nothing_is_paired(
    names: list[str], what: str, tmp_path: Path
) -> None:
    captions = ["source", *(f"caption {k}" for k in range(1, len(names)))]
    assert told(tmp_path, names, captions) == [Problem("story/captions.txt", what)]


@pytest.mark.parametrize(
    "names",
    [
        [f"{k}.png" for k in range(12)],
        [f"{k:02}.JPG" for k in range(1, 12)],
        ["1 hill.png", "2 storm 9.webp", *(f"{k}.bmp" for k in range(3, 10)), "10 end.PNG"],
        [f"IMG_{k}.jpeg" for k in range(2034, 2046)],
        [f"book2-page{k}.png" for k in range(1, 12)],
        ["01_scene12.png", "02_scene7.png", "03_scene9.png"],
    ],
)
def test_the_number_that_counts_orders_pictures(names: list[str], tmp_path: Path) -> None:
    assert in_order(sorted(names)) == names
    assert told(tmp_path, names, ["", *(f"caption {k}" for k in range(1, len(names)))]) == []


def test_a_picture_that_is_a_link_to_nowhere_is_a_picture(tmp_path: Path) -> None:
    """Left aside in silence, it would move every caption after it by one."""
    for name in ("1.png", "3.png"):
        draw(tmp_path / "a" / name)
    (tmp_path / "a" / "2.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "a" / "captions.txt").write_text("one\ntwo\nthree\n")
    made = FolderStories(tmp_path)
    (record,) = made.records(made.splits[0])
    assert dict(zip(record.clips, record.captions, strict=True))["a/3.png"] == "three"


def test_an_animation_is_no_frame(tmp_path: Path) -> None:
    made = FolderStories(rows(tmp_path, row("a") | {"frames": ["still.gif", "moving.gif", "c.png"]}))
    pictures = [Image.new("L", (8, 8), shade) for shade in (0, 200)]
    pictures[0].save(tmp_path / "still.gif")
    pictures[0].save(tmp_path / "moving.gif", save_all=True, append_images=pictures[1:])
    assert len(made.pictures("still.gif")) == 1
    with pytest.raises(ClipError, match="unsupported: an animation"):
        made.pictures("moving.gif")


# ------------------------------------------------------------------------------------------------ counts


@pytest.mark.parametrize("captions", [["1", "2", "3", "4"], ["one"], ["", "two", "three", "four"]])
def test_one_caption_less_than_pictures_has_two_readings(captions: list[str], tmp_path: Path) -> None:
    """Perhaps the source has none, perhaps one was forgotten: then each would stand with its neighbour's picture."""
    num_pictures = len(captions) + 1
    (problem,) = told(tmp_path, [f"{k}.png" for k in range(1, num_pictures + 1)], captions)
    assert problem.where == "story/captions.txt:1"
    assert problem.what.startswith(f"two readings: {len(captions)} captions for {num_pictures} frames; add the one")


@pytest.mark.parametrize(
    ("captions", "where", "what"),
    [
        (["1", "", "2", "", "3"], "story/captions.txt", "wrong number of captions: 5 for 3 frames"),
        (["1", "", "3"], "story/captions.txt:2", "no caption: the 2. of 3 is empty"),
        (["1", "\u200b", "3"], "story/captions.txt:2", "no caption: the 2. of 3 is empty"),
        (["caption", "1", "2", "3"], "story/captions.txt", "wrong number of captions: 4 for 3 frames"),
        (["", "", "1", "2"], "story/captions.txt", "wrong number of captions: 4 for 3 frames"),
        (["1\n2", "3", "4"], "story/captions.txt", "wrong number of captions: 4 for 3 frames"),
    ],
)
def test_lines_that_are_not_one_a_picture_are_named(captions: list[str], where: str, what: str, tmp_path: Path) -> None:
    (problem,) = told(tmp_path, ["1.png", "2.png", "3.png"], captions)
    assert problem.where == where and problem.what.startswith(what)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_are_read_in_every_encoding_and_ending(encoding: str, end: str, tmp_path: Path) -> None:
    folder = story(tmp_path / "a", 3, ["", "", ""])
    (folder / "captions.txt").write_bytes(end.join(["", "Zoë waves.\u2028Twice.", "Ünder"]).encode(encoding))
    made = FolderStories(tmp_path)
    assert made.records(made.splits[0])[0].captions == ("", "Zoë waves. Twice.", "Ünder")


def test_rows_with_one_caption_less_than_frames_have_two_readings(tmp_path: Path) -> None:
    made = FolderStories(rows(tmp_path, row("good"), row("x") | {"captions": ["1", "2"]}))
    (problem,) = made.problems
    assert problem.where == "stories.jsonl:2" and problem.what.startswith("two readings: 2 captions for 3 frames")
    assert ids(made) == ["good"]


# ------------------------------------------------------------------------------------------------ labels


@pytest.mark.parametrize("has_first", [True, False])
def test_rows_with_and_without_characters_do_not_mix_in_any_order(has_first: bool, tmp_path: Path) -> None:
    both = [row("labelled", characters=[["Pip"], [], []]), row("bare")]
    made = FolderStories(rows(tmp_path, *(both if has_first else both[::-1])))
    what = "no characters: other rows have them, so every row needs them"
    assert made.problems == [Problem(f"stories.jsonl:{2 if has_first else 1}", what)]
    assert ids(made) == ["labelled"]


@pytest.mark.parametrize(("name", "other"), [("Wolf", "wolf"), ("Red Wolf", "RedWolf"), ("Zoë", "Zoe\u0308")])
def test_names_that_differ_by_case_or_spaces_only_are_refused_with_their_lines(
    name: str, other: str, tmp_path: Path
) -> None:
    first, second = (row(id, 2, characters=[[], [each]]) for id, each in (("a", name), ("b", other)))
    with pytest.raises(ValueError, match="differ by case or spaces only: write one of them") as caught:
        FolderStories(rows(tmp_path, first, row("c", 2, characters=[["Pip"], []]), second))
    assert f"{name!r} (stories.jsonl:1) and {other!r} (stories.jsonl:3)" in str(caught.value)


def test_names_that_differ_by_letters_are_apart() -> None:
    assert spelled_twice([("Wolf", "1"), ("Wolfie", "2"), ("Wolf", "3")]) is None


def test_a_key_that_is_not_read_is_named(tmp_path: Path) -> None:
    made = FolderStories(rows(tmp_path, row("a"), row("b", caracters=[["Pip"], [], []])))
    (problem,) = made.problems
    assert problem.where == "stories.jsonl:2" and problem.what.startswith("unknown key: 'caracters' is not read")
    assert sorted(ids(made)) == ["a", "b"]


# ------------------------------------------------------------------------------------------------ folders


def test_what_lies_beside_stories_and_in_them_is_named(tmp_path: Path) -> None:
    story(tmp_path / "a", 2, ["", "one"])
    draw(tmp_path / "a" / "more" / "3.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    story(tmp_path / "shelf" / "b", 2, ["", "one"])
    draw(tmp_path / "loose.png")
    (tmp_path / "README.md").write_text("mine")
    made = FolderStories(tmp_path)
    nothing = "no story: neither pictures nor captions lie in it"
    assert set(made.problems) == {
        Problem("a/more", "a folder in a story: nothing in it is read"),
        Problem("empty", nothing),
        Problem("shelf", f"{nothing} (only train, val and test may hold stories)"),
        Problem("loose.png", "in no story: put it into a story's folder"),
    }
    assert ids(made) == ["a"]


def test_a_folder_of_stories_beside_the_splits_is_named(tmp_path: Path) -> None:
    for name in ("train/a", "validation/a", "Test/a"):
        story(tmp_path / name, 2, ["", "one"])
    made = FolderStories(tmp_path)
    assert {split: [record.id for record in made.records(split)] for split in made.splits} == {
        "train": ["train/a"],
        "val": ["validation/a"],
    }
    assert made.problems == [Problem("Test", "no split: it lies beside train, validation")]


def test_a_table_beside_split_folders_is_refused(tmp_path: Path) -> None:
    story(tmp_path / "train" / "a", 2, ["", "one"])
    with pytest.raises(ValueError, match=r"both stories.jsonl and a folder train: keep one"):
        FolderStories(rows(tmp_path, row("b")))


# ------------------------------------------------------------------------------------------------ splits


def test_an_automatic_split_that_leaves_a_part_empty_is_said_with_the_remedy(tmp_path: Path) -> None:
    made = FolderStories(rows(tmp_path / "few", *(row(name) for name in ("e", "f", "i"))))
    (note,) = made.notes
    assert note.startswith("the automatic split of 3 stories leaves val and test empty: put stories into folders train")
    assert "\n" not in note
    for has_all in (
        rows(tmp_path / "many", *(row(str(k)) for k in range(60))),
        rows(tmp_path / "given", *(row(name, split="train") for name in "ef")),
    ):
        assert FolderStories(has_all).notes == []


def test_what_is_left_out_is_said_wherever_the_stories_are_used(tmp_path: Path) -> None:
    rows(tmp_path, *(row(f"s{k}") for k in range(60)), row("x") | {"captions": ["1", "2"]}, {})
    (note,) = SetStories(FolderStories(tmp_path), "train", 8).notes
    assert note.startswith(f"2 problems in data.root={tmp_path}, which prepare names; the first: stories.jsonl:61: two")


def test_training_looks_at_train_where_val_has_no_story_and_says_so(tmp_path: Path) -> None:
    rows(tmp_path, *(row(name) for name in ("e", "f", "i")))
    config = compose("train", ["experiment=toon/story_dalle", "data=folder", f"data.root={tmp_path}"])
    val = instantiate(config.data.val)
    assert [record.id for record in val.records] == ["e", "f", "i"]
    assert [note.partition(":")[0] for note in val.notes] == [
        "the automatic split of 3 stories leaves val and test empty",
        "val is empty",
    ]
    with pytest.raises(ValueError, match="no split 'dev'"):
        SetStories(FolderStories(tmp_path), "dev", 8, instead="train")


def test_stories_stay_in_their_split_when_others_come(tmp_path: Path) -> None:
    def split_of(made: FolderStories) -> dict[str, str]:
        return {record.id: split for split in made.splits for record in made.records(split)}

    before = split_of(FolderStories(rows(tmp_path / "before", *(row(f"s{k}") for k in range(0, 60, 2)))))
    after = split_of(FolderStories(rows(tmp_path / "after", *(row(f"s{k}") for k in range(60)))))
    assert set(before.values()) == {"train", "val", "test"}
    assert {id: after[id] for id in before} == before


def test_no_number_in_a_name_is_said() -> None:
    assert in_order([]) == []
    with pytest.raises(RefusedStory, match=r"no number: a\.png"):
        in_order(["a.png"])
