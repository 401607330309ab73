"""flintstones-longstory: captions and characters of long stories, whatever form names and lists have."""

import json
from pathlib import Path
from typing import Any

import pytest

from storydalle.commands.inputs import read_captions
from storydalle.commands.main import main
from storydalle.stories.pictures import ClipError
from storydalle.stories.sets.longstory import CHARACTERS, LongStories, read_long_stories

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "flintstones-longstory"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/flintstones-longstory is absent")


def page(number: int, caption: str, every: list[str], known: list[str]) -> dict[str, Any]:
    lists = {"char_all_list": every, "char_kb_list": known, "objects_list": []}
    return {"page_id": number, "caption": caption, **lists, "description": "Fred. Fred is a man."}


PAGES = [
    page(1, "  Fred meets Mr. Slate.  ", ["Fred", "Mr. Slate"], ["Fred", "Slate"]),
    page(2, "Slate and the maid\twait.", ["Slate", "the maid"], ["Slate"]),
    page(3, "Yogi Bear and Boo-Boo\npop in.\u2028Ha!", [], []),
    page(4, "Pebbles and Dino join in.", ["Pebbles", "Dino", "Betty"], ["Betty"]),
    page(5, "Mr. Slate chuckles.", ["Mr. Slate"], []),
    page(6, "Wilma and Barney.", [], ["Wilma", "Barney", "Wilma"]),
]


def content(pages: list[dict[str, Any]]) -> dict[str, Any]:
    """Objects are a text in most files and a dictionary in the others."""
    return {
        "full_story": "Fred  meets\n\nMr. Slate.",
        "global_characters_dict": {"Fred": "Fred is a man."},
        "global_objects_dict": "a car",
        "captions_info": pages,
    }


def write(root: Path, name: str, written: Any) -> Path:
    (root / "stories").mkdir(parents=True, exist_ok=True)
    (root / "stories" / name).write_text(json.dumps(written), encoding="utf-8")
    return root


def test_a_story_is_its_pages(tmp_path: Path) -> None:
    (story,) = read_long_stories(write(tmp_path, "season 2_episode_53.json", content(PAGES)))
    assert (story.id, story.season, story.episode) == ("season_2_episode_53", 2, 53)
    assert story.summary == "Fred meets Mr. Slate."
    assert story.captions == (
        "Fred meets Mr. Slate.",
        "Slate and the maid wait.",
        "Yogi Bear and Boo-Boo pop in. Ha!",
        "Pebbles and Dino join in.",
        "Mr. Slate chuckles.",
        "Wilma and Barney.",
    )


def test_characters_are_those_of_either_list_by_seven_names(tmp_path: Path) -> None:
    (story,) = read_long_stories(write(tmp_path, "season 2_episode_53.json", content(PAGES)))
    named = [{name for name, shown in zip(CHARACTERS, row, strict=True) if shown} for row in story.characters]
    assert named == [
        {"Fred", "Slate"},
        {"Slate"},
        set(),
        {"Pebbles", "Dino", "Betty"},
        {"Slate"},
        {"Wilma", "Barney"},
    ]


def test_stories_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    names = [
        "season 1_episode_10.json",
        "season 1_episode 9.json",
        "season 2_episode_1.json",
        "season 1_episode_2.json",
    ]
    for name in names:
        write(tmp_path, name, content(PAGES[:1]))
    (tmp_path / "stories" / "._season 1_episode_2.json").write_bytes(b"\x00")
    assert [(story.season, story.episode) for story in read_long_stories(tmp_path)] == [(1, 2), (1, 9), (1, 10), (2, 1)]
    write(tmp_path, "season 1_episode_9.json", content(PAGES[:1]))
    with pytest.raises(ValueError, match="second file of season_1_episode_9"):
        read_long_stories(tmp_path)


