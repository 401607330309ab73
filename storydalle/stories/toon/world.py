"""The facts of a ToonSV story: characters, settings, actions, props and hats, and how a reader can know each.

Facts depend only on (split, index, number of targets). Nothing here draws or writes captions.
"""

import hashlib
from dataclasses import dataclass
from itertools import combinations, product
from typing import TypeAlias

import numpy as np

from storydalle.stories.toon.names import NAMED, sample_name

SPLITS = ("train", "val", "test", "unseen")
SPECIES = ("chick", "bunny", "bear", "frog", "cat", "fox", "penguin", "mouse", "elephant")
PRONOUNS = ("he", "she", "he", "he", "she", "he", "he", "she", "she", "it")  # of CHARACTERS
CHARACTERS = (*NAMED, "guest")
GUEST = len(NAMED)
SHAPES = ("square", "triangle", "star", "heart", "diamond", "cloud")
COLORS = ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink")
ACCESSORIES = ("antennae", "horns", "glasses", "scarf", "bow", "sprout")
SETTINGS = ("meadow", "beach", "forest", "snow", "desert", "city", "kitchen", "moon")
TINTS = ("day", "dusk", "night")
ACTIONS = ("waves", "jumps", "sits", "sleeps", "runs", "dances", "cries", "cheers")
PROPS = ("none", "ball", "balloon", "flower", "flag", "umbrella", "lantern")
HATS = ("none", "red", "blue", "green", "yellow")
CAST_KNOWN = ("explicit", "pronoun")
SETTING_KNOWN = ("source", "said", "carried")
HAT_KNOWN = ("none", "said", "carried")
EXPLICIT, PRONOUN = range(2)
FROM_SOURCE, SAID, CARRIED = range(3)

GuestLook: TypeAlias = tuple[int, int, int]  # shape, colour, accessory

NUM_HELD_OUT_LOOKS = 43  # 15 % of the 288 combinations
POOL_SHARES = (0.18, 0.42, 0.4)  # of stories with 1, 2, 3 characters
MOST_SHOWN, MOST_GUESTS = len(POOL_SHARES), 1
GUEST_SHARE = 0.6
HAT_SHARE = 0.6  # of stories in which a named character can wear one
SETTING_CHANGE_SHARE = 0.4
PRONOUN_SHARE = 0.58  # of captions where a pronoun is clear
PROP_SHARE = 0.45  # of frames where a prop is possible


@dataclass(frozen=True)
class Guest:
    """A character that only the source frame shows; captions use its invented name."""

    name: str
    shape: int
    color: int
    accessory: int

    @property
    def look(self) -> GuestLook:
        return self.shape, self.color, self.accessory


@dataclass(frozen=True)
class HatEvent:
    """A hat put on (``hat`` is an index of HATS) or taken off (``hat`` is 0) in a frame."""

    wearer: int
    hat: int


@dataclass(frozen=True)
class FrameFacts:
    """One frame. Characters are indices of CHARACTERS, in the order of their first appearance in the story."""

    cast: tuple[int, ...]
    cast_known: int
    setting: int
    setting_known: int
    action: int
    prop: int
    hats: tuple[int, ...]  # of every character; 0 for those that the frame does not show
    hats_known: tuple[int, ...]
    event: HatEvent | None = None


@dataclass(frozen=True)
class StoryFacts:
    """A story: its source frame and its target frames."""

    split: str
    index: int
    tint: int
    guest: Guest | None
    source: FrameFacts
    targets: tuple[FrameFacts, ...]

    @property
    def frames(self) -> tuple[FrameFacts, ...]:
        return self.source, *self.targets


def generator(*key: object) -> np.random.Generator:
    """A random stream that depends only on ``key``, on every machine and in every process."""
    digest = hashlib.sha256("/".join(map(str, ("toonsv", *key))).encode()).digest()
    return np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))


def _hold_out(looks: list[GuestLook]) -> tuple[GuestLook, ...]:
    """The looks of ``unseen``, spread evenly: all values about equally often, no pair of values more than twice."""
    most = (8, 6, 8)  # of the values of each axis
    held_out: list[GuestLook] = []
    for look in sorted(looks, key=lambda look: hashlib.sha256(f"toonsv/look/{look}".encode()).digest()):
        same = [[a == b for a, b in zip(look, other, strict=True)] for other in held_out]
        is_rare = all(sum(row[axis] for row in same) < most[axis] for axis in range(3))
        if is_rare and all(sum(row[a] and row[b] for row in same) < 2 for a, b in combinations(range(3), 2)):
            held_out.append(look)
    return tuple(sorted(held_out[:NUM_HELD_OUT_LOOKS]))


