"""Notes of a model of a drawn world: what its captions name and its frames cannot show. All of it is drawn in order."""

from collections.abc import Sequence

import pytest
from PIL import Image

from storydalle.models.drawing import StoryRequest
from storydalle.stories.drawn_worlds import WORLDS
from storydalle.stories.images import from_images
from storydalle.stories.toon import ToonSV
from storydalle.stories.toon.names import NAMED
from storydalle.stories.toon.world import ACTIONS
from storydalle.stories.toonsv import ToonSV2
from storydalle.tokens.known_words import KnownWords
from storydalle.tokens.world_notes import WorldNotes
from tests.test_story_dalle import awake, picture, pixels

WHERE = {name: f"storydalle prepare data={name} words=true prints the words of {WORLDS[name].title}" for name in WORLDS}


def known(name: str) -> KnownWords:
    """The words of the first stories of a world."""
    stories = {"toon": ToonSV, "toon2": ToonSV2}[name]("train", 150)
    told = [caption for i in range(150) for caption in stories.outline(i).captions]
    return KnownWords.read([*told, *map(str.capitalize, NAMED)], stories.made_up_names())


KNOWN = {name: known(name) for name in WORLDS}


def notes(captions: Sequence[str], has_source: bool = True, name: str = "toon") -> list[str]:
    return WorldNotes(WORLDS[name], KNOWN[name], captions, has_source).lines()


@pytest.mark.parametrize("name", WORLDS)
def test_nothing_is_said_of_the_worlds_own_stories(name: str) -> None:
    stories = WORLDS[name].stories("train", 150)
    for i in range(150):
        assert notes(stories.outline(i).captions, name=name) == []


def test_more_names_than_a_frame_shows_are_told_by_the_limit_of_the_world() -> None:
    four, five = ["Pip, Lulu, Bruno and Kiko wave."], ["Pip runs.", "Pip, Lulu, Bruno, Kiko and Zubo wave; Pip waves."]
    assert notes(four) == [
        "caption 1 names 4 characters (Pip, Lulu, Bruno, Kiko), but a frame of ToonSV shows at most 3: "
        "do not expect all of them"
    ]
    assert notes(four, name="toon2") == []
    for name, most in (("toon", 3), ("toon2", 4)):
        (said,) = notes(five, name=name)
        assert said.startswith("caption 2 names 5 characters (Pip, Lulu, Bruno, Kiko, Zubo), but a frame of")
        assert f"at most {most}" in said
    assert notes(["pip, lulu, bruno and kiko wave"])[0].startswith("caption 1 names 4 characters")


def test_an_action_that_the_world_lacks_is_told_with_those_that_it_has() -> None:
    said, where = notes(["Pip knits.", "They juggle."])
    assert said == (
        f"ToonSV has no other actions than {', '.join(ACTIONS)}: " + '"knits", "juggle" will not be drawn as meant'
    )
    assert where == WHERE["toon"]
    assert notes(["Pip knits."], name="toon2")[-1] == WHERE["toon2"]


@pytest.mark.parametrize("caption", ["Pip gallops.", "Pip wavez.", "Lulu briskly waves.", "Pip waves to the zebra."])
def test_words_that_mean_an_action_and_words_that_are_none_are_not_told_as_such(caption: str) -> None:
    assert notes([caption]) == [WHERE["toon"]]


@pytest.mark.parametrize(
    ("caption", "told"),
    [
        ("Pip gallops.", '"gallops" (did you mean runs?)'),
        ("Pip is galloping.", '"galloping" (did you mean running?)'),
        ("The rabbit waves.", '"rabbit" (did you mean lulu?)'),
        ("Pip gallopz.", '"gallopz"'),
    ],
)
def test_an_unknown_word_is_told_by_its_meaning_where_the_model_has_a_drawn_world(caption: str, told: str) -> None:
    made = awake()
    made.words = KNOWN["toon"]
    line = f"caption 1 has words that the model never read in training: {told}"
    assert [note for note in made.caption_notes([caption]) if "never read" in note] != [line] or "mean" not in told
    made.card["data"] = {"name": "toon"}
    assert line in made.caption_notes([caption])


