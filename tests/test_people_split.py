"""The stories in people's words are what their README says, and no caption of them is one of the grammar's."""

import re
from collections import Counter
from itertools import pairwise

import pytest

from storydalle.files.text import split_lines
from storydalle.stories.toon import ToonSV
from storydalle.stories.toon.assertions import KINDS, VALUES, Fact, cast_of, completed, read_facts
from storydalle.stories.toon.captions import PLACES, THINGS, TRIPS, captions_of
from storydalle.stories.toon.names import NAMED
from storydalle.stories.toon.written import FOLDER, HALVES, STYLES, WrittenStory, people_stories, read_stories

STORIES = {half: people_stories(half) for half in HALVES}
ALL = [story for half in HALVES for story in STORIES[half]]
FREQUENT = {
    *("joins", "leaves", "alone", "comes-back", "absence", "three", "four", "everybody", "they-changed", "pronoun"),
    *("hat-on", "hat-several", "hat-passed", "hat-off", "persist", "own-actions", "own-props", "prop-passed", "place"),
    *("return", "meanwhile", "light", "two-guests", "newcomer-guest", "contradiction", "passive", "negation", "speech"),
    *("typos", "long", "others", "swap", "because", "home"),
}
NO_PLACES = {  # words of today's places that name none
    *("in", "the", "a", "at", "on", "out", "by", "of", "up", "far", "away", "near", "into", "among"),
    *("hot", "busy", "warm", "cosy", "deep"),
}
FACTS = (
    "only Pip Zub, no Lulu, Pip runs, Pip wears blue hat, Pip holds nothing, Zub is purple star with glasses, "
    "Zub wears no hat, Zub holds lantern, forest, dusk"
)


def name_of(story: WrittenStory) -> str:
    return story.id


def values(facts: tuple[Fact, ...], kind: str) -> dict[str, str]:
    """The value of a kind of fact for each name that has one."""
    return {" ".join(fact.names): fact.value for fact in facts if fact.kind == kind}


def test_there_are_enough_stories_in_three_styles_and_half_of_each_is_held() -> None:
    assert len(ALL) >= 100
    assert sum(len(story.captions) for story in ALL) >= 400
    assert len({story.id for story in ALL}) == len(ALL)
    for style in STYLES:
        held, opened = (sum(story.style == style for story in STORIES[half]) for half in ("held", "open"))
        assert held == opened >= 15
    assert {story.style for story in ALL} == set(STYLES)


def test_the_readme_counts_them() -> None:
    stories, captions = len(ALL), sum(len(story.captions) for story in ALL)
    assert f"\n{stories} stories with {captions} captions" in (FOLDER / "README.md").read_text(encoding="utf-8")


def test_the_readme_shows_a_story_that_can_be_read() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("    ")]
    (story,) = read_stories("\n".join(lines), "README.md")
    assert cast_of(story.source) == ("Zub",) and values(story.facts[0], "hat") == {"Pip": "red", "Zub": "none"}


def test_stories_have_two_frames_and_more() -> None:
    lengths = [len(story.captions) for story in ALL]
    assert min(lengths) == 2 and max(lengths) >= 8
    assert sum(3 <= length <= 5 for length in lengths) > 0.8 * len(lengths)


@pytest.mark.parametrize("story", ALL, ids=name_of)
def test_frames_are_told_completely(story: WrittenStory) -> None:
    for facts in (story.source, *story.facts):
        cast = cast_of(facts)
        assert 1 <= len(cast) <= 4
        guests = {name for name in cast if name.lower() not in NAMED}
        for kind, names in (("hat", set(cast)), ("prop", set(cast)), ("color", guests), ("shape", guests)):
            assert values(facts, kind).keys() == names, facts
        assert values(facts, "accessory").keys() == guests
        assert len(values(facts, "setting")) == len(values(facts, "light")) == 1
        assert all(value == "none" for name, value in values(facts, "hat").items() if name in guests)
    assert values(story.source, "action").keys() == set(cast_of(story.source))


