"""ToonSV 2's facts: a replay of what captions tell arrives at them, and each is known as its label says."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from storydalle.stories.toon import SEEN_LOOKS, SETTINGS, UNSEEN_LOOKS
from storydalle.stories.toon.world import Guest
from storydalle.stories.toonsv import SPLITS, Tale, ToonSV2
from storydalle.stories.toonsv.facts import EVENTS, KNOWN, MARKS, Appearance, Event, Scene, look_words
from storydalle.stories.toonsv.invention import invent

NUMBERS = {"train": 300, "unseen": 150, "misleading": 150, "long20": 20, "long50": 10}


@pytest.fixture(scope="module")
def tales() -> list[Tale]:
    return [invent(split, i) for split, number in NUMBERS.items() for i in range(number)]


def frames_of(tales: list[Tale]) -> Iterator[tuple[Tale, Scene, Scene]]:
    """Each target with the frame before it."""
    for tale in tales:
        yield from ((tale, *pair) for pair in zip(tale.frames, tale.targets, strict=False))


@dataclass
class Replay:
    """What holds after each caption, from events alone: written from the rules, without the package's own chronicle."""

    hats: dict[int, int]
    props: dict[int, int]
    place: int
    light: int
    been: list[int] = field(default_factory=list)
    home: int = -1

    def tell(self, event: Event) -> None:
        who, whom, value = event.who, event.whom, event.value
        objects = self.hats if "hat" in event.kind or event.kind in ("puts_on", "takes_off", "wears") else self.props
        match event.kind:
            case "puts_on" | "takes_up" | "wears" | "holds":
                objects[who] = value
            case "takes_off" | "puts_down":
                assert objects.pop(who) == value, "only what one has can be lost"
            case "gives_hat" | "gives_prop":
                assert not objects.get(whom), "the other has a free head and hand"
                objects[whom] = objects.pop(who)
                assert objects[whom] == value
            case "swaps_hats" | "swaps_props":
                objects[who], objects[whom] = objects[whom], objects[who]
                assert objects[whom] == value != objects[who]
            case "turns":
                assert value != self.light
                self.light = value
            case "is_time":
                self.light = value
            case "travels" | "returns" | "returns_to_last" | "returns_to_start" | "returns_home":
                assert value != self.place
                assert (value in self.been) == (event.kind != "travels")
                assert event.kind != "returns_to_last" or value == self.been[-2]
                assert event.kind != "returns_to_start" or value == self.been[0]
                assert event.kind != "returns_home" or value == self.home
                self.place = value
                self.been.append(value)
            case "is_in" | "is_home":
                self.home = value if event.kind == "is_home" else self.home
                if value != self.place:
                    self.place, self.been = value, [value]
            case _:
                assert event.kind in ("arrives", "comes_back", "leaves", "is_away", "looks", "is_the_one")


def replayed(source: Scene) -> Replay:
    hats = {one.who: one.hat for one in source.shown if one.hat}
    props = {one.who: one.prop for one in source.shown if one.prop}
    return Replay(hats, props, source.setting, source.light, [source.setting])


def test_a_replay_of_the_events_arrives_at_every_fact(tales: list[Tale]):
    for tale in tales:
        replay = replayed(tale.source)
        for scene in tale.targets:
            for event in scene.events:
                replay.tell(event)
            assert (scene.setting, scene.light) == (replay.place, replay.light)
            for one in scene.shown:
                assert (one.hat, one.prop) == (replay.hats.get(one.who, 0), replay.props.get(one.who, 0))


def tells(kind: str, event: Event) -> bool:
    """True if an event says something about a hat, a prop, the setting by name, or the light."""
    return (
        event.kind
        in {
            "hat": ("puts_on", "takes_off", "gives_hat", "swaps_hats", "wears"),
            "prop": ("takes_up", "puts_down", "gives_prop", "swaps_props", "holds"),
            "setting": ("travels", "returns", "is_in", "is_home"),
            "light": ("turns", "is_time"),
        }[kind]
    )


def test_a_hat_or_a_thing_is_known_by_the_last_that_was_told_of_it(tales: list[Tale]):
    for tale in tales:
        for kind in ("hat", "prop"):
            told: dict[int, str] = {one.who: "source" for one in tale.source.shown if getattr(one, kind)}
            before = tale.source
            for scene in tale.targets:
                now = {w for event in scene.events if tells(kind, event) for w in (event.who, event.whom)}
                for one in scene.shown:
                    expected = told.get(one.who, "unsaid")
                    if expected != "unsaid" and one.who not in before.cast:
                        expected = "returned"
                    expected = "said" if one.who in now else expected
                    assert KNOWN[getattr(one, f"{kind}_known")] == expected
                told |= dict.fromkeys(now, "carried")
                before = scene


