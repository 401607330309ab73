"""openstory: windows of pages, splits by group, strips left out; on a small pack and on the real one."""

import json
import math
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from PIL import Image

from storydalle.commands.application import compose
from storydalle.stories.inspection import inspect
from storydalle.stories.pictures import ClipError
from storydalle.stories.sets.openstory import OpenStory, split_of
from storydalle.stories.statistics import in_several_stories, repeated_frames
from storydalle.stories.story_set import Problem

REAL = Path(__file__).parent.parent.parent / "shared" / "data" / "openstory-256"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data/openstory-256 is absent")

SIZE = (32, 24)
PAGES = {
    "asp/0019": 4,
    "asp/0142": 3,
    "asp/0202": 6,
    "asp/0277": 4,
    "bookdash/bathtub-safari": 5,
    "bookdash/maddy-moona": 3,
}
SIZES = {("asp/0202", 2): (20, 80), ("asp/0202", 6): (15, 15)}
EMPTY = {("bookdash/bathtub-safari", 1), ("bookdash/bathtub-safari", 5)}
GROUPS = [["asp/0019"], ["asp/0142", "asp/0277"], ["asp/0202"], ["bookdash/bathtub-safari"], ["bookdash/maddy-moona"]]


def row_of(story: str, num_pages: int) -> dict[str, Any]:
    asp = story.startswith("asp")
    pages = [
        {
            "image": f"images/{story.replace('/', '_')}/{k:02}.jpg",
            "size": list(SIZES.get((story, k), SIZE)),
            "narration": "" if (story, k) in EMPTY else f"{story}  said\n{k}.",
            "description": "" if asp else f"{story} shows {k}.",
        }
        for k in range(1, num_pages + 1)
    ]
    license = "CC-BY (African Storybook)" if asp else "CC-BY-4.0"
    row = {"story_id": story, "title": f"The {story}", "source": "a@1", "license": license, "creator": "A, B"}
    return {**row, "pages": pages}


def rows() -> list[dict[str, Any]]:
    return [row_of(story, num_pages) for story, num_pages in PAGES.items()]