def test_pages_follow_a_source_without_words(tmp_path: Path) -> None:
    made = LongStories(write(tmp_path, "season 2_episode_53.json", content(PAGES[:2])))
    (record,) = made.records("test")
    assert record.id == record.group == "season_2_episode_53"
    assert record.clips == tuple(f"season_2_episode_53/{page}" for page in range(3))
    assert record.captions == ("", "Fred meets Mr. Slate.", "Slate and the maid wait.")
    assert record.characters is not None and [sum(row) for row in record.characters] == [0, 2, 1]
    assert made.annotation_files() == [made.clip_file(record.clips[1])]
    with pytest.raises(ClipError, match=r"^missing: longstory is words only"):
        made.pictures(record.clips[1])
    with pytest.raises(ValueError, match="split train of longstory has no story"):
        made.records("train")


def test_prepare_counts_pages_and_writes_captions_that_can_be_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "long", "season 2_episode_53.json", content(PAGES))
    _, story = read_long_stories(write(root, "season 1_episode_9.json", content(PAGES[:3])))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["storydalle"])
    assert main(["prepare", "data=longstory", f"data.root={root}"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("longstory: 2 of 2 stories can be used, each a source and 3 to 6 targets\n")
    assert "the copy holds 9 pages" in said
    assert "picture" not in said.replace("which have no pictures", "")
    assert not Path("prepared/longstory/contact_sheet.png").exists()
    files = Path("prepared/longstory/captions")
    assert read_captions(str(files / "season_2_episode_53.txt")) == list(story.captions)
    (root / "stories" / "season 1_episode_9.json").unlink()
    assert main(["prepare", "data=longstory", f"data.root={root}"]) == 0
    assert [path.name for path in files.iterdir()] == ["season_2_episode_53.txt"]


@pytest.mark.parametrize(
    ("name", "written", "named"),
    [
        ("season 1_episode_x.json", content(PAGES), "its name is not season"),
        ("season 1_episode_2.json", content(PAGES[1:]), r"its pages are \[2, 3, 4, 5, 6\]"),
        ("season 1_episode_2.json", content([]), r"its pages are \[\]"),
        ("season 1_episode_2.json", content([page(1, " ", [], [])]), "page 1 has no caption"),
        (
            "season 1_episode_2.json",
            content([PAGES[0] | {"char_kb_list": "Fred"}]),
            "char_kb_list of page 1",
        ),
        ("season 1_episode_2.json", {"captions_info": PAGES}, "it lacks 'full_story'"),
        ("season 1_episode_2.json", [PAGES], "season 1_episode_2.json is no story of flintstones-longstory"),
    ],
)
def test_files_of_another_form_are_refused(name: str, written: Any, named: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=named):
        read_long_stories(write(tmp_path, name, written))


def test_a_wrong_root_is_told_where_the_stories_are(tmp_path: Path) -> None:
    root = write(tmp_path / "long", "season 1_episode_2.json", content(PAGES))
    for wrong in (tmp_path, root / "stories"):
        with pytest.raises(ValueError, match=f"give data.root={root}"):
            read_long_stories(wrong)


@needs_real
@pytest.mark.data
def test_the_real_stories_have_the_counts_of_their_authors() -> None:
    stories = read_long_stories(REAL)
    assert len({story.id for story in stories}) == len(stories) == 166
    assert [story.episode for story in stories] == list(range(1, 167))
    lengths = [len(story.captions) for story in stories]
    assert (sum(lengths), min(lengths), max(lengths)) == (1931, 7, 14)
    assert all(caption == " ".join(caption.split()) != "" for story in stories for caption in story.captions)
    shown = [sum(row[i] for story in stories for row in story.characters) for i in range(len(CHARACTERS))]
    assert dict(zip(CHARACTERS, shown, strict=True)) == {
        "Wilma": 659,
        "Fred": 1450,
        "Betty": 419,
        "Barney": 793,
        "Dino": 435,
        "Pebbles": 476,
        "Slate": 93,
    }
    records = LongStories(REAL).records("test")
    assert [record.captions[1:] for record in records] == [story.captions for story in stories]


@pytest.mark.parametrize("command", [["evaluate"], ["train", "experiment=toon/story_dalle"]])
def test_words_alone_are_neither_trained_on_nor_scored(command: list[str], capsys: pytest.CaptureFixture) -> None:
    assert main([*command, "data=longstory", "data.root=anywhere"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1
    assert "a data set without pictures can only be prepared, and drawn with generate" in said