def test_setting_and_light_are_of_the_source_until_they_are_said_and_carried_from_then_on(tales: list[Tale]):
    for tale in tales:
        for kind in ("setting", "light"):
            before = "source"
            for scene in tale.targets:
                is_said = any(tells(kind, event) for event in scene.events)
                back = kind == "setting" and bool(scene.told("returns_to_last", "returns_to_start", "returns_home"))
                expected = "said" if is_said else "returned" if back else before
                assert KNOWN[getattr(scene, f"{kind}_known")] == expected
                before = "carried" if expected in ("said", "returned") else before


def test_every_action_is_said_or_goes_on_from_the_frame_before(tales: list[Tale]):
    for _, before, scene in frames_of(tales):
        for one in scene.shown:
            assert KNOWN[one.action_known] in ("said", "carried")
            if KNOWN[one.action_known] == "carried":
                earlier = before.of(one.who)
                assert earlier is not None and earlier.action == one.action


def test_who_comes_was_away_and_who_leaves_was_there(tales: list[Tale]):
    for tale in tales:
        seen = set(tale.source.cast)
        for before, scene in zip(tale.frames, tale.targets, strict=False):
            for event in scene.told("arrives", "comes_back", "leaves", "is_away"):
                expected = {
                    "arrives": (False, True, False),
                    "comes_back": (False, True, True),
                    "leaves": (True, False, True),
                    "is_away": (False, False, True),
                }[event.kind]
                assert (event.who in before.cast, event.who in scene.cast, event.who in seen) == expected
            seen |= set(scene.cast)


def named_in(scene: Scene) -> set[int]:
    """Whom the caption names: by the cast, or as somebody of an event whom the frame does not show."""
    others = {who for event in scene.events for who in (event.who, event.whom) if who >= 0} - set(scene.cast)
    return others | {one.who for one in scene.shown if KNOWN[one.cast_known] == "said"}


def is_clear(tale: Tale, before: Scene, scene: Scene, meant: list[Appearance]) -> bool:
    """A pronoun each, or one word for all, means exactly these after the frame before."""
    pronouns = [tale.pronoun(who) for who in before.cast]
    named = {tale.pronoun(who) for who in named_in(scene)}
    each = all(pronouns.count(tale.pronoun(one.who)) == 1 and tale.pronoun(one.who) not in named for one in meant)
    left = {event.who for event in scene.told("leaves")}
    concerned = {who for event in scene.events for who in (event.who, event.whom)}
    do_the_same = len({(one.action, one.action_known) for one in meant}) == 1
    nobody_is_lost = set(before.cast) <= set(scene.cast) | left
    is_group = len(meant) > 1 and do_the_same and nobody_is_lost and not concerned & {one.who for one in meant}
    return is_group or (each and (len(meant) == 1 or nobody_is_lost))


def test_whoever_is_not_named_is_clear_from_the_frame_before(tales: list[Tale]):
    seen = Counter[str]()
    for tale, before, scene in frames_of(tales):
        seen.update(KNOWN[one.cast_known] for one in scene.shown)
        meant = [one for one in scene.shown if KNOWN[one.cast_known] == "pronoun"]
        silent = [one for one in scene.shown if KNOWN[one.cast_known] == "carried"]
        assert all(one.who in before.cast for one in (*meant, *silent))
        assert not meant or is_clear(tale, before, scene, meant)
        if silent:
            assert len(silent) == len(scene.shown) and scene.cast == before.cast
            assert len({(one.action, one.action_known) for one in silent}) == 1
            assert all(event.who == -1 or event.kind == "is_away" for event in scene.events)
    assert set(seen) == {"said", "pronoun", "carried"}


def test_a_frame_shows_one_to_four_in_the_order_in_which_they_came(tales: list[Tale]):
    for tale in tales:
        order = list(dict.fromkeys(who for scene in tale.frames for who in scene.cast))
        assert order == sorted(order)
        for scene in tale.frames:
            assert 1 <= len(set(scene.cast)) == len(scene.cast) <= 4
            assert list(scene.cast) == sorted(scene.cast)


def test_nobody_has_a_thing_that_another_has_and_guests_wear_no_hats(tales: list[Tale]):
    for tale in tales:
        replay = replayed(tale.source)
        for scene in tale.targets:
            for event in scene.events:
                replay.tell(event)
            in_hands = [prop for prop in replay.props.values() if prop]
            assert len(in_hands) == len(set(in_hands))
            assert not any(tale.guest(who) for who, hat in replay.hats.items() if hat)


def test_a_guest_is_in_the_source_or_is_described_where_it_first_comes(tales: list[Tale]):
    num_described = 0
    for tale in tales:
        seen = set(tale.source.cast)
        for scene in tale.targets:
            new = {who for who in scene.cast if who not in seen and tale.guest(who)}
            assert new == {event.who for event in scene.told("looks")}
            num_described += len(new)
            seen |= set(scene.cast)
    assert num_described > len(tales) / 40


