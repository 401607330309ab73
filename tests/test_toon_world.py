"""ToonSV's facts: deterministic, consistent from frame to frame, and split so that ``unseen`` is unseen."""

from collections import Counter

import numpy as np
import pytest

from storydalle.stories.toon import (
    ACCESSORIES,
    CHARACTERS,
    COLORS,
    GUEST,
    HAT_KNOWN,
    HATS,
    LABEL_NAMES,
    PRONOUNS,
    PROPS,
    SEEN_LOOKS,
    SETTING_KNOWN,
    SHAPES,
    SPLITS,
    UNSEEN_LOOKS,
    ToonSV,
    counts,
)
from storydalle.stories.toon.names import NAMED

NUM = 300


@pytest.fixture(scope="module")
def stories() -> ToonSV:
    return ToonSV("train", NUM)


def test_facts_do_not_depend_on_the_order_of_access_or_the_instance(stories: ToonSV):
    again = ToonSV("train", 40_000)
    assert [again.facts(i) for i in reversed(range(20))] == [stories.facts(i) for i in reversed(range(20))]
    assert stories.facts(3) == stories.facts(3)


def test_facts_and_captions_are_the_same_at_every_resolution(stories: ToonSV):
    large = ToonSV("train", NUM, resolution=256)
    for i in range(20):
        assert large.facts(i) == stories.facts(i)
        assert large.outline(i).captions == stories.outline(i).captions
        assert large.outline(i).descriptions == stories.outline(i).descriptions


def test_no_two_splits_tell_the_same_captions():
    captions = {split: tuple(tuple(ToonSV(split, 20).outline(i).captions) for i in range(20)) for split in SPLITS}
    assert len(set(captions.values())) == len(SPLITS)


def test_unseen_looks_are_disjoint_from_training_looks():
    assert not set(SEEN_LOOKS) & set(UNSEEN_LOOKS)
    assert len(SEEN_LOOKS) + len(UNSEEN_LOOKS) == len(SHAPES) * len(COLORS) * len(ACCESSORIES)
    for split in ("train", "val", "test"):
        guests = [ToonSV(split, NUM).facts(i).guest for i in range(NUM)]
        assert {guest.look for guest in guests if guest} <= set(SEEN_LOOKS)
    unseen = [ToonSV("unseen", NUM).facts(i).guest for i in range(NUM)]
    assert {guest.look for guest in unseen if guest} <= set(UNSEEN_LOOKS)


def test_every_attribute_value_of_unseen_looks_occurs_in_training_in_every_pair():
    for a, b in ((0, 1), (0, 2), (1, 2)):
        seen = {(look[a], look[b]) for look in SEEN_LOOKS}
        assert {(look[a], look[b]) for look in UNSEEN_LOOKS} <= seen
    for axis, names in enumerate((SHAPES, COLORS, ACCESSORIES)):
        assert {look[axis] for look in UNSEEN_LOOKS} == set(range(len(names)))


def test_every_unseen_story_has_a_guest_and_every_guest_is_in_its_source():
    for split in ("train", "unseen"):
        for i in range(NUM):
            facts = ToonSV(split, NUM).facts(i)
            assert split == "train" or facts.guest
            assert (GUEST in facts.source.cast) == (facts.guest is not None)
            assert facts.guest or all(GUEST not in frame.cast for frame in facts.frames)
            assert not facts.guest or len(facts.source.cast) <= 2


def test_casts_are_ordered_by_first_appearance(stories: ToonSV):
    for i in range(NUM):
        order: list[int] = []
        for frame in stories.facts(i).frames:
            order += [character for character in frame.cast if character not in order]
            assert list(frame.cast) == sorted(frame.cast, key=order.index)
            assert 1 <= len(set(frame.cast)) == len(frame.cast) <= 3
        assert len(order) <= 3


def test_guests_never_wear_hats(stories: ToonSV):
    hats = np.stack([stories.outline(i).labels["hat"] for i in range(NUM)])
    assert hats[..., GUEST].max() == 0
    assert hats[..., :GUEST].max() > 0


def test_a_hat_is_worn_from_its_event_until_it_is_taken_off(stories: ToonSV):
    num_carried = 0
    for i in range(NUM):
        worn: dict[int, int] = {}
        for frame in stories.facts(i).targets:
            if frame.event:
                assert frame.event.wearer in frame.cast
                worn[frame.event.wearer] = frame.event.hat
            for character in range(len(CHARACTERS)):
                expected = worn.get(character, 0) if character in frame.cast else 0
                is_said = bool(frame.event and frame.event.wearer == character)
                known = "none" if not expected else "said" if is_said else "carried"
                assert frame.hats[character] == expected
                assert HAT_KNOWN[frame.hats_known[character]] == known
                num_carried += known == "carried"
    assert num_carried > NUM / 4