_LOOKS = list(product(range(len(SHAPES)), range(len(COLORS)), range(len(ACCESSORIES))))
UNSEEN_LOOKS = _hold_out(_LOOKS)
SEEN_LOOKS = tuple(look for look in _LOOKS if look not in UNSEEN_LOOKS)


def sample_story(split: str, index: int, num_targets: int) -> StoryFacts:
    """The facts of story ``index`` of ``split``."""
    rng = generator("facts", split, index, num_targets)
    guest = _sample_guest(rng, split) if split == "unseen" or rng.random() < GUEST_SHARE else None
    casts = _sample_casts(rng, guest is not None, num_targets)
    settings, settings_known = _sample_settings(rng, num_targets)
    events = _sample_hat_events(rng, casts)
    tint = _weighted(rng, (0.4, 0.3, 0.3))
    nobody = (0,) * len(CHARACTERS)
    action, prop = int(rng.integers(len(ACTIONS))), _sample_prop(rng, casts[0], EXPLICIT, None)
    source = FrameFacts(casts[0], EXPLICIT, settings[0], FROM_SOURCE, action, prop, nobody, nobody)
    frames = [source]
    worn = [0] * len(CHARACTERS)
    for position in range(1, num_targets + 1):
        cast, event, previous = casts[position], events.get(position), frames[-1]
        if event:
            worn[event.wearer] = event.hat
        is_clear = position > 1 and is_clear_by_pronoun(cast, previous.cast) and not (event and len(cast) > 1)
        cast_known = PRONOUN if is_clear and rng.random() < PRONOUN_SHARE else EXPLICIT
        hats = tuple(hat if character in cast else 0 for character, hat in enumerate(worn))
        said = event.wearer if event else None
        frames.append(
            FrameFacts(
                cast=cast,
                cast_known=cast_known,
                setting=settings[position],
                setting_known=settings_known[position],
                action=_sample_other(rng, len(ACTIONS), previous.action),
                prop=_sample_prop(rng, cast, cast_known, event),
                hats=hats,
                hats_known=tuple((SAID if c == said else CARRIED) if hat else 0 for c, hat in enumerate(hats)),
                event=event,
            )
        )
    return StoryFacts(split, index, tint, guest, source, tuple(frames[1:]))


def is_clear_by_pronoun(cast: tuple[int, ...], previous: tuple[int, ...]) -> bool:
    """A pronoun ("he", "she", "it" or "they") names exactly ``cast`` after a frame that shows ``previous``.

    "They" means all of the previous frame; the others mean the only one of the previous frame that they fit.
    """
    if len(cast) > 1:
        return cast == previous
    return cast == tuple(character for character in previous if PRONOUNS[character] == PRONOUNS[cast[0]])


def _weighted(rng: np.random.Generator, weights: tuple[float, ...]) -> int:
    return int(np.searchsorted(np.cumsum(weights), rng.random() * sum(weights), side="right"))


def _sample_other(rng: np.random.Generator, num_values: int, current: int) -> int:
    """Any value but ``current``."""
    return (current + 1 + int(rng.integers(num_values - 1))) % num_values


def _sample_guest(rng: np.random.Generator, split: str) -> Guest:
    looks = UNSEEN_LOOKS if split == "unseen" else SEEN_LOOKS
    look = looks[int(rng.integers(len(looks)))]
    return Guest(sample_name(rng), *look)


def _sample_casts(rng: np.random.Generator, has_guest: bool, num_targets: int) -> list[tuple[int, ...]]:
    """The characters of the source and of each target, ordered by first appearance.

    The pool of a story is 1 to 3 characters, so that names recur; a guest is always in the source frame.
    """
    pool_size = 1 + _weighted(rng, POOL_SHARES)
    pool = [int(character) for character in rng.permutation(GUEST)[: pool_size - has_guest]]
    if has_guest:
        pool.insert(0, GUEST)
        source = {GUEST}
        if pool_size > 1 and rng.random() < 0.5:
            source.add(pool[1])
    else:
        source = set(pool[: 1 + int(rng.integers(pool_size))])
    order = [pool[i] for i in rng.permutation(pool_size)]
    order.sort(key=lambda character: character not in source)
    casts = [tuple(character for character in order if character in source)]
    for _ in range(num_targets):
        if len(casts) > 1 and rng.random() < 0.4:
            chosen = set(casts[-1])
        else:
            size = 1 + _weighted(rng, (0.4, 0.34, 0.26)[:pool_size])
            chosen = {order[int(i)] for i in rng.permutation(pool_size)[:size]}
        seen = [character for character in order if any(character in cast for cast in casts)]
        order = seen + [character for character in order if character not in seen]
        order = seen + sorted(order[len(seen) :], key=lambda character: character not in chosen)
        casts.append(tuple(character for character in order if character in chosen))
    return casts