@pytest.mark.parametrize("story", [story for story in ALL if "typos" not in story.tags], ids=name_of)
def test_hats_and_things_come_from_a_caption_or_from_somebody(story: WrittenStory) -> None:
    """A new one is named in the caption in today's words, or was another's before; so absence changes nothing."""
    for kind in ("hat", "prop"):
        last = values(story.source, kind)
        for caption, facts in zip(story.captions, story.facts, strict=True):
            now = values(facts, kind)
            for name, value in now.items():
                others = {last[other] for other in last if other != name}
                assert value in (last.get(name), "none") or value in others or names_it(caption, value), caption
            last |= now


@pytest.mark.parametrize("story", ALL, ids=name_of)
def test_looks_of_guests_do_not_change(story: WrittenStory) -> None:
    for kind in ("color", "shape", "accessory"):
        looks = {pair for facts in (story.source, *story.facts) for pair in values(facts, kind).items()}
        assert len(dict(looks)) == len(looks)


def test_nearly_all_new_settings_are_named_in_todays_words() -> None:
    """The rest are misspelt, or in a word of the person's own."""
    named = []
    for story in ALL:
        settings = [values(facts, "setting")[""] for facts in (story.source, *story.facts)]
        for caption, (before, after) in zip(story.captions, pairwise(settings), strict=True):
            if before != after:
                named.append(names_it(caption, after))
    assert len(named) >= 80 and sum(named) > 0.9 * len(named)


def names_it(caption: str, value: str) -> bool:
    """A caption has the word for a hat's colour, a thing or a setting, or one that today's captions have for it."""
    phrases = (*THINGS.get(value, ()), *PLACES.get(value, ()), *TRIPS.get(value, ()), value)
    nouns = {phrase.split()[-1] for phrase in phrases} | set(" ".join(PLACES.get(value, ())).split()) - NO_PLACES
    return bool(nouns & set(re.findall(r"[a-z]+", caption.lower())))


@pytest.mark.parametrize("half", HALVES)
def test_each_kind_of_story_is_in_both_halves(half: str) -> None:
    found = Counter(tag for story in STORIES[half] for tag in story.tags)
    assert found.keys() >= FREQUENT


def test_tags_are_those_of_the_readme_and_fit_the_labels() -> None:
    page = (FOLDER / "README.md").read_text(encoding="utf-8").partition("## Tags")[2]
    assert {tag for story in ALL for tag in story.tags} == set(re.findall(r"`([\w-]+)`", page))
    for story in ALL:
        sizes = [len(cast_of(facts)) for facts in story.facts]
        assert ("four" in story.tags) == (max(sizes) == 4), story.id
        assert ("long" in story.tags) == (len(story.captions) >= 6), story.id
        guests = {fact.names for facts in (story.source, *story.facts) for fact in facts if fact.kind == "shape"}
        assert ("two-guests" in story.tags) == (len(guests) == 2), story.id


def test_all_values_of_the_world_occur_in_both_halves() -> None:
    for stories in STORIES.values():
        found = Counter((fact.kind, fact.value) for story in stories for facts in story.facts for fact in facts)
        for kind in ("action", "prop", "hat", "setting", "light"):
            assert min(found[kind, value] for value in VALUES[kind]) >= 4
        cast = Counter(name for story in stories for facts in story.facts for name in cast_of(facts))
        assert min(cast[name.capitalize()] for name in NAMED) >= 15


def bare(caption: str, names: list[str]) -> str:
    """A caption in lower case without punctuation, and with one word for all names."""
    known = "|".join(re.escape(name.lower()) for name in names)
    return " ".join(re.findall(r"\w+", re.sub(rf"\b({known})\b", "X", caption.lower())))


def test_no_caption_comes_twice_or_is_made_by_the_grammar() -> None:
    written: list[str] = []
    for story in ALL:
        names = [name for facts in (story.source, *story.facts) for fact in facts for name in fact.names]
        written += [bare(caption, [*NAMED, *names]) for caption in story.captions]
    assert len(set(written)) == len(written)
    made: set[str] = set()
    for facts in map(ToonSV("train").facts, range(3000)):
        names = [*NAMED, *([facts.guest.name] if facts.guest else [])]
        made |= {bare(caption, names) for caption in captions_of(facts)}
    assert len(made) > 3000 and not made & set(written)


