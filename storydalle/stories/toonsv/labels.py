"""The labels of a story of ToonSV 2 as arrays: a column for each named character and for two guests."""

from dataclasses import replace

import numpy as np

from storydalle.stories.toon.names import NAMED
from storydalle.stories.toon.world import ACCESSORIES, ACTIONS, COLORS, HATS, PROPS, SETTINGS, SHAPES, TINTS, Guest
from storydalle.stories.toonsv.facts import KNOWN, KNOWN_SAID, UNSAID, Appearance, Scene, Tale

COLUMNS = (*NAMED, "guest", "second guest")
NUM_GUESTS = 2
# The names of the values of each label. "characters" is 0 or 1.
LABEL_VALUES: dict[str, tuple[str, ...]] = {
    "characters": COLUMNS,
    "cast_known": KNOWN,
    "action": ACTIONS,
    "action_known": KNOWN,
    "prop": PROPS,
    "prop_known": KNOWN,
    "hat": HATS,
    "hat_known": KNOWN,
    "setting": SETTINGS,
    "setting_known": KNOWN,
    "light": TINTS,
    "light_known": KNOWN,
    "guest_shape": SHAPES,
    "guest_color": COLORS,
    "guest_accessory": ACCESSORIES,
    "look_known": KNOWN,
}
OF_CHARACTERS = ("cast_known", "action", "action_known", "prop", "prop_known", "hat", "hat_known")  # (f, columns)
OF_GUESTS = ("guest_shape", "guest_color", "guest_accessory", "look_known")  # (f, 2)
ABSENT = {"action": -1, "guest_shape": -1, "guest_color": -1, "guest_accessory": -1}  # of whoever is not shown: else 0


def labels_of(tale: Tale) -> dict[str, np.ndarray]:
    """Labels as int64 arrays (f, ...) of the targets; those of the source are named source_... and have no f.

    An action that no caption says is -1.
    """
    rows = [scene_labels(tale, scene) for scene in tale.targets]
    labels = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
    source = scene_labels(tale, tale.source)
    return labels | {f"source_{key}": value for key, value in source.items() if not key.endswith("_known")}


def drawn_labels(tale: Tale) -> dict[str, np.ndarray]:
    """Labels of what each frame shows to somebody who has read nothing, int64 arrays (f + 1, ...), the source's first.

    So every action is told, and the guests of a frame fill their columns from left to right.
    """
    rows = [_from_left(scene_labels(replace(tale, source=scene), scene)) for scene in tale.frames]
    return {key: np.stack([row[key] for row in rows]) for key in rows[0] if not key.endswith("_known")}


def _from_left(labels: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The labels of a frame, with the second guest in the first one's place if it is alone."""
    if labels["characters"][-NUM_GUESTS]:
        return labels
    order = [*range(-len(COLUMNS), -NUM_GUESTS), -1, -NUM_GUESTS]
    return {key: value[order[-len(value) :]] if value.ndim else value for key, value in labels.items()}


def columns_of(tale: Tale) -> tuple[int, ...]:
    """The column of each character of the roster."""
    guests = [who for who in range(len(tale.roster)) if tale.guest(who)]
    return tuple(
        len(NAMED) + guests.index(who) if isinstance(character, Guest) else character
        for who, character in enumerate(tale.roster)
    )


def scene_labels(tale: Tale, scene: Scene) -> dict[str, np.ndarray]:
    """The labels of one frame."""
    columns = columns_of(tale)
    rows = {key: [ABSENT.get(key, 0)] * len(COLUMNS) for key in ("characters", *OF_CHARACTERS)}
    looks = {key: [ABSENT.get(key, 0)] * NUM_GUESTS for key in OF_GUESTS}
    for one in scene.shown:
        rows["characters"][columns[one.who]] = 1
        for key in OF_CHARACTERS:
            rows[key][columns[one.who]] = getattr(one, key)
        if one.action_known == UNSAID and scene is not tale.source:
            rows["action"][columns[one.who]] = -1
        if guest := tale.guest(one.who):
            _fill_look(looks, columns[one.who] - len(NAMED), guest, one)
    scenery = {key: getattr(scene, key) for key in ("setting", "setting_known", "light", "light_known")}
    return {key: np.array(value, dtype=np.int64) for key, value in (rows | scenery | looks).items()}


def _fill_look(looks: dict[str, list[int]], column: int, guest: Guest, one: Appearance) -> None:
    values = (guest.shape, guest.color, guest.accessory, one.look_known)
    for key, value in zip(OF_GUESTS, values, strict=True):
        looks[key][column] = value


def label_words(tale: Tale, scene: Scene) -> str:
    """The labels of a frame in short words: "Pip (pronoun) runs (said), red hat (carried) | beach (said) | day"."""
    shown = [_words(tale, one, scene is tale.source) for one in scene.shown]
    places = [
        _with(SETTINGS[scene.setting], scene.setting_known),
        _with(TINTS[scene.light], scene.light_known),
    ]
    return " | ".join([*shown, *places])


def _words(tale: Tale, one: Appearance, is_source: bool) -> str:
    words = [_with(tale.name(one.who), one.cast_known)]
    if one.action_known or is_source:
        words.append(_with(ACTIONS[one.action], one.action_known))
    hat = HATS[one.hat] if one.hat else "no"
    things = [(PROPS[one.prop] if one.prop else "no thing", one.prop_known), (f"{hat} hat", one.hat_known)]
    told = [_with(word, known) for word, known in things if known == KNOWN_SAID or not word.startswith("no ")]
    return ", ".join([" ".join(words), *told])


def _with(word: str, known: int) -> str:
    return f"{word} ({KNOWN[known]})" if known else word
