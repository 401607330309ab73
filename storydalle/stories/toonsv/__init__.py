"""ToonSV 2: stories in which each character has its own action, thing and hat, and facts outlive many frames.

``ToonSV2(split)[i]`` is the same story on every machine: facts and captions depend only on (split, i, num_targets),
pictures also on the resolution. ``data/toon2/README.md`` describes the world and its labels.
"""

import hashlib
from collections import Counter
from dataclasses import replace

import numpy as np

from storydalle.stories.story import Outline, Shot, Stories
from storydalle.stories.toon.cartoons import check_resolution
from storydalle.stories.toon.names import possible_names
from storydalle.stories.toon.world import SEEN_LOOKS, UNSEEN_LOOKS, Guest
from storydalle.stories.toonsv.facts import Tale
from storydalle.stories.toonsv.invention import SPLITS, invent, length_of
from storydalle.stories.toonsv.labels import COLUMNS, LABEL_VALUES, label_words, labels_of
from storydalle.stories.toonsv.stage import draw_scene
from storydalle.stories.toonsv.telling import captions_of, descriptions_of

NUM_SAMPLES = 16  # stories that stand for all in a fingerprint
NUM_TALES = {"train": 40_000, "long20": 200, "long50": 100}  # others have 500


class ToonSV2(Stories):
    """The stories of a split. Looks of guests in ``unseen`` never occur in the other splits.

    Without ``num_targets`` a story has 2 to 8 of them; those of the splits "long20" and "long50" have 20 and 50.
    ``probes=True`` adds to each story the source frame "other_guest": the same, but for the looks of its guests, which
    differ in shape, colour and accessory (a source without a guest is kept).
    """

    def __init__(
        self,
        split: str,
        num_stories: int | None = None,
        num_targets: int | None = None,
        resolution: int = 64,
        probes: bool = False,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split={split!r}: ToonSV 2 has {', '.join(SPLITS)}")
        num_stories = NUM_TALES.get(split, 500) if num_stories is None else num_stories
        if num_stories < 1 or (num_targets is not None and num_targets < 1):
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
        tale = self.facts(index)
        clip, num_frames = str(tale.index), len(tale.frames)
        return Outline(
            id=f"toon2/{self.split}/{tale.index:06d}",
            captions=captions_of(tale),
            shots=[Shot(clip, i) for i in range(num_frames)],
            labels=labels_of(tale),
            descriptions=descriptions_of(tale),
            probes={"other_guest": Shot(clip, num_frames)} if self.probes else {},
        )

    def made_up_names(self) -> list[str]:
        return possible_names()

    def story_lengths(self) -> np.ndarray:
        if self.num_targets is not None:
            return np.full(len(self), self.num_targets)
        return np.array([length_of(self.split, i) for i in range(len(self))])

    def clips(self) -> list[str]:
        return [str(i) for i in range(len(self))]

    def read(self, clip: str) -> np.ndarray:
        """A story's frames, source first; then its probes."""
        tale = self.facts(int(clip))
        frames = [draw_scene(tale, scene, self.resolution) for scene in tale.frames]
        return np.stack([*frames, self._other_guest(tale)] if self.probes else frames)

    def stamp(self, clip: str) -> str:
        return "drawn"

    def fingerprint(self) -> str:
        """A hash of stories of the split as they are drawn: only the code can change them."""
        digest = hashlib.sha256(f"{len(self)}\n".encode())
        for i in range(0, len(self), max(1, len(self) // NUM_SAMPLES)):
            outline = self.outline(i)
            digest.update("\n".join([outline.id, *outline.captions, *outline.descriptions]).encode())
            for array in (self.read(outline.shots[0].clip), *outline.labels.values()):
                digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()[:16]

    def _other_guest(self, tale: Tale) -> np.ndarray:
        roster = tuple(
            Guest(one.name, *_unlike(one, tale.index)) if isinstance(one, Guest) else one for one in tale.roster
        )
        return draw_scene(replace(tale, roster=roster), tale.source, self.resolution)

    def facts(self, index: int) -> Tale:
        """The events of a story, without drawing or telling it."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"story {index} of {len(self)}")
        return invent(self.split, index % len(self), self.num_targets)

    def label_words(self, index: int) -> list[str]:
        """The labels of each frame of a story in short words, the source's first."""
        tale = self.facts(index)
        return [label_words(tale, scene) for scene in tale.frames]


def _unlike(guest: Guest, index: int) -> tuple[int, int, int]:
    """A look that differs from a guest's in shape, colour and accessory."""
    others = [look for look in SEEN_LOOKS if all(a != b for a, b in zip(look, guest.look, strict=True))]
    return others[index % len(others)]


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
