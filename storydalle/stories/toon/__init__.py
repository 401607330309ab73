"""ToonSV: a procedural benchmark for story continuation, drawn by code, with exact labels.

``ToonSV(split)[i]`` is the same story on every machine: facts and captions depend only on (split, i, num_targets),
pictures also on the resolution. The tuples of names below give the meaning of the numbers in labels;
``data/toon/README.md`` has the number of each.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from storydalle.stories.toon.captions import captions_of, descriptions_of
from storydalle.stories.toon.cartoon_stories import CartoonStories, of_other_look
from storydalle.stories.toon.cartoons import draw_frame
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


class ToonSV(CartoonStories[StoryFacts]):
    """The stories of a split, each of ``num_targets``. Looks of guests in ``unseen`` occur in no other split."""

    title = "ToonSV"
    prefix = "toon"
    splits = NUM_STORIES

    def __init__(
        self,
        split: str,
        num_stories: int | None = None,
        num_targets: int = 4,
        resolution: int = 64,
        probes: bool = False,
    ) -> None:
        super().__init__(split, num_stories, num_targets, resolution, probes)

    def invented(self, index: int) -> StoryFacts:
        assert self.num_targets is not None
        return sample_story(self.split, index, self.num_targets)

    def told(self, facts: StoryFacts) -> tuple[list[str], list[str]]:
        return captions_of(facts), descriptions_of(facts)

    def labels(self, facts: StoryFacts) -> dict[str, np.ndarray]:
        return labels_of(facts)

    def pictures(self, facts: StoryFacts) -> list[np.ndarray]:
        return [draw_frame(facts, frame, self.resolution) for frame in facts.frames]

    def other_guest(self, facts: StoryFacts) -> np.ndarray:
        if facts.guest is not None:
            facts = replace(facts, guest=of_other_look(facts.guest, facts.index))
        return draw_frame(facts, facts.source, self.resolution)

    def labels_in_words(self, facts: StoryFacts) -> list[str]:
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
