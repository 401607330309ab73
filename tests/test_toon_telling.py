"""Captions of ToonSV 2 say what a frame's facts say that they say, and mean nothing else."""

import re
from collections.abc import Iterator

import pytest

from storydalle.stories.toon.assertions import VALUES
from storydalle.stories.toon.names import NAMED
from storydalle.stories.toon.world import ACTIONS, HATS, PROPS, SETTINGS, TINTS
from storydalle.stories.toonsv import NUM_TALES, lexicon, whereabouts
from storydalle.stories.toonsv.facts import EVENTS, KNOWN_SAID, Scene, Tale, as_facts
from storydalle.stories.toonsv.inflection import forms_of
from storydalle.stories.toonsv.invention import invent
from storydalle.stories.toonsv.slips import known_words
from storydalle.stories.toonsv.telling import captions_of, descriptions_of, tellings_of
from tests.tales import names_of, reader_of, shown_in, tale_of_everything

CUT_SHORT = {"s", "t", "re", "isn", "aren", "wasn", "weren", "doesn", "don", "didn"}  # isn't, they're
WORD = re.compile(r"[a-z]+")


def wanted(tale: Tale, scene: Scene) -> dict[str, object]:
    """What a reader has to find in a frame."""
    by_name = {tale.name(one.who): one for one in scene.shown}
    return {
        "cast": set(by_name),
        "named": {name for name, one in by_name.items() if one.cast_known == KNOWN_SAID},
        "actions": {name: ACTIONS[one.action] for name, one in by_name.items() if one.action_known == KNOWN_SAID},
        "hats": {name: HATS[one.hat] for name, one in by_name.items()},
        "props": {name: PROPS[one.prop] for name, one in by_name.items()},
        "setting": SETTINGS[scene.setting],
        "light": TINTS[scene.light],
    }


def readings(tale: Tale) -> Iterator[tuple[str, dict[str, object], dict[str, object]]]:
    """Each caption, what a reader finds in it, and what there is to find."""
    reader = reader_of(tale)
    for scene, told in zip(tale.targets, tellings_of(tale), strict=True):
        frame = reader.read(told.text)
        cast = set(shown_in(tale, scene))
        found = {
            "cast": set(frame.cast),
            "named": set(frame.named) & cast,
            "actions": frame.actions,
            "hats": {name: frame.hats[name] for name in cast},
            "props": {name: frame.props[name] for name in cast},
            "setting": frame.setting,
            "light": frame.light,
        }
        yield told.text, found, wanted(tale, scene)


@pytest.mark.parametrize("index", range(40))
def test_every_kind_of_event_is_read_back_whatever_its_words(index: int) -> None:
    for caption, found, facts in readings(tale_of_everything("test", index)):
        assert found == facts, caption


NUMBERS = {"train": 1400, "unseen": 200, "misleading": 300, "test": 100, "long20": 10, "long50": 4}


@pytest.mark.slow
@pytest.mark.parametrize("split", NUMBERS)
def test_stories_are_read_back_by_an_independent_reader(split: str) -> None:
    """Two thousand stories: who is there, is named, does, wears and holds what, where and when."""
    for tale in (invent(split, index) for index in range(NUMBERS[split])):
        for caption, found, facts in readings(tale):
            assert found == facts, (tale.index, caption)


def test_those_who_can_only_be_called_the_others_are_told_last() -> None:
    """Four are there; a he and a she are named, and do something else than the other he and she."""
    for caption, found, facts in readings(invent("train", 26190)):
        assert found == facts, caption


@pytest.mark.slow
@pytest.mark.parametrize("split", NUM_TALES)
def test_every_story_can_be_told(split: str) -> None:
    for index in range(NUM_TALES[split]):
        tale = invent(split, index)
        assert len(captions_of(tale)) == len(tale.targets) == len(descriptions_of(tale)) - 1


def test_the_tale_by_hand_has_all_events() -> None:
    told = {event.kind for scene in tale_of_everything("test", 0).targets for event in scene.events}
    assert told == set(EVENTS)


def test_a_reader_finds_other_facts_in_another_caption() -> None:
    """The reader can fail: captions of the same tale in other places mean something else."""
    tale = tale_of_everything("test", 1)
    reader = reader_of(tale)
    captions = captions_of(tale)
    assert reader.read(captions[5]).hats["Bruno"] == "blue" != wanted(tale, tale.targets[0])["hats"]


