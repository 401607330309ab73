"""ToonSV 2's labels: a column for each character, two of them for guests, in agreement with the facts."""

import ast
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from storydalle.files.conf import conf_folder
from storydalle.stories import toonsv
from storydalle.stories.story import batch_of
from storydalle.stories.toonsv import COLUMNS, LABEL_VALUES, ToonSV2, counts, label_words
from storydalle.stories.toonsv.facts import KNOWN, UNSAID
from storydalle.stories.toonsv.labels import ABSENT, OF_CHARACTERS, OF_GUESTS, columns_of, drawn_labels, labels_of
from tests.command_line import Command, command  # noqa: F401

NUM = 80


@pytest.fixture(scope="module")
def stories() -> ToonSV2:
    return ToonSV2("unseen", NUM)


def test_labels_have_the_documented_shapes_and_ranges(stories: ToonSV2):
    tale = stories.facts(2)
    labels = stories.outline(2).labels
    for key, names in LABEL_VALUES.items():
        columns = (len(COLUMNS),) if key in ("characters", *OF_CHARACTERS) else (2,) if key in OF_GUESTS else ()
        assert labels[key].shape == (len(tale.targets), *columns) and labels[key].dtype == np.int64
        assert ABSENT.get(key, 0) <= labels[key].min() and labels[key].max() < max(2, len(names))
        assert (f"source_{key}" in labels) == (not key.endswith("_known"))
        assert key.endswith("_known") or labels[f"source_{key}"].shape == columns
    assert set(labels) == {*LABEL_VALUES, *(f"source_{key}" for key in LABEL_VALUES if not key.endswith("_known"))}


def test_labels_agree_with_the_facts(stories: ToonSV2):
    for i in range(NUM):
        tale, labels = stories.facts(i), stories.outline(i).labels
        columns = columns_of(tale)
        for f, scene in enumerate(tale.targets):
            shown = [columns[one.who] for one in scene.shown]
            assert np.flatnonzero(labels["characters"][f]).tolist() == sorted(shown)
            for key in OF_CHARACTERS:
                assert labels[key][f, shown].tolist() == [getattr(one, key) for one in scene.shown]
                assert set(np.delete(labels[key][f], shown).tolist()) <= {ABSENT.get(key, 0)}
            for one in scene.shown:
                if guest := tale.guest(one.who):
                    values = [labels[key][f, columns[one.who] - 9] for key in OF_GUESTS]
                    assert values == [guest.shape, guest.color, guest.accessory, one.look_known]
            assert (labels["setting"][f], labels["light_known"][f]) == (scene.setting, scene.light_known)


def test_two_guests_have_columns_of_their_own_in_the_order_in_which_they_come(stories: ToonSV2):
    guests = [[column for column in columns_of(stories.facts(i)) if column >= 9] for i in range(NUM)]
    assert [9, 10] in guests and all(columns in ([9], [9, 10]) for columns in guests)


def test_an_action_that_nothing_says_has_no_label(stories: ToonSV2):
    tale = stories.facts(0)
    silent = replace(tale.targets[0], shown=tuple(replace(one, action_known=UNSAID) for one in tale.targets[0].shown))
    tale = replace(tale, targets=(silent, *tale.targets[1:]))
    assert (labels_of(tale)["action"][0] == -1).all()
    assert (labels_of(tale)["action"][1:].max(axis=1) >= 0).all()
    assert (labels_of(tale)["source_action"] >= 0).sum() == len(tale.source.shown)