def test_settings_change_at_most_once_and_say_so(stories: ToonSV):
    for i in range(NUM):
        facts = stories.facts(i)
        known = [SETTING_KNOWN[frame.setting_known] for frame in facts.frames]
        change = known.index("said") if "said" in known else len(known)
        assert (
            known == ["source"] * change + ["said", "carried", "carried", "carried", "carried"][: len(known) - change]
        )
        assert all(frame.setting == facts.source.setting for frame in facts.frames[:change])
        later = {frame.setting for frame in facts.frames[change:]}
        assert len(later) <= 1 and facts.source.setting not in later


def test_props_are_held_only_where_one_or_two_are_named_or_one_is_meant(stories: ToonSV):
    for i in range(NUM):
        for frame in stories.facts(i).targets:
            assert not frame.prop or len(frame.cast) <= 2 - frame.cast_known


def test_pronouns_are_used_only_where_they_are_clear(stories: ToonSV):
    num_pronouns = 0
    for i in range(NUM):
        facts = stories.facts(i)
        assert facts.targets[0].cast_known == 0
        for previous, frame in zip(facts.targets, facts.targets[1:], strict=False):
            num_pronouns += frame.cast_known
            if frame.cast_known and len(frame.cast) > 1:
                assert frame.cast == previous.cast
            elif frame.cast_known:
                (meant,) = (c for c in previous.cast if PRONOUNS[c] == PRONOUNS[frame.cast[0]])
                assert meant == frame.cast[0]
    assert num_pronouns > NUM / 2


def test_names_of_guests_are_new_words():
    names = {guest.name for i in range(NUM) if (guest := ToonSV("unseen", NUM).facts(i).guest)}
    words = {word for names_ in LABEL_NAMES.values() for word in names_}
    assert len(names) > NUM / 2
    assert not {name.lower() for name in names} & (set(NAMED) | words)


def test_labels_have_the_documented_shapes_and_ranges():
    labels = ToonSV("train", 5, num_targets=6).outline(2).labels
    wide = {"characters", "hat", "hat_known"}
    for key, names in LABEL_NAMES.items():
        assert labels[key].shape == ((6, len(CHARACTERS)) if key in wide else (6,))
        assert labels[key].dtype == np.int64
        lowest = -1 if key in ("guest_shape", "guest_color", "guest_accessory") else 0
        assert lowest <= labels[key].min() and labels[key].max() < len(names)
        source = labels.get(f"source_{key}")
        assert (source is None) == key.endswith("_known")
        assert source is None or source.shape == labels[key].shape[1:]


def test_labels_agree_with_the_facts(stories: ToonSV):
    for i in range(50):
        facts, labels = stories.facts(i), stories.outline(i).labels
        for f, frame in enumerate(facts.targets):
            assert np.flatnonzero(labels["characters"][f]).tolist() == sorted(frame.cast)
            assert labels["guest"][f] == (GUEST in frame.cast)
            look = [labels[f"guest_{part}"][f] for part in ("shape", "color", "accessory")]
            assert look == (list(facts.guest.look) if facts.guest and GUEST in frame.cast else [-1, -1, -1])
            assert (labels["setting"][f], labels["action"][f], labels["prop"][f]) == (
                frame.setting,
                frame.action,
                frame.prop,
            )
            assert labels["tint"][f] == facts.tint == labels["source_tint"]


def test_every_value_of_every_label_occurs():
    table = counts("train", 400)
    assert set(table) == set(LABEL_NAMES)
    for key, names in LABEL_NAMES.items():
        assert tuple(table[key]) == names
        assert all(count > 0 for count in table[key].values()), key


def test_counts_of_a_split_equal_those_of_its_labels():
    labels = [ToonSV("val", 40).outline(i).labels for i in range(40)]
    settings = Counter(setting for label in labels for setting in label["setting"].tolist())
    assert list(counts("val", 40)["setting"].values()) == [settings[i] for i in range(8)]
    assert counts("val", 40)["characters"]["guest"] == sum(label["guest"].sum() for label in labels)
    assert sum(counts("val", 40)["hat"].values()) == 40 * 4 * len(CHARACTERS)


def test_stories_of_one_target_and_of_ten_are_possible():
    for num_targets in (1, 10):
        facts = ToonSV("test", 30, num_targets=num_targets).facts(29)
        assert len(facts.targets) == num_targets


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"split": "training"}, "training"),
        ({"split": "train", "resolution": 100}, "100"),
        ({"split": "train", "resolution": 512}, "512"),
        ({"split": "train", "num_stories": 0}, "0"),
    ],
)
def test_bad_settings_are_named(settings: dict, named: str):
    with pytest.raises(ValueError, match=named):
        ToonSV(**settings)


def test_a_story_beyond_the_end_is_an_index_error():
    with pytest.raises(IndexError, match="7"):
        ToonSV("val", 7)[7]
    assert len(ToonSV("val", 7)[2:5]) == 3
    assert ToonSV("val", 7)[-1].id == "toon/val/000006"


def test_every_character_has_a_pronoun_and_the_first_hat_and_prop_are_none():
    assert len(CHARACTERS) == len(PRONOUNS) == 10
    assert (HATS[0], PROPS[0], HAT_KNOWN[0]) == ("none", "none", "none")
