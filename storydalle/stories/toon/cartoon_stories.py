"""Stories that code invents, tells and draws: what all versions of ToonSV have in common."""

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np

from storydalle.stories.story import Outline, Shot, Stories
from storydalle.stories.toon.cartoons import check_resolution
from storydalle.stories.toon.names import possible_names
from storydalle.stories.toon.world import SEEN_LOOKS, Guest

NUM_SAMPLES = 16  # stories that stand for all in a fingerprint


@runtime_checkable
class Invented(Protocol):
    """The facts of a story."""

    @property
    def index(self) -> int: ...
    @property
    def frames(self) -> Sequence[object]: ...


Facts = TypeVar("Facts", bound=Invented)


class CartoonStories(Stories, Generic[Facts]):
    """The stories of a split; a subclass invents, tells and draws them.

    Facts and captions of a story depend only on (split, index, num_targets), pictures also on the resolution.
    ``probes=True`` adds to each story the source frame "other_guest": the same, but for the looks of its guests, which
    differ in shape, colour and accessory (a source without a guest is kept).
    """

    title: ClassVar[str]
    prefix: ClassVar[str]  # of the stories' ids
    splits: ClassVar[Mapping[str, int]]  # the number of stories of each

    def __init__(
        self,
        split: str,
        num_stories: int | None = None,
        num_targets: int | None = None,
        resolution: int = 64,
        probes: bool = False,
    ) -> None:
        if split not in self.splits:
            raise ValueError(f"split={split!r}: {self.title} has {', '.join(self.splits)}")
        num_stories = self.splits[split] if num_stories is None else num_stories
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
        facts = self.facts(index)
        clip, num_frames = str(facts.index), len(facts.frames)
        captions, descriptions = self.told(facts)
        return Outline(
            id=f"{self.prefix}/{self.split}/{facts.index:06d}",
            captions=captions,
            shots=[Shot(clip, i) for i in range(num_frames)],
            labels=self.labels(facts),
            descriptions=descriptions,
            probes={"other_guest": Shot(clip, num_frames)} if self.probes else {},
        )

    def story_lengths(self) -> np.ndarray:
        return super().story_lengths() if self.num_targets is None else np.full(len(self), self.num_targets)

    def made_up_names(self) -> list[str]:
        return possible_names()

    def clips(self) -> list[str]:
        return [str(i) for i in range(len(self))]

    def read(self, clip: str) -> np.ndarray:
        """A story's frames, source first; then its probes."""
        facts = self.facts(int(clip))
        frames = self.pictures(facts)
        return np.stack([*frames, self.other_guest(facts)] if self.probes else frames)

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

    def facts(self, index: int) -> Facts:
        """The events of a story, without drawing or telling it."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"story {index} of {len(self)}")
        return self.invented(index % len(self))

    def label_words(self, index: int) -> list[str]:
        """The labels of each frame of a story in short words, the source's first."""
        return self.labels_in_words(self.facts(index))

    @abstractmethod
    def invented(self, index: int) -> Facts:
        """The facts of a story that the split has."""

    @abstractmethod
    def told(self, facts: Facts) -> tuple[list[str], list[str]]:
        """Captions of the targets, and full descriptions of all frames."""

    @abstractmethod
    def labels(self, facts: Facts) -> dict[str, np.ndarray]:
        """Labels of the targets, (f, ...), and of the source."""

    @abstractmethod
    def pictures(self, facts: Facts) -> list[np.ndarray]:
        """All frames, the source first."""

    @abstractmethod
    def other_guest(self, facts: Facts) -> np.ndarray:
        """The source with guests of other looks."""

    @abstractmethod
    def labels_in_words(self, facts: Facts) -> list[str]:
        """The labels of each frame, the source's first."""


def of_other_look(guest: Guest, index: int) -> Guest:
    """A guest of the same name, but of another shape, colour and accessory, chosen by ``index``."""
    others = [look for look in SEEN_LOOKS if all(a != b for a, b in zip(look, guest.look, strict=True))]
    return Guest(guest.name, *others[index % len(others)])