def test_a_name_that_nobody_has_is_told() -> None:
    said = "no character of ToonSV is called Bob: only a guest that the source shows can be meant"
    assert (
        notes(["Bob waves."])[0]
        == notes(["Pip waves and Bob jumps."])[0]
        == notes(["Pip, Bob's friend, waves."])[0]
        == said
    )
    assert notes(["Pip waves.", "Bob and Pip jump."])[0] == said
    assert notes(["Zubo waves."]) == []
    for caption in ("Suddenly Pip waves.", "Kikoo waves.", "PIP WAVES UP HIGH IN BRAZIL", "Gallops Pip?"):
        assert not any("is called" in note for note in notes([caption])), caption


def test_without_a_source_no_guest_is_shown() -> None:
    said = "only a source shows how guests look (Zubo), and none is given: their look is made up"
    assert notes(["Pip jumps.", "Zubo waves."], has_source=False) == [said]
    assert notes(["Zubo waves."], has_source=False, name="toon2") == [said]
    assert notes(["Bob waves."], has_source=False)[0] == said.replace("Zubo", "Bob")
    described = ["Zubo, a purple star with horns, waves."]
    assert notes(described, has_source=False, name="toon2") == []
    assert notes(described, has_source=False)[0] == said, "the model has read of no star"


def test_more_guests_than_a_story_has_are_told() -> None:
    captions = ["Zubo waves.", "Momo jumps.", "Zubo and Vadu run."]
    for name, most in (("toon", 1), ("toon2", 2)):
        title = WORLDS[name].title
        said = f"the captions name 3 guests (Zubo, Momo, Vadu), but a story of {title} has at most {most}"
        assert notes(captions, name=name) == [said]


def test_a_long_caption_is_told_in_short() -> None:
    guests, names, actions, where = notes(["Xav and Yob jump and Zax knits. " * 7_000])
    assert guests.startswith("the captions name 3 guests (Xav, Yob, Zax)") and names.count("Xav") == 1
    assert actions.count("knits") == 1 and where == WHERE["toon"]


def test_models_of_other_data_and_of_unknown_words_get_no_notes_on_a_world() -> None:
    made, crowd = awake(), ["Pip Lulu Bruno Kiko"]
    request = StoryRequest([crowd], from_images([picture()], 12), made.sampling())
    made.words = KNOWN["toon"]
    for card in ({}, {"data": {"name": "pororo"}}):
        made.card = card
        assert made.world_notes(request) == []
    made.card = {"data": {"name": "toon"}}
    (said,) = made.world_notes(request)
    assert said in made.generate(crowd, picture()).notes
    made.words = None
    assert said not in made.generate(crowd, picture()).notes


def test_contradictory_captions_are_drawn_in_order() -> None:
    made = awake()
    made.words, made.card = KNOWN["toon2"], {"data": {"name": "toon2"}}
    captions = [
        "Pip puts on a red hat; Pip wears no hat.",
        "Pip is alone with Lulu and Bruno. Nobody is there.",
        "Pip takes off the blue hat, which Lulu is wearing, on the moon in the kitchen.",
        "Pip sleeps while Pip runs at night in daylight.",
    ]
    drawn = made.generate(captions, picture(), temperature=0)
    assert len(drawn.frames) == len(captions) and all(isinstance(frame, Image.Image) for frame in drawn.frames)
    turned = made.generate([*captions[:3], "Pip sleeps."], picture(), temperature=0)
    assert drawn.scores[3].tolist() != turned.scores[3].tolist()
    assert pixels(made.generate(captions, picture(), temperature=0).frames) == pixels(drawn.frames)
