"""Facts of ToonSV 2: their words, and that what is known of a frame can be written as assertions."""

from storydalle.stories.toon.assertions import completed, read_facts
from storydalle.stories.toon.world import Guest
from storydalle.stories.toonsv.facts import (
    KNOWN,
    KNOWN_PRONOUN,
    KNOWN_SAID,
    MARKS,
    SOURCE,
    Appearance,
    Event,
    Scene,
    Tale,
    as_facts,
    mark_words,
)

ZUB = Guest("Zub", 2, 6, 2)
SOURCE_SCENE = Scene((Appearance(0, 2), Appearance(1, 0, prop=1)), setting=1, light=1)
TARGET = Scene(
    shown=(
        Appearance(0, 4, cast_known=KNOWN_PRONOUN),
        Appearance(2, 5, hat=2, cast_known=KNOWN_SAID, action_known=KNOWN_SAID, hat_known=KNOWN_SAID),
    ),
    setting=1,
    light=1,
    setting_known=SOURCE,
    events=(Event("puts_on", who=2, value=2), Event("leaves", who=1)),
)
TALE = Tale("test", 0, (ZUB, 0, 1), SOURCE_SCENE, (TARGET,))


def written(scene: Scene) -> str:
    return ", ".join(map(str, as_facts(TALE, scene)))


def test_characters_have_names_pronouns_and_looks_by_their_place_in_the_roster():
    assert [TALE.name(who) for who in range(3)] == ["Zub", "Pip", "Lulu"]
    assert [TALE.pronoun(who) for who in range(3)] == ["it", "he", "she"]
    assert [mark_words(ZUB, MARKS.index(mark)) for mark in MARKS] == ["purple", "star", "glasses", "left", "right"]


def test_what_is_known_of_a_frame_is_written_as_assertions_that_can_be_read():
    line = written(TARGET)
    assert "only Zub Lulu, Zub holds nothing" in line, "an action that no caption says is not asserted"
    assert "Lulu dances" in line and "Lulu wears blue hat" in line and line.endswith("beach, dusk")
    assert set(read_facts(line, "here")) == set(as_facts(TALE, TARGET))
    assert set(completed(as_facts(TALE, TARGET))) == set(as_facts(TALE, TARGET))


def test_the_source_asserts_all_actions():
    assert "Zub sits" in written(SOURCE_SCENE) and "Pip waves" in written(SOURCE_SCENE)


def test_a_scene_finds_its_characters_and_events_by_kind():
    assert TARGET.cast == (0, 2) and [one.who for one in TARGET.known_by(KNOWN_PRONOUN)] == [0]
    assert TARGET.told("leaves", "arrives") == (Event("leaves", who=1),)
    assert TARGET.of(1) is None and TARGET.of(2) == TARGET.shown[1]
    assert KNOWN[TARGET.shown[1].hat_known] == "said"
