"""Numbers of a story set against those counted by hand."""

from storydalle.stories.inspection import ClipFacts
from storydalle.stories.statistics import (
    Leak,
    caption_statistics,
    character_counts,
    in_several_stories,
    leaks,
    look_alikes,
    problem_kinds,
    repeated_frames,
    repeated_sources,
    same_bytes,
    usable,
    whole_story,
)
from storydalle.stories.story_set import Problem
from tests.toy_set import story

PLAIN = "0" * 16


def facts_of(**contents: str) -> dict[str, ClipFacts]:
    """Clips by "bytes looks ...": their hash, and that of each frame."""
    facts = {}
    for clip, content in contents.items():
        digest, *looks = content.split()
        facts[clip] = ClipFacts(clip, clip, 1, 1, False, digest, len(looks), 8, 8, tuple(looks), None)
    return facts


def test_problems_are_counted_by_what_stands_before_the_colon() -> None:
    problems = [
        Problem("a", "no caption: of x"),
        Problem("b", "missing"),
        Problem("c", "no caption: of y: z"),
        Problem("d", "corrupt: odd"),
    ]
    assert list(problem_kinds(problems).items()) == [("no caption", 2), ("corrupt", 1), ("missing", 1)]


def test_a_story_with_any_bad_clip_cannot_be_used() -> None:
    stories = [story("s", "a b c"), story("t", "c d e"), story("u", "e f g")]
    assert [record.id for record in usable(stories, ["c", "x"])] == ["u"]


def test_a_window_belongs_to_its_whole_story_and_another_story_to_its_group() -> None:
    ids = ("asp/0019#12", "no window", "a #1 hit", "a#b#3")
    wholes = [whole_story(story(id, "a b", group="its group")) for id in ids]
    assert wholes == ["asp/0019", "its group", "its group", "a#b"]


# ------------------------------------------------------------------------------------------------ pictures

TWICE = facts_of(a="X 1", b="X 1", c="Y 1 2", d="Z 2", e=f"V {PLAIN}", f=f"W {PLAIN}", g="U 3 3")


def test_the_same_bytes_and_the_same_look_are_two_things() -> None:
    assert same_bytes(TWICE) == [("a", "b")]
    assert look_alikes(TWICE) == [("a", "b", "c"), ("c", "d")]
    assert look_alikes({clip: TWICE[clip] for clip in "abg"}) == []


def test_plain_pictures_do_not_look_alike() -> None:
    assert look_alikes({clip: TWICE[clip] for clip in "ef"}) == []


def test_windows_of_one_story_may_share_pictures() -> None:
    books = [story("one#1", "a b c"), story("one#2", "b c d"), story("two#1", "g d")]
    assert in_several_stories(books[:2], TWICE) == []
    assert in_several_stories(books, TWICE) == [("d",)]
    assert in_several_stories([story("one#1", "a c"), story("two#1", "g b")], TWICE) == [("a", "b")]


def test_a_frame_like_the_one_before_counts_once_however_many_windows_show_it() -> None:
    windows = [story("one#1", "g a b c"), story("one#2", "a b c g"), story("other", "b c a")]
    assert repeated_frames(windows, TWICE) == [("a", "b")]
    assert repeated_frames([story("same", "d d d")], TWICE) == [("d", "d")]


def test_a_source_that_any_target_repeats_is_told_with_that_target() -> None:
    stories = [story("next", "a b c"), story("later", "a c b b"), story("never", "c a b"), story("unread", "x x")]
    assert repeated_sources(stories, TWICE) == [("next", "b"), ("later", "b")]


# ------------------------------------------------------------------------------------------------ leaks


def kinds(found: list[Leak]) -> dict[str, tuple[int, int]]:
    return {leak.kind: (leak.number, leak.total) for leak in found}


def test_splits_that_share_nothing_have_no_leak() -> None:
    facts = facts_of(a="A 1", b="B 2", c="C 3", d="D 4")
    assert leaks({"train": [story("s", "a b")], "test": [story("t", "c d")]}, facts) == []