def test_words_depend_on_the_story_alone_and_differ_between_stories() -> None:
    first, again, other = (captions_of(tale_of_everything("test", index)) for index in (3, 3, 4))
    assert first == again
    assert not set(first) & set(other)


def test_clauses_tell_all_facts_that_the_caption_is_to_tell() -> None:
    for index in range(20):
        tale = tale_of_everything("test", index)
        for scene, told in zip(tale.targets, tellings_of(tale), strict=True):
            facts = {fact for _, facts in told.clauses for fact in facts}
            said = [one for one in scene.shown if one.action_known == KNOWN_SAID]
            assert {(tale.name(one.who), ACTIONS[one.action]) for one in said} == {
                (fact.names[0], fact.value) for fact in facts if fact.kind == "action"
            }
            true = set(as_facts(tale, scene))
            assert all(fact in true for fact in facts if fact.kind in ("action", "setting", "light", "color", "shape"))
            assert all(words for words, facts in told.clauses if facts), told


def test_full_descriptions_tell_every_frame_alone() -> None:
    tale = tale_of_everything("test", 5)
    descriptions = descriptions_of(tale)
    assert len(descriptions) == len(tale.frames)
    for scene, text in zip(tale.frames, descriptions, strict=True):
        reader = reader_of(tale)
        reader.frame.cast = reader.seen = frozenset()
        reader.frame.hats, reader.frame.props = ({name: "none" for name in names_of(tale)} for _ in range(2))
        frame, facts = reader.read(text), wanted(tale, scene)
        assert frame.cast == facts["cast"] and (frame.setting, frame.light) == (facts["setting"], facts["light"]), text
        assert {name: frame.hats[name] for name in frame.cast} == facts["hats"], text
        assert {name: frame.props[name] for name in frame.cast} == facts["props"], text
        assert frame.actions == {tale.name(one.who): ACTIONS[one.action] for one in scene.shown}, text
        for guest in filter(None, map(tale.guest, scene.cast)):
            assert all(VALUES[kind][getattr(guest, kind)] in text for kind in ("color",)), text


def test_only_captions_for_training_have_slips_of_typing() -> None:
    names = {*NAMED, *CUT_SHORT, *(name.lower() for name in names_of(tale_of_everything("test", 0)))}
    unknown = {"train": 0, "test": 0}
    for split in unknown:
        for index in range(40):
            words = WORD.findall(" ".join(captions_of(tale_of_everything(split, index))).lower())
            unknown[split] += len(set(words) - known_words() - names)
    assert unknown["test"] == 0 < unknown["train"] < 100


def test_slips_leave_all_other_words_alone() -> None:
    for index in range(40):
        tale = tale_of_everything("train", index)
        for typed, told in zip(captions_of(tale), tellings_of(tale), strict=True):
            assert sum(a != b for a, b in zip(typed.split(), told.text.split(), strict=True)) <= 2


def test_no_word_stands_for_two_actions_things_places_or_lights() -> None:
    for table in (lexicon.ACTION_WORDS, lexicon.THINGS, lexicon.SPECIES_WORDS):
        heads = {value: {phrase.lstrip("~+").split()[-1] for phrase in phrases} for value, phrases in table.items()}
        if table is lexicon.ACTION_WORDS:
            heads = {value: {phrase.lstrip("~+").split()[0] for phrase in phrases} for value, phrases in table.items()}
            common = {
                "do",
                "take",
                "have",
                "be",
                "go",
                "make",
                "give",
                "start",
                "say",
                "lie",
                "run",
                "shout",
                "cry",
                "throw",
            }
            heads = {value: verbs - common for value, verbs in heads.items()}
        found = [word for words in heads.values() for word in words]
        assert len(set(found)) == len(found)
    nouns = {setting: {where[2].split()[-1] for where in places} for setting, places in whereabouts.PLACES.items()}
    assert sum(map(len, nouns.values())) == len(set().union(*nouns.values()))


def test_there_are_many_words() -> None:
    assert len(known_words()) > 700


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("run", "run runs ran run running"),
        ("cry", "cry cries cried cried crying"),
        ("lie", "lie lies lay lain lying"),
        ("dash", "dash dashes dashed dashed dashing"),
        ("hop", "hop hops hopped hopped hopping"),
        ("play", "play plays played played playing"),
        ("be", "be is was been being"),
    ],
)
def test_verbs_have_their_forms(verb: str, forms: str) -> None:
    assert " ".join(forms_of(verb)) == forms
