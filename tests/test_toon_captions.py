"""ToonSV's captions: what they say is what the labels say, and what must be carried stays unsaid."""

import re
from typing import TypeAlias

import pytest

from storydalle.stories.toon import (
    ACCESSORIES,
    ACTIONS,
    COLORS,
    GUEST,
    HATS,
    PROPS,
    SETTINGS,
    SHAPES,
    TINTS,
    FrameFacts,
    StoryFacts,
    ToonSV,
)
from storydalle.stories.toon.captions import LIGHTS, PLACES, THINGS, TRIPS, VERBS

NUM = 600
FEMALE, MALE = {"Lulu", "Mimi", "Tilly", "Ella"}, {"Pip", "Bruno", "Kiko", "Rufus", "Nilo"}

Told: TypeAlias = tuple[StoryFacts, list[str], list[str]]


@pytest.fixture(scope="module")
def told() -> list[Told]:
    """Facts, captions and descriptions of stories, half of them of held-out looks."""
    sets = (ToonSV("train", NUM // 2), ToonSV("unseen", NUM // 2))
    return [(s.facts(i), s.outline(i).captions, s.outline(i).descriptions) for s in sets for i in range(NUM // 2)]


def words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+", text)


def cast_of(facts: StoryFacts, frame: FrameFacts) -> list[str]:
    names = ("Pip", "Lulu", "Bruno", "Kiko", "Mimi", "Rufus", "Nilo", "Tilly", "Ella")
    return [facts.guest.name if c == GUEST and facts.guest else names[c] for c in frame.cast]


def resolve(caption: str, previous: list[str]) -> list[str]:
    """Who a caption shows, from its words and the cast of the frame before: written without the sampler's rules."""
    lower = {word.lower() for word in words(caption)}
    if "they" in lower:
        return previous
    for pronoun, fits in (("he", MALE), ("she", FEMALE)):
        if pronoun in lower:
            return [name for name in previous if name in fits]
    if "it" in lower:
        return [name for name in previous if name not in MALE | FEMALE]
    first_words = {"Now", "Then", "Next", "After"}
    starts = {word.capitalize() for places in (*PLACES.values(), *TRIPS.values()) for word in [places[0].split()[0]]}
    starts |= {place.split()[0].capitalize() for places in PLACES.values() for place in places}
    mentioned = [word for word in words(caption) if word[0].isupper() and word not in first_words | starts]
    return list(dict.fromkeys(mentioned))


def test_every_cast_can_be_resolved_from_captions_alone(told: list[Told]):
    """Each caption with the resolved cast of the one before gives the cast of its frame, pronouns and all."""
    for facts, captions, _ in told:
        previous: list[str] = []
        for frame, caption in zip(facts.targets, captions, strict=True):
            previous = resolve(caption, previous)
            assert previous == cast_of(facts, frame), caption


def test_explicit_frames_name_their_cast_in_order_and_pronoun_frames_name_nobody(told: list[Told]):
    for facts, captions, _ in told:
        everybody = MALE | FEMALE | ({facts.guest.name} if facts.guest else set())
        for frame, caption in zip(facts.targets, captions, strict=True):
            mentioned = list(dict.fromkeys(word for word in words(caption) if word in everybody))
            assert mentioned == ([] if frame.cast_known else cast_of(facts, frame)), caption


def test_a_caption_says_the_action_of_its_frame_and_no_other(told: list[Told]):
    for facts, captions, _ in told:
        for frame, caption in zip(facts.targets, captions, strict=True):
            said = {
                action
                for action, wordings in VERBS.items()
                if any(re.search(rf"\b{form}\b", caption) for forms in wordings for form in forms)
            }
            assert said == {ACTIONS[frame.action]}, caption


def test_verbs_agree_with_their_subject(told: list[Told]):
    for facts, captions, descriptions in told:
        for frame, caption in zip((*facts.targets, *facts.frames), (*captions, *descriptions), strict=True):
            forms = [form[len(frame.cast) > 1] for form in VERBS[ACTIONS[frame.action]]]
            assert any(re.search(rf"\b{form}\b", caption) for form in forms), caption


def test_a_setting_is_said_exactly_where_it_changes(told: list[Told]):
    for facts, captions, _ in told:
        for frame, caption in zip(facts.targets, captions, strict=True):
            said = {s for s in SETTINGS if any(phrase in caption.lower() for phrase in (*PLACES[s], *TRIPS[s]))}
            assert said == ({SETTINGS[frame.setting]} if frame.setting_known == 1 else set()), caption


def test_a_hat_is_mentioned_exactly_where_it_is_put_on_or_taken_off(told: list[Told]):
    num_carried = 0
    for facts, captions, _ in told:
        for frame, caption in zip(facts.targets, captions, strict=True):
            assert ("hat" in words(caption)) == (frame.event is not None), caption
            num_carried += 2 in frame.hats_known and frame.event is None
            if frame.event and frame.event.hat:
                assert f"{HATS[frame.event.hat]} hat" in caption
    assert num_carried > 0


def test_a_prop_is_said_exactly_where_it_shows(told: list[Told]):
    for facts, captions, descriptions in told:
        for frame, caption in zip((*facts.targets, *facts.frames), (*captions, *descriptions), strict=True):
            said = [prop for prop in PROPS[1:] if any(re.search(rf"\b{thing}\b", caption) for thing in THINGS[prop])]
            assert said == ([PROPS[frame.prop]] if frame.prop else []), caption


def test_captions_never_say_the_tint_or_a_guests_look(told: list[Told]):
    silent = {word for light in LIGHTS.values() for phrase in light for word in phrase.split()} - {"in", "by", "at"}
    silent |= set(TINTS) | set(SHAPES) | set(ACCESSORIES)
    for _, captions, _ in told:
        for caption in captions:
            without_hats = re.sub(r"\b(red|blue|green|yellow) hat\b", "hat", caption)
            assert not set(words(without_hats.lower())) & (silent | set(COLORS)), caption


def test_a_description_says_cast_light_place_hats_and_look(told: list[Told]):
    for facts, _, descriptions in told:
        assert len(descriptions) == len(facts.frames)
        for frame, text in zip(facts.frames, descriptions, strict=True):
            assert all(name in words(text) for name in cast_of(facts, frame))
            assert any(phrase in text.lower() for phrase in LIGHTS[TINTS[facts.tint]])
            assert any(phrase in text.lower() for phrase in PLACES[SETTINGS[frame.setting]])
            assert [HATS.index(color) for color in re.findall(r"in a (\w+) hat", text)] == [
                frame.hats[c] for c in frame.cast if frame.hats[c]
            ]
            if facts.guest and GUEST in frame.cast:
                shape, color, accessory = facts.guest.look
                assert f"{facts.guest.name} the {COLORS[color]} {SHAPES[shape]} with " in text
                assert ACCESSORIES[accessory] in words(text)


def test_captions_are_sentences_of_at_most_24_words(told: list[Told]):
    for _, captions, descriptions in told:
        for text in (*captions, *descriptions):
            assert text[0].isupper() and text.endswith(".") and "  " not in text and " ," not in text, text
        assert max(len(caption.split()) for caption in captions) <= 24


def test_captions_have_more_than_800_wordings(told: list[Told]):
    """With names, colours and things taken out, hundreds of wordings remain."""
    everybody = MALE | FEMALE
    patterns = set()
    for facts, captions, _ in told:
        names = everybody | ({facts.guest.name} if facts.guest else set())
        patterns |= {" ".join("X" if word in names else word for word in words(caption)) for caption in captions}
    assert len(patterns) > 800


@pytest.mark.parametrize("table", [VERBS, PLACES, THINGS])
def test_every_fact_has_at_least_four_wordings(table: dict[str, tuple]):
    assert all(len(set(wordings)) >= 4 for wordings in table.values())
