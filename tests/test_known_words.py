"""Words that a model has never read in training are said, with the nearest one that it knows."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storydalle import StoryGANc
from storydalle.commands import main
from storydalle.models import zoo
from storydalle.models.pretrained import PretrainedModel
from storydalle.models.zoo import CONFIG_NAME, zoo_folder
from storydalle.stories.toon import SPLITS, ToonSV
from storydalle.stories.toon.names import NAMED, possible_names, sample_name
from storydalle.tokens.cache import StoryCodes
from storydalle.tokens.known_words import MAX_COMPARED, WORDS_NAME, KnownWords, num_edits, words_of
from storydalle.training import building
from storydalle.training.building import learn_words
from tests.tiny import CAPTIONS, TinyStories, tiny_story_dalle
from tests.tiny_gan import tiny_story_gan

SHIPPED = ("story_dalle", "text_to_image", "storyganc")
KNOWN = KnownWords.read(["Pip waves.", "She doesn't run at Lulu's beach!"], ["zubo"])


def shipped(name: str) -> KnownWords:
    found = KnownWords.load(zoo_folder() / name)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("Pip waves; LULU runs.", ["pip", "waves", "lulu", "runs"]),
        ("Lulu's hat, the girls' hats, don\u2019t!", ["lulu", "hat", "the", "girls", "hats", "dont"]),
        ("well-known (3 balls)", ["well", "known", "3", "balls"]),
        ("皮普挥手。", ["皮普挥手"]),
        ("नमस्ते Ünal", ["नमस्ते", "ünal"]),
        ("a \U0001f409!", ["a", "\U0001f409"]),
        ("' -- ...", []),
    ],
)
def test_words_are_told_apart_by_spaces_and_punctuation(caption: str, words: list[str]) -> None:
    assert words_of(caption) == words


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("Pip wavez.", '"wavez" (did you mean waves?)'),
        ("Pip beech!", '"beech" (did you mean beach?)'),
        ("Pip sees a dragon.", '"sees", "a", "dragon"'),
        ("皮普挥手。", '"皮普挥手"'),
        ("Pip waved.", '"waved" (did you mean waves?)'),
    ],
)
def test_an_unknown_word_is_said_with_the_nearest_known_one(caption: str, said: str) -> None:
    notes = KNOWN.notes(["Pip waves.", caption])
    assert notes == [f"caption 2 has words that the model never read in training: {said}"]


def test_of_the_words_that_are_near_the_one_with_the_fewest_edits_is_meant() -> None:
    assert [num_edits(*pair) for pair in (("", "ab"), ("wave", "waves"), ("kitten", "sitting"))] == [2, 1, 3]
    (note,) = KnownWords.read(["wave waves waving weaves"]).notes(["wavez"])
    assert "did you mean waves?" in note


def test_known_words_are_known_in_any_case_and_punctuation() -> None:
    assert KNOWN.notes(["PIP WAVES", "\u201cPip\u201d, she: run!", "pip's Zubo", "lulu doesn\u2019t"]) == []


def test_long_stories_of_unknown_words_are_told_in_short() -> None:
    captions = [" ".join(f"wave{number}x{i}" for i in range(200)) for number in range(50)]
    notes = KnownWords.read([" ".join(f"waves{i}" for i in range(1000))]).notes(captions)
    assert len(notes) == 50 and all(note.endswith("and 192 more") for note in notes)
    assert "".join(notes).count("did you mean") <= MAX_COMPARED


# ------------------------------------------------------------------------------------------------ ToonSV


def test_the_names_that_guests_can_have_are_all_listed() -> None:
    rng = np.random.default_rng(0)
    names = set(possible_names())
    assert {sample_name(rng).lower() for _ in range(1000)} <= names
    assert not names & {*NAMED, "papa", "drago"}


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("split", SPLITS)
def test_no_story_of_toon_has_an_unknown_word(name: str, split: str) -> None:
    """Guests of test and unseen have names that no training story has."""
    known, stories = shipped(name), ToonSV(split, 120)
    outlines = [stories.outline(i) for i in range(len(stories))]
    texts = [
        text for outline in outlines for text in (outline.descriptions if name == "text_to_image" else outline.captions)
    ]
    assert known.notes(texts) == []
    assert known.notes(["Zubo waves.", "Zwiza sits."]) == []


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("word", ["wavez", "dragon", "drago", "皮普", "school", "pipp", "\U0001f409"])
def test_the_shipped_models_say_what_they_never_read(name: str, word: str) -> None:
    (note,) = shipped(name).notes([f"Pip waves at the {word} in the meadow."])
    assert f'"{word}"' in note and ("did you mean waves?" in note) == (word == "wavez")


def test_a_name_of_a_guest_is_never_proposed() -> None:
    (note,) = shipped("story_dalle").notes(["dragu dragi dragx zuboz"])
    assert "did you mean" not in note


# ------------------------------------------------------------------------------------------------ models


@pytest.fixture(params=[tiny_story_dalle, tiny_story_gan])
def model(request: pytest.FixtureRequest) -> PretrainedModel:
    return request.param().eval()


def test_a_model_keeps_its_words_and_says_what_it_does_not_know(model: PretrainedModel, tmp_path: Path) -> None:
    model.words = KNOWN
    model.save_pretrained(tmp_path / "first")
    opened: Any = type(model).from_pretrained(tmp_path / "first")
    assert opened.words == KNOWN
    notes = opened.generate(["Pip wavez.", "Pip waves."], np.zeros((8, 8, 3), np.uint8)).notes
    assert [note for note in notes if "never read" in note] == KNOWN.notes(["Pip wavez."])
    opened.save_pretrained(tmp_path / "second")
    first, second = ((tmp_path / name / WORDS_NAME).read_bytes() for name in ("first", "second"))
    assert first == second


def test_a_model_whose_reading_is_not_known_says_nothing(model: PretrainedModel, tmp_path: Path) -> None:
    """Such as a converted one; it leaves no list of another model in its folder."""
    (tmp_path / WORDS_NAME).write_text("{}")
    model.save_pretrained(tmp_path)
    opened: Any = type(model).from_pretrained(tmp_path)
    assert opened.words is None and not (tmp_path / WORDS_NAME).exists()
    assert not any("never read" in note for note in opened.generate(["Qwxz."], np.zeros((8, 8, 3), np.uint8)).notes)


@pytest.mark.parametrize("content", ["{", "[]", '{"words": ["a"]}', '{"words": ["a"], "names": [1]}', "[" * 100_000])
def test_a_damaged_list_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / WORDS_NAME).write_text(content)
    with pytest.raises(ValueError, match=WORDS_NAME):
        KnownWords.load(tmp_path)


# ------------------------------------------------------------------------------------------------ training


def test_training_stores_the_words_that_it_reads_beside_those_of_its_base(tmp_path: Path) -> None:
    stories = TinyStories(30)
    made = tiny_story_dalle()
    made.words = KnownWords.read(["A dragon."])
    data = StoryCodes(stories, stories, made.image_tokenizer, made.caption_tokenizer, tmp_path, 2)
    learn_words(made, data.train)
    assert made.words == KnownWords.read([*CAPTIONS, "A dragon."])
    learn_words(made, ToonSV("train", 3))
    assert made.words is not None and {"dragon", "pip"} <= made.words.words and "zubo" in made.words.names


@pytest.mark.parametrize(("words", "stories"), [(None, TinyStories(3)), (KNOWN, Path("shards"))])
def test_where_something_that_was_read_is_not_known_nothing_is_said(words: KnownWords | None, stories: Any) -> None:
    """A base without a list has read more than the stories; shards hold tokens alone."""
    made = tiny_story_dalle()
    made.words = words
    learn_words(made, stories)
    assert made.words is None


def test_models_that_begin_to_read_know_no_word_and_others_what_their_base_knows(tmp_path: Path) -> None:
    base = tiny_story_dalle(source_blocks="none", story_depth=0)
    for words in (KNOWN, None):
        base.words = words
        base.save_pretrained(tmp_path / "base")
        assert building.story_dalle(str(tmp_path / "base"), "runs", {}).words == words
    encoder = tiny_story_gan().caption_encoder
    assert building.story_gan(encoder, TinyStories(3, resolution=64)).words == KnownWords()


# ------------------------------------------------------------------------------------------------ generate


def test_generate_says_and_keeps_unknown_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])
    Image.new("RGB", (16, 16), "teal").save("frame.png")
    made = tiny_story_gan()
    made.words = KNOWN
    made.save_pretrained("gan")
    note = 'caption 1 has words that the model never read in training: "wavez" (did you mean waves?)'
    for out in ("one", "two"):
        given = ['captions=["Pip wavez."]', "source=frame.png", "model=gan", f"out={out}"]
        assert main.main(["generate", *given]) == 0
        assert f"note: {note}" in capsys.readouterr().out
    assert note in json.loads(Path("one/story.json").read_text())["notes"]
    assert "did you mean waves?" in Path("one/index.html").read_text()
    assert Path("one/story.json").read_bytes() == Path("two/story.json").read_bytes()


def test_the_list_is_no_part_of_the_weights(tmp_path: Path) -> None:
    shutil.copytree(zoo_folder() / "storyganc", tmp_path / "model")
    before = zoo.weights_sha256(tmp_path / "model")
    (tmp_path / "model" / WORDS_NAME).unlink()
    assert zoo.weights_sha256(tmp_path / "model") == before
    assert (tmp_path / "model" / CONFIG_NAME).is_file()


def test_a_shipped_model_has_its_words() -> None:
    assert StoryGANc.from_pretrained("storyganc").words == shipped("storyganc")


@pytest.mark.slow
def test_a_training_ends_with_the_words_that_it_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])
    sizes = ("data.resolution=64", "data.train.num_stories=8", "data.val.num_stories=4", "data_module.batch_size=4")
    given = ("experiment=toon/storyganc", "name=first", "trainer=smoke", "tokenizer=tiny", "save_every=1", *sizes)
    assert main.main(["train", *given]) == 0
    stories = ToonSV("train", 8)
    read = [caption for i in range(8) for caption in stories.outline(i).captions]
    expected = KnownWords.read(read, stories.made_up_names())
    assert KnownWords.load(Path("runs/toon/storyganc/first/model")) == expected