def _sample_settings(rng: np.random.Generator, num_targets: int) -> tuple[list[int], list[int]]:
    """The setting of every frame, source first, and how a reader knows it; it changes at most once."""
    first = int(rng.integers(len(SETTINGS)))
    settings, known = [first] * (num_targets + 1), [FROM_SOURCE] * (num_targets + 1)
    if rng.random() < SETTING_CHANGE_SHARE:
        change = 1 + int(rng.integers(max(1, num_targets - 1)))  # not in the last frame, so that it is carried
        settings[change:] = [_sample_other(rng, len(SETTINGS), first)] * (num_targets + 1 - change)
        known[change:] = [SAID] + [CARRIED] * (num_targets - change)
    return settings, known


def _sample_hat_events(rng: np.random.Generator, casts: list[tuple[int, ...]]) -> dict[int, HatEvent]:
    """Hats put on and taken off, by frame: early, and preferably by a character who appears again."""
    last = len(casts) - 1
    early = range(1, max(2, last))
    events: dict[int, HatEvent] = {}
    candidates = [
        (position, character, sum(character in cast for cast in casts[position + 1 :]))
        for position in early
        for character in casts[position]
        if character != GUEST
    ]
    if not candidates or rng.random() >= HAT_SHARE:
        return events
    lasting = [candidate for candidate in candidates if candidate[2] > 0] or candidates
    weights = tuple(later + 0.5 for _, _, later in lasting)
    position, wearer, _ = lasting[_weighted(rng, weights)]
    events[position] = HatEvent(wearer, 1 + int(rng.integers(len(HATS) - 1)))
    seconds = [at for at in range(position + 1, last + 1) if any(c not in (GUEST, wearer) for c in casts[at])]
    if seconds and rng.random() < 0.25:
        at = seconds[int(rng.integers(len(seconds)))]
        others = [character for character in casts[at] if character not in (GUEST, wearer)]
        other = others[int(rng.integers(len(others)))]
        events[at] = HatEvent(other, 1 + _sample_other(rng, len(HATS) - 1, events[position].hat - 1))
    removals = [at for at in range(position + 2, last + 1) if wearer in casts[at] and at not in events]
    if removals and rng.random() < 0.2:
        events[removals[int(rng.integers(len(removals)))]] = HatEvent(wearer, 0)
    return events


def _sample_prop(rng: np.random.Generator, cast: tuple[int, ...], cast_known: int, event: HatEvent | None) -> int:
    """A prop, only if a caption can say clearly who holds it: one or two characters, named or alone."""
    if len(cast) > 2 or event or (cast_known == PRONOUN and len(cast) > 1) or rng.random() >= PROP_SHARE:
        return 0
    return 1 + int(rng.integers(len(PROPS) - 1))


def labels_of(facts: StoryFacts) -> dict[str, np.ndarray]:
    """The labels of a story as int64 arrays: (f, ...) for the targets, ``source_`` ones for the source frame."""
    per_target = [_frame_labels(facts, frame) for frame in facts.targets]
    labels = {key: np.array([frame[key] for frame in per_target], dtype=np.int64) for key in per_target[0]}
    for key, value in _frame_labels(facts, facts.source).items():
        if not key.endswith("_known"):
            labels[f"source_{key}"] = np.array(value, dtype=np.int64)
    return labels


def _frame_labels(facts: StoryFacts, frame: FrameFacts) -> dict[str, object]:
    has_guest = GUEST in frame.cast
    shape, color, accessory = facts.guest.look if facts.guest and has_guest else (-1, -1, -1)
    return {
        "characters": [int(character in frame.cast) for character in range(len(CHARACTERS))],
        "cast_known": frame.cast_known,
        "setting": frame.setting,
        "setting_known": frame.setting_known,
        "tint": facts.tint,
        "action": frame.action,
        "prop": frame.prop,
        "guest": int(has_guest),
        "guest_shape": shape,
        "guest_color": color,
        "guest_accessory": accessory,
        "hat": list(frame.hats),
        "hat_known": list(frame.hats_known),
    }


def label_words(facts: StoryFacts, frame: FrameFacts) -> str:
    """The labels of a frame in short words, for people."""
    names = [(*NAMED, facts.guest.name if facts.guest else "guest")[character] for character in frame.cast]
    setting, cast = SETTINGS[frame.setting], " ".join(names)
    if frame is not facts.source:
        cast += f" ({CAST_KNOWN[frame.cast_known]})"
        setting += f" ({SETTING_KNOWN[frame.setting_known]})"
    words = [cast, ACTIONS[frame.action], setting, TINTS[facts.tint]]
    if frame.prop:
        words.append(PROPS[frame.prop])
    for character, hat in enumerate(frame.hats):
        if hat:
            words.append(f"{NAMED[character]} {HATS[hat]} hat ({HAT_KNOWN[frame.hats_known[character]]})")
    return " | ".join(words)