def test_each_kind_of_leak_is_told_apart() -> None:
    facts = facts_of(a="A 1", b="B 2", c="C 3", d="A 1", e="E 2", f=f"F {PLAIN}", g=f"G {PLAIN}", h="H 5")

    def shared(one: str, other: str, **more: str) -> dict[str, tuple[int, int]]:
        train = story("s", one, ["", *("Ada runs." for _ in one.split()[1:])], more.get("group", ""))
        test = story("t", other, ["", *(more.get("caption", "Bo sits.") for _ in other.split()[1:])], "book")
        return kinds(leaks({"train": [train], "test": [test]}, facts))

    assert shared("a c", "d h") == {"pictures": (1, 2)}
    assert shared("b c", "e h") == {"looks": (1, 2)}
    assert shared("c f", "g h") == {}
    assert shared("b c", "c h") == {"clips": (1, 2), "pictures": (1, 2)}
    assert shared("b c", "d h", group="book") == {"groups": (1, 1)}
    assert shared("b c", "d h", caption="ada RUNS.") == {"captions": (1, 1)}


def test_a_leak_tells_how_many_stories_it_touches_and_names_some() -> None:
    facts = facts_of(a="A 1", b="B 2", c="C 3", d="D 4", e="E 5", f="A 1")
    splits = {
        "train": [story("s1", "a b"), story("s2", "b a"), story("s3", "c d")],
        "val": [story("v", "e e")],
        "test": [story("t1", "f e"), story("t2", "d e")],
    }
    found = {(leak.kind, *leak.splits): leak for leak in leaks(splits, facts)}
    assert found["pictures", "train", "test"] == Leak(
        kind="pictures",
        splits=("train", "test"),
        number=2,
        total=3,
        num_stories=(3, 2),
        examples=(("s1", "t1"), ("s3", "t2")),
    )
    assert found["clips", "val", "test"].num_stories == (1, 2)
    assert ("pictures", "train", "val") not in found


def test_empty_captions_and_those_of_sources_are_no_leak() -> None:
    facts = facts_of(a="A 1", b="B 2")
    train, test = [story("s", "a a", ["Once.", ""])], [story("t", "b b", ["Once.", ""])]
    assert leaks({"train": train, "test": test}, facts) == []


# ------------------------------------------------------------------------------------------------ words and names


def test_captions_of_targets_are_counted_once_a_frame() -> None:
    windows = [
        story("s#1", "a b c d", ["A source says nothing here.", "She waves to THEM.", "", "The theme is a shelter."]),
        story("s#2", "b c d e", ["She waves to THEM.", "", "The theme is a shelter.", "It's his hat"]),
    ]
    assert caption_statistics(windows)._asdict() == {
        "num_captions": 4,
        "num_empty": 1,
        "mean_words": (4 + 0 + 5 + 3) / 4,
        "max_words": 5,
        "pronoun_share": 2 / 3,
        "mean_tokens": None,
        "max_tokens": None,
        "num_truncated": None,
    }


def test_captions_longer_than_the_tokens_that_a_model_reads_are_counted() -> None:
    stories = [story("s", "a b c d", ["", "one two", "one two three", "one two three four"])]
    made = caption_statistics(stories, lambda captions: [len(caption.split()) for caption in captions], text_length=2)
    assert (made.mean_tokens, made.max_tokens, made.num_truncated) == (3, 4, 2)


def test_two_captions_of_one_frame_are_two() -> None:
    stories = [story("s", "a b", ["", "one"]), story("t", "a b", ["", "two words"])]
    assert caption_statistics(stories).num_captions == 2


def test_no_story_has_statistics_of_zero() -> None:
    made = caption_statistics([], lambda captions: [])
    assert (made.num_captions, made.mean_words, made.max_tokens) == (0, 0, 0)


def test_characters_are_counted_once_a_target_frame() -> None:
    stories = [
        story("s#1", "a b c", characters=((1, 1), (1, 0), (1, 1))),
        story("s#2", "b c d", characters=((1, 0), (1, 1), (0, 0))),
        story("t", "x y"),
    ]
    counted = character_counts(stories, ("Ada", "Bo"))
    assert counted == {"Ada": 2, "Bo": 1, "nobody": 1, "not labelled": 1}
