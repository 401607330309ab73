"""``prepare words=true``: the world of drawn stories, and all words that tell something in it."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from storydalle.commands import main
from storydalle.reporting.world_words import words_of_world
from storydalle.stories import toon
from storydalle.stories.drawn_worlds import WORLDS
from storydalle.stories.toon import ToonSV, captions
from storydalle.stories.toonsv import ToonSV2, facts, lexicon, predicates, statements, whereabouts
from storydalle.stories.toonsv.slips import phrases_of
from storydalle.stories.toonsv.vocabulary import meanings
from storydalle.tokens.known_words import words_of

NAMES = ("toon", "toon2")


def words_in(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("columns", "width"), [(20, 80), (100, 100), (300, 120)])
def test_the_page_of_a_world_is_as_wide_as_can_be_read_and_writes_nothing_of_the_lists_signs(
    name: str, columns: int, width: int
) -> None:
    text = words_of_world(WORLDS[name], columns)
    longest = max(map(len, text.splitlines()))
    assert width - 12 < longest <= width
    assert not re.search(r"[{}~+_]", text)


@pytest.mark.parametrize("name", NAMES)
def test_all_that_a_world_can_show_is_named_with_its_limits(name: str) -> None:
    text = words_of_world(WORLDS[name], 100)
    for value in (*toon.ACTIONS, *toon.PROPS[1:], *toon.HATS[1:], *toon.SETTINGS, *toon.TINTS, *toon.SPECIES):
        assert value in text
    for value in (*toon.SHAPES, *toon.COLORS, *toon.ACCESSORIES, "Pip (chick, he)", "Lulu (bunny, she)", "guests (it)"):
        assert value in text
    assert f"at most {WORLDS[name].most_shown} characters" in text


def test_the_limits_of_a_world_are_those_of_its_stories() -> None:
    for name, stories, guests in (("toon", ToonSV("train", 300), 1), ("toon2", ToonSV2("train", 300), 2)):
        labels = [stories.outline(i).labels["characters"] for i in range(300)]
        assert max((rows > 0).sum(1).max() for rows in labels) == WORLDS[name].most_shown
        assert max((rows > 0)[:, 9:].any(0).sum() for rows in labels) == WORLDS[name].most_guests == guests


def test_no_list_of_the_second_worlds_captions_is_left_out() -> None:
    shown = words_in(words_of_world(WORLDS["toon2"], 120))
    slots = words_in("own self whom who whose_hat whose_thing hat thing the_hat the_thing kind")
    ways = ModuleType("ways")
    foreign = vars(facts) | vars(statements)
    vars(ways).update({name: told for name, told in vars(predicates).items() if name not in foreign})
    for module in (lexicon, whereabouts, ways):
        for phrase in set(phrases_of(module)) - set(lexicon.ADJUNCTS):
            assert words_in(phrase) - slots <= shown, phrase


def test_the_first_worlds_captions_have_no_other_words() -> None:
    shown = words_in(words_of_world(WORLDS["toon"], 120)) | words_in("and while holding with in hand then they to")
    stories = ToonSV("train", 300)
    names = set(stories.made_up_names())
    read = {word for i in range(300) for told in stories.outline(i).captions for word in words_of(told)} - names
    assert read <= shown
    assert captions.vocabulary()["things"]["ball"] == captions.THINGS["ball"]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("galloping", ("running", "runs")),
        ("slept", ("slept", "sleeps")),
        ("wept", ("cried", "cries")),
        ("rabbit", ("lulu",)),
        ("parasol", ("umbrella",)),
        ("scarlet", ("red",)),
        ("cap", ("hat",)),
        ("lawn", ("meadow",)),
        ("downtown", ("city",)),
        ("take", None),  # a seat, a nap, a ball
        ("box", None),
    ],
)
def test_a_word_of_one_meaning_is_told_by_the_words_that_name_it(word: str, told: tuple[str, ...] | None) -> None:
    assert meanings().get(word) == told


def run(*arguments: str) -> int:
    return main.main(["prepare", *arguments])


def test_prepare_prints_the_words_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])
    for name in NAMES:
        monkeypatch.setenv("COLUMNS", "90")
        assert run(f"data={name}", "words=true") == 0
        assert capsys.readouterr().out.strip() == words_of_world(WORLDS[name], 90)
    assert run("data=pororo", "words=true") == 2
    assert (
        "words=true prints the words of a drawn world, data=toon or data=toon2, not pororo" in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())
