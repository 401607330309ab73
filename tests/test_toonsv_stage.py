"""ToonSV 2's pictures: each figure has its own action, hat and thing, and nothing that tells a fact is covered."""

from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
import pytest

from storydalle.stories.toon import ACTIONS, CHARACTERS, GUEST, HATS, PROPS, SETTINGS, TINTS, FrameFacts, StoryFacts
from storydalle.stories.toon.cartoons import draw_body, draw_frame
from storydalle.stories.toon.pen import PATCH, UNITS
from storydalle.stories.toon.world import Guest
from storydalle.stories.toonsv import ToonSV2
from storydalle.stories.toonsv.facts import Appearance, Scene, Tale
from storydalle.stories.toonsv.stage import CORNERS, EIGHTHS, draw_scene, parts_of, placed_layers

ROSTER = (5, Guest("Zub", 4, 0, 0), 2, Guest("Mo", 5, 5, 3))  # the fox, with its tail, and antennae and horns
SIZES = tuple(CORNERS)
SCENE = Scene((Appearance(0, 0),), 0, 0)
TALE = Tale("test", 0, ROSTER, SCENE, ())


def scene_of(number: int, actions: list[int] | None = None, props: list[int] | None = None) -> Scene:
    """A scene of the first of the roster; all named ones wear red hats."""
    actions, props = actions or [0] * number, props or [0] * number
    hats = [int(isinstance(one, int)) for one in ROSTER]
    shown = tuple(Appearance(who, actions[who], props[who], hats[who]) for who in range(number))
    return Scene(shown, 0, 0)


def differ(one: Scene, other: Scene, resolution: int = 64) -> np.ndarray:
    """The pixels in which two scenes differ clearly."""
    pictures = [draw_scene(TALE, scene, resolution).astype(int) for scene in (one, other)]
    return np.abs(pictures[0] - pictures[1]).max(axis=-1) > 40


@pytest.mark.parametrize("resolution", [64, 96, 128, 256])
def test_frames_have_the_resolution_asked_for(resolution: int):
    story = ToonSV2("train", 3, num_targets=3, resolution=resolution)[1]
    assert story.source.shape == (resolution, resolution, 3) and story.source.dtype == np.uint8
    assert story.frames.shape == (3, resolution, resolution, 3)


def test_a_story_is_the_same_bytes_whatever_was_drawn_before():
    first = ToonSV2("train", 30)[7]
    draw_body.cache_clear()
    others = [ToonSV2("train", 30)[i] for i in (3, 29, 7)]
    assert np.array_equal(first.frames, others[-1].frames) and np.array_equal(first.source, others[-1].source)


@pytest.mark.parametrize("number", SIZES)
def test_every_fact_of_every_figure_shows_at_64_pixels(number: int):
    """Another action, hat or thing of one figure alters at least eight pixels clearly, wherever it stands."""
    plain = scene_of(number)
    for place, one in enumerate(plain.shown):
        kinds = {"action": ACTIONS, "prop": PROPS, "hat": HATS if one.hat else ()}
        for kind, values in kinds.items():
            scenes = []
            for value in range(len(values)):
                shown = tuple(
                    replace(one, **{kind: value}) if i == place else other for i, other in enumerate(plain.shown)
                )
                scenes.append(replace(plain, shown=shown))
            for i, j in product(range(len(values)), repeat=2):
                assert i >= j or differ(scenes[i], scenes[j]).sum() >= 8, (kind, values[i], values[j])


@pytest.mark.parametrize("number", SIZES)
def test_a_figures_own_action_changes_nothing_on_the_other_side_of_the_frame(number: int):
    """What one figure does and holds stays within half a figure of its neighbours' places."""
    plain = scene_of(number)
    size = 128 * EIGHTHS[number] // PATCH
    for place, action in product(range(number), range(len(ACTIONS))):
        shown = tuple(replace(one, action=action) if i == place else one for i, one in enumerate(plain.shown))
        columns = np.flatnonzero(differ(plain, replace(plain, shown=shown), 128).any(axis=0))
        middle = CORNERS[number][place][0] * 128 // UNITS + size // 2
        assert not columns.size or np.abs(columns - middle).max() <= size // 4 + 2


class Seen(NamedTuple):
    """Where a part of a figure is, 768 x 768 with the frame in the middle, and where a later one covers it."""

    place: int
    part: str
    area: np.ndarray
    hidden: np.ndarray