def test_two_guests_of_a_source_are_told_apart_by_what_it_shows_when_one_first_comes(tales: list[Tale]):
    num_pairs = 0
    for tale in tales:
        pair = [who for who in tale.source.cast if tale.guest(who)]
        told = [(scene, event) for scene in tale.targets for event in scene.told("is_the_one")]
        shown = [scene for scene in tale.targets if set(pair) & set(scene.cast)]
        if len(pair) < 2 or not shown:
            assert not told
            continue
        num_pairs += 1
        ((scene, event),) = told
        assert scene is shown[0] and event.who in scene.cast and KNOWN[scene.of(event.who).cast_known] == "said"
        looks = dict(zip(pair, [look_words(tale.guest(who)) for who in pair], strict=True))
        other = pair[0] if event.who == pair[1] else pair[1]
        mark = MARKS[event.value]
        if mark in ("left", "right"):
            assert mark == ("left" if event.who == pair[0] else "right")
        else:
            assert looks[event.who][event.value] != looks[other][event.value]
    assert num_pairs > len(tales) / 30


def test_looks_of_unseen_are_in_no_other_split_and_each_of_its_stories_has_a_guest_in_its_source():
    for split in SPLITS:
        tales = [invent(split, i) for i in range(10 if split.startswith("long") else 200)]
        looks = {one.look for tale in tales for one in tale.roster if isinstance(one, Guest)}
        assert looks <= set(UNSEEN_LOOKS if split == "unseen" else SEEN_LOOKS)
        if split == "unseen":
            assert all(any(tale.guest(who) for who in tale.source.cast) for tale in tales)


def test_only_misleading_captions_contradict_the_source_and_each_of_its_stories_does():
    for split in ("train", "unseen", "misleading", "long20"):
        for i in range(100):
            tale = invent(split, i)
            wrong = 0
            for before, scene in zip(tale.frames, tale.targets, strict=False):
                wrong += any(event.value != before.setting for event in scene.told("is_in", "is_home"))
                wrong += any(event.value != before.light for event in scene.told("is_time"))
                for event in scene.told("wears", "holds"):
                    earlier = before.of(event.who)
                    had = None if earlier is None else earlier.hat if event.kind == "wears" else earlier.prop
                    wrong += had is not None and had != event.value
                if split == "misleading" and scene is tale.targets[0]:
                    assert wrong > 0
                else:
                    assert wrong == 0
                wrong = 0


def test_where_the_source_was_told_wrong_nobody_goes_back_to_where_all_began():
    for i in range(300):
        tale = invent("misleading", i)
        if any(event.value != tale.source.setting for event in tale.targets[0].told("is_in")):
            assert not [event for scene in tale.targets for event in scene.told("returns_to_start")]


def test_stories_are_the_same_in_any_order_from_any_instance_and_at_any_resolution():
    first, again = ToonSV2("train", 30), ToonSV2("train", 40_000, resolution=256)
    tales = [first.facts(i) for i in range(12)]
    invent.cache_clear()
    assert [again.facts(i) for i in reversed(range(12))] == tales[::-1]
    assert again.outline(7).captions == first.outline(7).captions
    lengths = first.story_lengths()
    assert [len(tale.targets) for tale in tales] == lengths[:12].tolist()
    assert ToonSV2("train", 30, num_targets=int(lengths[3])).facts(3) == tales[3]


def test_lengths_are_two_to_eight_twenty_and_fifty():
    assert set(ToonSV2("train", 300).story_lengths()) == set(range(2, 9))
    assert set(ToonSV2("long20").story_lengths()) == {20} and set(ToonSV2("long50").story_lengths()) == {50}
    assert len(ToonSV2("test", 1, num_targets=11).facts(0).targets) == 11


def test_what_a_model_has_to_learn_is_not_rare():
    tales = [invent("train", i) for i in range(600)]
    frames = [scene for _, _, scene in frames_of(tales)]
    shares = {f"cast of {number}": np.mean([len(scene.shown) == number for scene in frames]) for number in (1, 2, 3, 4)}
    for kind in ("hat", "prop"):
        for known in ("source", "said", "carried", "returned"):
            has = [
                any(getattr(o, kind) and KNOWN[getattr(o, f"{kind}_known")] == known for o in s.shown) for s in frames
            ]
            shares[f"{kind} {known}"] = np.mean(has)
    least = {"cast of 1": 0.35, "cast of 2": 0.25, "cast of 3": 0.13, "cast of 4": 0.045, "hat carried": 0.15}
    least |= {"hat said": 0.18, "hat source": 0.04, "hat returned": 0.018, "prop carried": 0.18, "prop returned": 0.025}
    assert {name: share for name, share in shares.items() if share < least.get(name, 0.1)} == {}
    events = Counter(event.kind for scene in frames for event in scene.events)
    assert set(events) == set(EVENTS) and min(events.values()) >= 3
    assert len({scene.setting for scene in frames}) == len(SETTINGS)
    own = [len({one.action for one in scene.shown}) > 1 for scene in frames if len(scene.shown) > 1]
    assert 0.4 < np.mean(own) < 0.65