def test_facts_are_read_and_written_alike() -> None:
    facts = read_facts(FACTS, "here")
    assert {fact.kind for fact in facts} == set(KINDS) - {"shown"}
    assert read_facts(", ".join(map(str, facts)), "here") == facts
    assert facts[0] == Fact("cast", ("Pip", "Zub")) and facts[4] == Fact("prop", ("Pip",), "none")
    assert read_facts("Zub, Zub is with horns", "")[1] == Fact("accessory", ("Zub",), "horns")
    assert completed(read_facts("only Pip, Pip holds ball", ""))[2:] == (Fact("hat", ("Pip",), "none"),)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("Pip flies", "'flies' is no action: ToonSV has waves, jumps"),
        ("Pip wears pink hat", "'pink' is no hat: ToonSV has no, red, blue"),
        ("Pip holds hands", "'hands' is no prop: ToonSV has nothing, ball"),
        ("Zub is round", "'round' is no shape"),
        ("Zub is red star glasses", "'glasses' follows a shape"),
        ("Zub is red star with beard", "'beard' is no accessory"),
        ("kitchn", "'kitchn' is no setting (meadow,"),
        ("pip runs", "'pip' is no name: names are written like Pip"),
        ("Pip runs fast", "'Pip runs fast' has none of the forms"),
        ("only Pip Pip", "name each of the cast once"),
        ("Pip runs,, beach", "a fact is missing"),
        ("beach, moon", "'moon' beside 'beach'"),
        ("Pip runs, Pip sits", "'Pip sits' beside 'Pip runs'"),
        ("only Pip, Lulu runs", "'Lulu runs' beside 'only Pip'"),
        ("no Pip, only Pip Lulu", "'no Pip' beside 'only Pip Lulu'"),
        ("Pip runs, no Pip", "'Pip runs' beside 'no Pip'"),
    ],
)
def test_what_is_no_fact_is_named_with_its_place(line: str, word: str) -> None:
    with pytest.raises(ValueError, match=re.escape(word)) as caught:
        read_facts(line, "labels.txt, line 7")
    assert str(caught.value).startswith("labels.txt, line 7: ")


@pytest.mark.parametrize(
    ("number", "line", "said"),
    [
        (1, "story child-00 later", "line 1: 'story child-00 later' is not 'story NAME open or held'"),
        (2, "Hello.", "line 2: a story has a line like 'tags: joins, alone' here"),
        (3, "only Pip", "line 3: a story has a line like 'source: only Pip, beach' here"),
        (4, "= only Pip", "line 4: a caption is followed by its facts"),
        (5, "", "line 4: a story ends with the facts of its last caption"),
        (5, "= only Zub", "line 5: 'Zub' is no named character, and no guest whose look is told so far"),
        (5, "= Pip runs", "line 5: no 'only NAME NAME ...' says whom the frame shows"),
    ],
)
def test_a_damaged_story_is_refused_with_its_line(number: int, line: str, said: str) -> None:
    lines = ["story child-00 open", "tags: alone", "source: only Pip, Pip sits, beach, day", "Pip!", "= only Pip"]
    (whole,) = read_stories("\n".join(lines), "mine.txt")
    assert (whole.captions, whole.style, whole.half) == (("Pip!",), "child", "open")
    lines[number - 1] = line
    with pytest.raises(ValueError, match=re.escape(f"mine.txt, {said}")):
        read_stories("\n".join(lines), "mine.txt")


def test_only_the_halves_can_be_asked_for_and_files_hold_nothing_else() -> None:
    with pytest.raises(ValueError, match="half='all': the split people has open and held"):
        people_stories("all")
    texts = [(FOLDER / f"{style}.txt").read_text(encoding="utf-8") for style in STYLES]
    lines = [line for text in texts for line in split_lines(text) if line.strip()]
    assert len(lines) == sum(3 + 2 * len(story.captions) for story in ALL)
