"""ToonSV: a procedural benchmark for story continuation, drawn by code, with exact labels.

``ToonSV(split)[i]`` is the same story on every machine: facts and captions depend only on (split, i, num_targets),
pictures also on the resolution. The tuples of names below give the meaning of the numbers in labels;
``data/toon/README.md`` has the number of each.
"""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np

from storydalle.stories.story import Outline, Shot, Stories
from storydalle.stories.toon.captions import captions_of, descriptions_of
from storydalle.stories.toon.cartoons import check_resolution, draw_frame
from storydalle.stories.toon.names import possible_names
from storydalle.stories.toon.world import (
    ACCESSORIES,
    ACTIONS,
    CAST_KNOWN,
    CHARACTERS,
    COLORS,
    GUEST,
    HAT_KNOWN,
    HATS,
    PRONOUNS,
    PROPS,
    SEEN_LOOKS,
    SETTING_KNOWN,
    SETTINGS,
    SHAPES,
    SPECIES,
    SPLITS,
    TINTS,
    UNSEEN_LOOKS,
    FrameFacts,
    Guest,
    HatEvent,
    StoryFacts,
    label_words,
    labels_of,
    sample_story,
)

NUM_SAMPLES = 16  # stories that stand for all in a fingerprint
NUM_STORIES = {"train": 40_000, "val": 500, "test": 500, "unseen": 500}
# What the values of each label are called. "characters" and "guest" are 0 or 1; guest looks are -1 without a guest.
LABEL_NAMES: dict[str, tuple[str, ...]] = {
    "characters": CHARACTERS,
    "cast_known": CAST_KNOWN,
    "setting": SETTINGS,
    "setting_known": SETTING_KNOWN,
    "tint": TINTS,
    "action": ACTIONS,
    "prop": PROPS,
    "guest": ("absent", "present"),
    "guest_shape": SHAPES,
    "guest_color": COLORS,
    "guest_accessory": ACCESSORIES,
    "hat": HATS,
    "hat_known": HAT_KNOWN,
}


class ToonSV(Stories):
    """The stories of a split. Looks of guests in ``unseen`` never occur in the other splits.

    ``probes=True`` adds to each story the source frame "other_guest": the same, but for the look of the guest, which
    differs in shape, colour and accessory (a story without a guest keeps its source).
    """

    def __init__(
        self,
        split: str,
        num_stories: int | None = None,
        num_targets: int = 4,
        resolution: int = 64,
        probes: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split={split!r}: ToonSV has {', '.join(SPLITS)}")
        num_stories = NUM_STORIES[split] if num_stories is None else num_stories
        if num_stories < 1 or num_targets < 1:
            raise ValueError(f"num_stories={num_stories}, num_targets={num_targets}: both must be at least 1")
        check_resolution(resolution)
        self.split = split
        self.num_stories = num_stories
        self.num_targets = num_targets
        self.resolution = resolution
        self.probes = probes

    def __len__(self) -> int:
        return self.num_stories

    def outline(self, index: int) -> Outline:
        facts = self.facts(index)
        clip, num_frames = str(facts.index), len(facts.frames)
        return Outline(
            id=f"toon/{self.split}/{facts.index:06d}",
            captions=captions_of(facts),
            shots=[Shot(clip, i) for i in range(num_frames)],
            labels=labels_of(facts),
            descriptions=descriptions_of(facts),
            probes={"other_guest": Shot(clip, num_frames)} if self.probes else {},
        )

    def made_up_names(self) -> list[str]:
        return possible_names()

    def story_lengths(self) -> np.ndarray:
        return np.full(len(self), self.num_targets)

    def clips(self) -> list[str]:
        return [str(i) for i in range(len(self))]

    def read(self, clip: str) -> np.ndarray:
        """A story's frames, source first; then its probes."""
        facts = self.facts(int(clip))
        frames = [draw_frame(facts, frame, self.resolution) for frame in facts.frames]
        return np.stack([*frames, self._other_guest(facts)] if self.probes else frames)

    def stamp(self, clip: str) -> str:
        return "drawn"

    def fingerprint(self) -> str:
        """A hash of stories of the split as they are drawn: only the drawing code can change them."""
        digest = hashlib.sha256(f"{len(self)}\n".encode())
        for i in range(0, len(self), max(1, len(self) // NUM_SAMPLES)):
            outline = self.outline(i)
            digest.update("\n".join([outline.id, *outline.captions, *outline.descriptions]).encode())
            for array in (self.read(outline.shots[0].clip), *outline.labels.values()):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def _other_guest(self, facts: StoryFacts) -> np.ndarray:
        if facts.guest is not None:
            own = facts.guest.look
            others = [look for look in SEEN_LOOKS if all(a != b for a, b in zip(look, own, strict=True))]
            look = others[facts.index % len(others)]
            facts = replace(facts, guest=Guest(facts.guest.name, *look))
        return draw_frame(facts, facts.source, self.resolution)

    def facts(self, index: int) -> StoryFacts:
        """The events of a story, without drawing it."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"story {index} of {len(self)}")
        return sample_story(self.split, index % len(self), self.num_targets)

    def label_words(self, index: int) -> list[str]:
        """The labels of each frame of a story in short words, the source's first."""
        facts = self.facts(index)
        return [label_words(facts, frame) for frame in facts.frames]


def counts(split: str, num_stories: int | None = None) -> dict[str, dict[str, int]]:
    """The number of each label value in the target frames of the first ``num_stories`` of a split."""
    stories = ToonSV(split, num_stories)
    labels = [stories.outline(i).labels for i in range(len(stories))]
    table: dict[str, dict[str, int]] = {}
    for key, names in LABEL_NAMES.items():
        values = np.stack([label[key] for label in labels])
        if key == "characters":
            numbers = values.sum(axis=(0, 1))
        else:
            found = Counter(values.ravel().tolist())
            numbers = np.array([found[value] for value in range(len(names))])
        table[key] = {name: int(number) for name, number in zip(names, numbers, strict=True)}
    return table


__all__ = [
    "ACCESSORIES",
    "ACTIONS",
    "CAST_KNOWN",
    "CHARACTERS",
    "COLORS",
    "GUEST",
    "HATS",
    "HAT_KNOWN",
    "LABEL_NAMES",
    "NUM_STORIES",
    "PRONOUNS",
    "PROPS",
    "SEEN_LOOKS",
    "SETTINGS",
    "SETTING_KNOWN",
    "SHAPES",
    "SPECIES",
    "SPLITS",
    "TINTS",
    "UNSEEN_LOOKS",
    "FrameFacts",
    "Guest",
    "HatEvent",
    "StoryFacts",
    "ToonSV",
    "counts",
    "label_words",
]