def write(root: Path, rows: list[dict[str, Any]], groups: Any = GROUPS) -> Path:
    for row in rows:
        for k, page in enumerate(row["pages"], start=1):
            file = root / page["image"]
            file.parent.mkdir(parents=True, exist_ok=True)
            grey = 30 * list(PAGES).index(row["story_id"]) + 5 * k
            Image.new("RGB", tuple(page["size"]), (grey, grey, grey)).save(file)
    (root / "stories.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (root / "groups.json").write_text(json.dumps(groups), encoding="utf-8")
    return root


def opened(root: Path, **options: Any) -> OpenStory:
    return OpenStory(root, **{"num_targets": 2, "min_side": 16, **options})


def ids(made: OpenStory, split: str) -> list[str]:
    return [record.id for record in made.records(split)]


def test_windows_of_consecutive_pages_without_strips(tmp_path: Path) -> None:
    made = opened(write(tmp_path, rows()))
    bathtub = [f"bookdash/bathtub-safari#{k}" for k in (1, 2, 3)]
    assert ids(made, "train") == ["asp/0019#1", "asp/0019#2", "asp/0202#3", *bathtub]
    assert ids(made, "val") == ["asp/0142#1", "asp/0277#1", "asp/0277#2"]
    assert ids(made, "test") == ["bookdash/maddy-moona#1"]
    record = made.records("train")[2]
    assert record.clips == tuple(f"images/asp_0202/0{k}.jpg" for k in (3, 4, 5))
    assert record.captions == ("asp/0202 said 3.", "asp/0202 said 4.", "asp/0202 said 5.")
    assert made.problems == [
        Problem("asp/0202#1", "degenerate frame: images/asp_0202/02.jpg has 20x80 pixels"),
        Problem("asp/0202#2", "degenerate frame: images/asp_0202/02.jpg has 20x80 pixels"),
        Problem("asp/0202#4", "degenerate frame: images/asp_0202/06.jpg has 15x15 pixels"),
        Problem("stories.jsonl", "empty text: a target of 1 of 10 windows has no narration; kept"),
    ]


def test_the_rule_for_strips_has_two_limits(tmp_path: Path) -> None:
    root = write(tmp_path, rows())
    assert ids(opened(root, max_ratio=None), "train")[2:5] == ["asp/0202#1", "asp/0202#2", "asp/0202#3"]
    assert ids(opened(root, max_ratio=4.0), "train")[2:5] == ["asp/0202#1", "asp/0202#2", "asp/0202#3"]
    assert ids(opened(root, min_side=15), "train")[2:4] == ["asp/0202#3", "asp/0202#4"]


def test_a_stride_skips_starts_and_a_story_too_short_is_named(tmp_path: Path) -> None:
    made = opened(write(tmp_path, rows()), num_targets=3, stride=2, max_ratio=None, min_side=1)
    assert ids(made, "train") == ["asp/0019#1", "asp/0202#1", "asp/0202#3", "bookdash/bathtub-safari#1"]
    assert Problem("asp/0142", "short story: 3 pages, a window has 4") in made.problems
    with pytest.raises(ValueError, match=r"split test of openstory has no story"):
        made.records("test")


def test_a_target_without_words_is_counted_and_dropped_on_demand(tmp_path: Path) -> None:
    """Page 1 has no words either, but is only ever a source."""
    root = write(tmp_path, rows())
    kept, dropped = opened(root), opened(root, drop_empty=True)
    assert (kept.num_empty, dropped.num_empty) == (1, 1)
    assert set(ids(kept, "train")) - set(ids(dropped, "train")) == {"bookdash/bathtub-safari#3"}
    what = "empty text: images/bookdash_bathtub-safari/05.jpg has no narration"
    assert dropped.problems[-1] == Problem("bookdash/bathtub-safari#3", what)
    assert dropped.records("train")[3].captions[0] == ""


def test_descriptions_are_empty_where_the_source_has_none(tmp_path: Path) -> None:
    made = opened(write(tmp_path, rows()), text="description", drop_empty=True)
    assert ids(made, "train") == [f"bookdash/bathtub-safari#{k}" for k in (1, 2, 3)]
    assert made.records("test")[0].captions[1] == "bookdash/maddy-moona shows 2."
    assert made.num_empty == 6
    with pytest.raises(ValueError, match=r"split val of .* has no story"):
        made.records("val")


def test_a_group_is_in_one_split_though_its_stories_alone_would_not_be(tmp_path: Path) -> None:
    assert (split_of("asp/0142"), split_of("asp/0277")) == ("val", "train")
    made = opened(write(tmp_path, rows()))
    assert {record.group for record in made.records("val")} == {"asp/0142"}
    assert {record.id.partition("#")[0] for record in made.records("val")} == {"asp/0142", "asp/0277"}


def test_every_story_can_be_credited(tmp_path: Path) -> None:
    made = opened(write(tmp_path, rows()))
    assert set(made.attributions) == set(PAGES)
    credit = made.attribution(made.records("test")[0])
    assert credit == ("The bookdash/maddy-moona", "A, B", "CC-BY-4.0", "a@1")
    assert str(credit) == '"The bookdash/maddy-moona" by A, B; a@1; CC-BY-4.0; images resized and re-encoded'
    assert made.credit(made.records("test")[0]) == str(credit)


def test_the_contents_count_what_is_there_before_windows_are_left_out(tmp_path: Path) -> None:
    root = write(tmp_path, rows())
    assert opened(root).contents() == {
        "books": 6,
        "pages": 25,
        "groups of books that share pictures or a title": 5,
        "windows of 1 + 2 pages": 2 + 1 + 4 + 2 + 3 + 1,
    }
    assert opened(root, num_targets=3, stride=2).contents()["windows of 1 + 3 pages"] == 1 + 0 + 2 + 1 + 1 + 0


def test_pictures_keep_their_size_and_damaged_ones_are_named(tmp_path: Path) -> None:
    made = opened(write(tmp_path, rows()))
    (strip,) = made.pictures("images/asp_0202/02.jpg")
    assert (strip.size, strip.mode) == ((20, 80), "RGB")
    Image.new("L", SIZE).save(tmp_path / "images/asp_0019/01.jpg")
    assert made.pictures("images/asp_0019/01.jpg")[0].mode == "RGB"
    Image.new("RGB", (1, 1)).save(tmp_path / "images/asp_0019/02.jpg")
    (tmp_path / "images/asp_0019/03.jpg").unlink()
    for page, what in ((2, "^wrong shape: 1x1 pixels, not 32x24$"), (3, "^missing$")):
        with pytest.raises(ClipError, match=what):
            made.pictures(f"images/asp_0019/0{page}.jpg")


def test_stories_and_groups_that_do_not_know_each_other_are_named(tmp_path: Path) -> None:
    groups = [["asp/0019", "asp/9999"], *GROUPS[2:]]
    made = opened(write(tmp_path, [*rows(), row_of("asp/0019", 3)], groups))
    assert made.problems[:4] == [
        Problem("stories.jsonl:7", "duplicate story: asp/0019"),
        Problem("groups.json", "unknown story: asp/9999 is not in stories.jsonl"),
        Problem("asp/0142", "no group: groups.json does not name it"),
        Problem("asp/0202#1", "degenerate frame: images/asp_0202/02.jpg has 20x80 pixels"),
    ]
    assert ids(made, "train")[:2] == ["asp/0019#1", "asp/0019#2"]


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        (without(row_of("asp/0001", 3), "license"), "stories.jsonl, line 7 lacks 'license'"),
        (row_of("asp/0001", 3) | {"title": 3}, "line 7 is no story: 3 is no text"),
        (row_of("asp/0001", 3) | {"pages": [{"image": "../x.jpg", "size": [9, 9]}]}, "../x.jpg leaves the folder"),
        (row_of("asp/0001", 3) | {"pages": [{"image": "x.jpg", "size": [9]}]}, "line 7 is no story"),
        (["asp/0001"], "line 7 is no story"),
    ],
)
def test_rows_of_another_form_are_refused(bad: Any, named: str, tmp_path: Path) -> None:
    write(tmp_path, rows())
    with (tmp_path / "stories.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(bad))
    with pytest.raises(ValueError, match=named):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("groups.json", b"[[", "groups.json is not JSON"),
        ("groups.json", b'["asp/0019"]', "is no list of lists of story ids"),
        ("groups.json", b'[["asp/0019"], ["asp/0019"]]', "names asp/0019 twice"),
        ("stories.jsonl", "Zoë".encode("latin1"), r"stories.jsonl is not in UTF-8 \(byte 2\)"),
        ("stories.jsonl", b"\n\n", "holds no story"),
    ],
)
def test_annotation_files_of_another_form_are_refused(name: str, content: bytes, named: str, tmp_path: Path) -> None:
    write(tmp_path, rows())
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=named):
        opened(tmp_path)