def test_what_a_frame_shows_has_every_action_and_its_guests_from_left_to_right(stories: ToonSV2):
    alone = 0
    for i in range(NUM):
        tale, drawn = stories.facts(i), drawn_labels(stories.facts(i))
        for row, scene in enumerate(tale.frames):
            guests = [tale.guest(one.who) for one in scene.shown if tale.guest(one.who)]
            assert drawn["characters"][row, 9:].tolist() == [1] * len(guests) + [0] * (2 - len(guests))
            looks = [[drawn[key][row, place] for key in OF_GUESTS[:3]] for place in range(len(guests))]
            assert looks == [[*guest.look] for guest in guests if guest]
            actions = [one.action for one in scene.shown]
            assert sorted(drawn["action"][row][drawn["action"][row] >= 0].tolist()) == sorted(actions)
            held = [one.prop for one in scene.shown if tale.guest(one.who)]
            assert drawn["prop"][row, 9 : 9 + len(guests)].tolist() == held
            alone += len(guests) == 1 and columns_of(tale)[scene.shown[0].who] == 10
    assert alone, "nowhere is the second guest alone"


def test_stories_of_all_lengths_make_a_batch(stories: ToonSV2):
    batch = batch_of(stories[:6])
    assert batch.mask.sum(1).tolist() == stories.story_lengths()[:6].tolist()
    assert batch.labels["hat"].shape[:2] == batch.mask.shape


def test_counts_of_a_split_are_of_those_who_are_shown():
    table = counts("test", 60)
    assert set(table) == set(LABEL_VALUES)
    assert all(tuple(table[key]) == names for key, names in LABEL_VALUES.items())
    shown = sum(table["characters"].values())
    assert shown == sum(table["action"].values()) == sum(table["hat"].values()) == sum(table["cast_known"].values())
    assert sum(table["guest_shape"].values()) == table["characters"]["guest"] + table["characters"]["second guest"]
    assert sum(table["setting"].values()) == ToonSV2("test", 60).story_lengths().sum()
    assert all(number > 0 for key in ("action", "prop", "hat", "setting", "light") for number in table[key].values())


def test_labels_in_words_say_how_each_fact_is_known(stories: ToonSV2):
    words = [line for i in range(NUM) for line in stories.label_words(i)[1:]]
    assert all(any(f"({known})" in line for line in words) for known in KNOWN if known != "unsaid")
    assert "(" not in label_words(stories.facts(0), stories.facts(0).source)


def imports_of(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


def test_facts_and_pictures_are_made_without_words():
    """What invents, keeps and draws facts imports none of the modules that tell them."""
    folder = Path(toonsv.__file__).parent
    silent = {"facts", "dice", "casting", "chronicle", "happenings", "invention", "stage", "labels"}
    for name in silent:
        ours = {
            module for module in imports_of(folder / f"{name}.py") if module.startswith("storydalle.stories.toonsv")
        }
        assert ours <= {f"storydalle.stories.toonsv.{other}" for other in silent}


def test_the_values_in_the_config_are_those_of_their_names():
    text = (conf_folder() / "data" / "toon2.yaml").read_text(encoding="utf-8")
    for line, known in (
        ("pronoun: [cast_known, 3]", "pronoun"),
        ("setting_carried: [setting_known, 4]", "carried"),
        ("hat_returned: [hat_known, 5]", "returned"),
        ("other_guest: [look_known, 1]", "source"),
    ):
        assert line in text and KNOWN[int(line[-2])] == known


def test_prepare_writes_a_contact_sheet_and_counts(command: Command) -> None:  # noqa: F811
    run = command("prepare", "data=toon2", "data.resolution=64", "num_stories=2", "split=misleading", "out=look")
    assert run.status == 0, run.err
    assert Path("look/contact_sheet.png").is_file() and Path("look/counts.json").is_file()
    wrong = command("prepare", "data=toon2", "split=misled", "out=look")
    assert wrong.status == 2 and "misleading" in wrong.err


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"split": "training"}, "training"),
        ({"split": "train", "resolution": 100}, "100"),
        ({"split": "train", "num_stories": 0}, "0"),
        ({"split": "train", "num_targets": 0}, "0"),
    ],
)
def test_bad_settings_are_named(settings: dict, named: str):
    with pytest.raises(ValueError, match=named):
        ToonSV2(**settings)