def parts_seen(scene: Scene) -> list[Seen]:
    """All parts of all figures, at 256 pixels."""
    corners = CORNERS[len(scene.shown)]
    own = [parts_of(TALE, one, 256 * EIGHTHS[len(corners)] // PATCH) for one in scene.shown]
    found: list[Seen] = []
    hidden = np.zeros((768, 768), dtype=bool)
    for layer, corner in reversed(placed_layers(TALE, scene, 256)):
        place = corners.index(corner)
        part = next(name for name, value in own[place]._asdict().items() if value and value.pixels is layer.pixels)
        area = np.zeros((768, 768), dtype=bool)
        top, left = 256 + layer.top + corner[1] * 4, 256 + layer.left + corner[0] * 4
        height, width = layer.pixels.shape[:2]
        area[top : top + height, left : left + width] = layer.pixels[:, :, 3] > 127
        others = [seen.area for seen in found if seen.place != place]
        found.append(Seen(place, part, area, np.any([hidden, *others], axis=0)))
    return found


def head_of(area: np.ndarray, number: int) -> np.ndarray:
    """The upper part of a body: hat, ears and face."""
    rows, columns = np.nonzero(area)
    unit = EIGHTHS[number] / PATCH * 256 / UNITS
    middle = (columns.min() + columns.max()) / 2
    head = np.zeros_like(area)
    head[rows.min() : int(rows.min() + 20 * unit), int(middle - 7 * unit) : int(middle + 7 * unit)] = True
    return head & area


@pytest.mark.parametrize("number", SIZES)
def test_no_neighbour_covers_a_face_a_hat_or_a_thing_whatever_they_do(number: int):
    rng = np.random.default_rng(0)
    for _ in range(60):
        actions = rng.integers(len(ACTIONS), size=number).tolist()
        props = rng.integers(len(PROPS), size=number).tolist()
        for seen in parts_seen(scene_of(number, actions, props)):
            if seen.part == "body":
                head = head_of(seen.area, number)
                assert (seen.hidden & head).sum() <= 0.08 * head.sum(), (actions, props)
            if seen.part == "thing":
                assert not (seen.hidden & seen.area).any(), (actions, props)


@pytest.mark.parametrize("number", SIZES)
def test_nothing_that_tells_a_fact_leaves_the_frame(number: int):
    inside = np.zeros((768, 768), dtype=bool)
    inside[256:512, 256:512] = True
    most = {"body": 0.01, "thing": 0.05, "signs": 0.2}
    for action, prop in product(range(len(ACTIONS)), range(len(PROPS))):
        for seen in parts_seen(scene_of(number, [action] * number, [prop] * number)):
            share = (seen.area & ~inside).sum() / max(1, seen.area.sum())
            assert share <= most[seen.part], (seen.part, seen.place, ACTIONS[action], PROPS[prop])


@pytest.mark.parametrize("cast", [(5,), (4,), (5, 2), (2, 9)])
def test_one_and_two_who_do_the_same_look_as_in_version_1(cast: tuple[int, ...]):
    """Up to rounding: where version 1 merges a figure with its thing first."""
    roster = tuple(ROSTER[1] if who == GUEST else who for who in cast)
    nobody = (0,) * len(CHARACTERS)
    for action, prop in product(range(len(ACTIONS)), (0, 4)):
        frame = FrameFacts(cast, 0, 3, 0, action, prop, nobody, nobody)
        first = draw_frame(StoryFacts("test", 0, 1, ROSTER[1], frame, ()), frame, 128)
        shown = tuple(Appearance(i, action, prop if i == 0 else 0) for i in range(len(cast)))
        ours = draw_scene(Tale("test", 0, roster, SCENE, ()), Scene(shown, 3, 1), 128)
        assert np.abs(first.astype(int) - ours).max() <= 2, (ACTIONS[action], prop)


@pytest.mark.parametrize("number", [3, 4])
def test_the_front_row_is_in_front(number: int):
    downs = [CORNERS[number][seen.place][1] for seen in parts_seen(scene_of(number)) if seen.part == "body"]
    assert downs == sorted(downs, reverse=True) and len(set(downs)) == 2, "parts are listed from the last one drawn"


def test_settings_and_lights_differ_behind_four():
    base = scene_of(4)
    for i, j in product(range(len(SETTINGS)), repeat=2):
        assert i >= j or differ(replace(base, setting=i), replace(base, setting=j)).mean() > 0.2
    for i, j in product(range(len(TINTS)), repeat=2):
        assert i >= j or differ(replace(base, light=i), replace(base, light=j)).mean() > 0.2


def test_one_and_two_have_the_full_size_and_three_and_four_whole_pixels_of_it():
    for resolution, eighths in product(range(64, 257, 8), EIGHTHS.values()):
        assert resolution * eighths % PATCH == 0
    assert EIGHTHS[1] == EIGHTHS[2] == 8


def test_the_probe_changes_the_looks_of_guests_and_nothing_else():
    for i in range(12):
        stories = ToonSV2("train", 12, num_targets=2, probes=True)
        story, tale = stories[i], stories.facts(i)
        changed = (story.probes["other_guest"] != story.source).any(-1)
        assert changed.any() == any(tale.guest(who) for who in tale.source.cast)
        assert changed.mean() < 0.5