def test_a_wrong_root_is_told_where_the_pack_is(tmp_path: Path) -> None:
    root = write(tmp_path / "pack", rows())
    for wrong in (tmp_path, root / "images"):
        with pytest.raises(ValueError, match=f"give data.root={root}"):
            opened(wrong)
    (root / "stories.jsonl").unlink()
    with pytest.raises(ValueError, match=r"stories.jsonl is missing"):
        opened(root)


@pytest.mark.parametrize("options", [{"num_targets": 0}, {"stride": 0}, {"text": "both"}, {"max_ratio": 0.5}])
def test_settings_out_of_bounds_are_refused(options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}={next(iter(options.values()))}"):
        opened(write(tmp_path, rows()), **options)


def test_the_config_opens_the_set(tmp_path: Path) -> None:
    root = write(tmp_path, rows())
    settings = [f"data.root={root}", "data.num_targets=2", "data.set.min_side=16", "data.set.max_ratio=null"]
    made = instantiate(compose("prepare", ["data=openstory", *settings]).data.set)
    assert len(made.records("train")) == 8


# ------------------------------------------------------------------------------------------------ the real pack


def windows(made: OpenStory) -> list[Any]:
    return [record for split in made.splits for record in made.records(split)]


@needs_real
@pytest.mark.data
def test_the_pack_has_the_counts_of_its_authors() -> None:
    made = OpenStory(REAL, max_ratio=None, min_side=1)
    assert len(made.attributions) == 156
    assert [*made.contents().values()] == [156, 1811, 118, 1187]
    assert len(windows(made)) == 1187
    assert len(windows(OpenStory(REAL, num_targets=2, max_ratio=math.inf, min_side=1))) == 1499
    assert [len(made.records(split)) for split in made.splits] == [971, 98, 118]
    groups = {split: {record.group for record in made.records(split)} for split in made.splits}
    assert sum(map(len, groups.values())) == len(set().union(*groups.values())) == 118
    assert Counter(credit.license for credit in made.attributions.values()) == {
        "CC-BY (African Storybook)": 118,
        "CC-BY-4.0": 38,
    }


@needs_real
@pytest.mark.data
def test_the_pack_repeats_and_shares_pictures_but_never_across_splits(tmp_path: Path) -> None:
    made = OpenStory(REAL, max_ratio=None, min_side=1)
    facts = inspect(made, {clip for record in windows(made) for clip in record.clips}, tmp_path)
    assert (len(facts), len({each.sha256 for each in facts.values()})) == (1811, 1708)
    pairs = {"asp_0019": [13], "asp_0070": [3, 7, 10, 14], "asp_0175": [4], "asp_0295": [1]}
    expected = {(f"images/{at}/{k:02}.jpg", f"images/{at}/{k + 1:02}.jpg") for at in pairs for k in pairs[at]}
    assert len(expected) == 7
    assert set(repeated_frames(windows(made), facts)) == expected
    shared = in_several_stories(windows(made), facts)
    assert len(shared) == 71
    split_of_clip = {clip: split for split in made.splits for record in made.records(split) for clip in record.clips}
    assert all(split_of_clip[a] == split_of_clip[b] for clips in shared for a, b in pairwise(clips))


@needs_real
@pytest.mark.data
def test_four_strips_of_the_pack_are_left_out_by_default() -> None:
    made = OpenStory(REAL)
    strips = {problem.what for problem in made.problems if problem.what.startswith("degenerate frame")}
    assert strips == {
        "degenerate frame: images/asp_0026/09.jpg has 772x96 pixels",
        "degenerate frame: images/asp_0133/03.jpg has 772x195 pixels",
        "degenerate frame: images/asp_0133/10.jpg has 772x179 pixels",
        "degenerate frame: images/asp_0202/13.jpg has 133x546 pixels",
    }
    assert len(windows(made)) == 1175
    assert made.num_empty == 17
    record = made.records("test")[0]
    assert [made.pictures(clip)[0].mode for clip in record.clips] == ["RGB"] * 5


@needs_real
@pytest.mark.data
def test_descriptions_of_the_pack_are_those_of_book_dash() -> None:
    made = OpenStory(REAL, text="description", drop_empty=True)
    assert {made.attribution(record).license for record in windows(made)} == {"CC-BY-4.0"}
    assert len({record.group for record in windows(made)}) == 38
