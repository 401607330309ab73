"""ToonSV 2: stories in which each character has its own action, thing and hat, and facts outlive many frames.

``ToonSV2(split)[i]`` is the same story on every machine: facts and captions depend only on (split, i, num_targets),
pictures also on the resolution. ``data/toon2/README.md`` describes the world and its labels.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from storydalle.stories.toon.cartoon_stories import CartoonStories, of_other_look
from storydalle.stories.toon.world import UNSEEN_LOOKS, Guest
from storydalle.stories.toonsv.facts import Tale
from storydalle.stories.toonsv.invention import SPLITS, invent, length_of
from storydalle.stories.toonsv.labels import COLUMNS, LABEL_VALUES, label_words, labels_of
from storydalle.stories.toonsv.stage import draw_scene
from storydalle.stories.toonsv.telling import captions_of, descriptions_of

NUM_TALES = {split: 500 for split in SPLITS} | {"train": 40_000, "long20": 200, "long50": 100}


class ToonSV2(CartoonStories[Tale]):
    """The stories of a split. Looks of guests in ``unseen`` never occur in the other splits.

    Without ``num_targets`` a story has 2 to 8 of them; those of the splits "long20" and "long50" have 20 and 50.
    """

    title = "ToonSV 2"
    prefix = "toon2"
    splits = NUM_TALES

    def story_lengths(self) -> np.ndarray:
        if self.num_targets is not None:
            return super().story_lengths()
        return np.array([length_of(self.split, i) for i in range(len(self))])

    def invented(self, index: int) -> Tale:
        return invent(self.split, index, self.num_targets)

    def told(self, facts: Tale) -> tuple[list[str], list[str]]:
        return captions_of(facts), descriptions_of(facts)

    def labels(self, facts: Tale) -> dict[str, np.ndarray]:
        return labels_of(facts)

    def pictures(self, facts: Tale) -> list[np.ndarray]:
        return [draw_scene(facts, scene, self.resolution) for scene in facts.frames]

    def other_guest(self, facts: Tale) -> np.ndarray:
        roster = tuple(of_other_look(one, facts.index) if isinstance(one, Guest) else one for one in facts.roster)
        return draw_scene(replace(facts, roster=roster), facts.source, self.resolution)

    def labels_in_words(self, facts: Tale) -> list[str]:
        return [label_words(facts, scene) for scene in facts.frames]


def counts(split: str, num_stories: int | None = None) -> dict[str, dict[str, int]]:
    """The number of each label value in the target frames of the first ``num_stories`` of a split: of characters that
    are shown, and of looks of guests that are."""
    stories = ToonSV2(split, num_stories)
    found: dict[str, Counter[int]] = {key: Counter() for key in LABEL_VALUES}
    for i in range(len(stories)):
        labels = labels_of(stories.facts(i))
        shown = labels["characters"] > 0
        for key, values in labels.items():
            if key == "characters":
                found[key].update(np.nonzero(values)[1].tolist())
            elif key in found:
                is_there = {shown.shape: shown, shown[:, -2:].shape: shown[:, -2:]}.get(values.shape)
                found[key].update((values if is_there is None else values[is_there]).ravel().tolist())
    return {key: {name: found[key][value] for value, name in enumerate(names)} for key, names in LABEL_VALUES.items()}


__all__ = [
    "COLUMNS",
    "LABEL_VALUES",
    "NUM_TALES",
    "SPLITS",
    "UNSEEN_LOOKS",
    "Tale",
    "ToonSV2",
    "counts",
    "label_words",
]
