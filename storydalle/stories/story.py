"""``Stories``, the form of every data set; an ``Outline`` describes a story before its pictures are read."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple, overload

import numpy as np
import torch
from jaxtyping import Bool, Float, Real
from torch import Tensor

from storydalle.stories.images import to_tensor
from storydalle.stories.pictures import ClipError
from storydalle.stories.story_set import fixed_choice


class Story(NamedTuple):
    """One story: a given source frame, and the captions and frames that continue it."""

    id: str
    captions: list[str]  # one a target frame; the source's own caption is not part of the task
    source: Real[np.ndarray, "h w 3"]  # uint8; floats in [0, 255] where a protocol judges unrounded pictures
    frames: Real[np.ndarray, "f h w 3"]  # as the source
    labels: dict[str, Real[np.ndarray, "..."]]  # (f, ...); those named source_... are the source frame's
    descriptions: list[str]  # f + 1 captions, each of its own frame alone, the source's first; or none
    probes: Mapping[str, Real[np.ndarray, "h w 3"]] = MappingProxyType({})  # other source frames, for probing a model


class StoryBatch(NamedTuple):
    """Stories of a batch, padded to the longest one; ``mask`` is true at frames that exist. Pictures are in [-1, 1]."""

    captions: list[list[str]]
    source: Float[Tensor, "b c h w"]
    frames: Float[Tensor, "b f c h w"]
    mask: Bool[Tensor, "b f"]
    labels: dict[str, Real[Tensor, "b ..."]]  # (b, f, ...); those named source_... are the source frame's, (b, ...)
    ids: list[str]


class Shot(NamedTuple):
    """A frame of a clip. ``frame=None`` means any of them: training draws one, evaluation always sees the same one."""

    clip: str
    frame: int | None = None


class Outline(NamedTuple):
    """A story before its pictures are read; fields that ``Story`` has too mean the same."""

    id: str
    captions: list[str]
    shots: list[Shot]  # f + 1, the source first
    labels: dict[str, Real[np.ndarray, "..."]]
    descriptions: list[str]
    probes: Mapping[str, Shot] = MappingProxyType({})


class Stories(Sequence, ABC):  # not Sequence[Story]: run-time checks of that type read a story at every call
    """Stories whose pictures all have one size, read when they are asked for."""

    resolution: int
    notes: Sequence[str] = ()  # a line each, of what their user should know before they are trained on

    @abstractmethod
    def outline(self, index: int) -> Outline:
        """The captions of a story and its shots; nothing is read or drawn."""

    @abstractmethod
    def read(self, clip: str) -> np.ndarray:
        """All frames of a clip, uint8 (n, resolution, resolution, 3); raises ClipError."""

    @abstractmethod
    def stamp(self, clip: str) -> str:
        """A text that changes when the clip's pictures do, without reading them."""

    @abstractmethod
    def fingerprint(self) -> str:
        """A short hash of all outlines."""

    def made_up_names(self) -> Sequence[str]:
        """All names, in lower case, that captions of any split can make up by a rule; none by default."""
        return ()

    def story_lengths(self) -> np.ndarray:
        """The number of target frames of each story."""
        return np.array([len(self.outline(i).captions) for i in range(len(self))])

    def ids(self) -> list[str]:
        """The id of every story, in order."""
        return [self.outline(index).id for index in range(len(self))]

    def clips(self) -> list[str]:
        """Every clip that a story shows, in the order of the stories."""
        outlines = (self.outline(i) for i in range(len(self)))
        return list(dict.fromkeys(shot.clip for outline in outlines for shot in outline.shots))

    def readable(self, number: int) -> list[Story]:
        """The first stories, at most ``number``, all of whose pictures can be read."""
        found: list[Story] = []
        for index in range(len(self)):
            if len(found) == number:
                break
            with suppress(ClipError):
                found.append(self[index])
        return found

    @overload
    def __getitem__(self, index: int) -> Story: ...
    @overload
    def __getitem__(self, index: slice) -> list[Story]: ...
    def __getitem__(self, index: int | slice) -> Story | list[Story]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self._story(index, shown_frame)

    def drawn(self, index: int, rng: np.random.Generator) -> Story:
        """A story for training: of a clip with several frames one is drawn at random."""

        def drawn_frame(shot: Shot, num_frames: int) -> int:
            return int(rng.integers(num_frames)) if shot.frame is None else shot.frame

        return self._story(index, drawn_frame)

    def _story(self, index: int, choose: Callable[[Shot, int], int]) -> Story:
        outline = self.outline(index)
        shots = [*outline.shots, *outline.probes.values()]
        clips = {clip: self.read(clip) for clip in dict.fromkeys(shot.clip for shot in shots)}
        frames = np.stack([clips[shot.clip][choose(shot, len(clips[shot.clip]))] for shot in shots])
        num_own = len(outline.shots)
        return Story(
            id=outline.id,
            captions=outline.captions,
            source=frames[0],
            frames=frames[1:num_own],
            labels=outline.labels,
            descriptions=outline.descriptions,
            probes=dict(zip(outline.probes, frames[num_own:], strict=True)),
        )

    def __iter__(self) -> Iterator[Story]:
        return (self[i] for i in range(len(self)))


def shown_frame(shot: Shot, num_frames: int) -> int:
    """The frame of a clip for evaluation: the shot's own, or one chosen by a hash of the clip's name."""
    return fixed_choice(shot.clip, num_frames) if shot.frame is None else shot.frame


class PickedStories(Stories):
    """Some stories of a set, in its order."""

    def __init__(self, stories: Stories, indices: Sequence[int]) -> None:
        self.stories, self.indices, self.resolution = stories, list(indices), stories.resolution

    def __len__(self) -> int:
        return len(self.indices)

    def outline(self, index: int) -> Outline:
        return self.stories.outline(self.indices[index])

    def read(self, clip: str) -> np.ndarray:
        return self.stories.read(clip)

    def stamp(self, clip: str) -> str:
        return self.stories.stamp(clip)

    def fingerprint(self) -> str:
        return self.stories.fingerprint()


def batch_of(stories: Sequence[Story]) -> StoryBatch:
    """Stories with their pictures, padded to the longest one; labels named source_... are ``(b, ...)``."""
    num_frames = max(len(story.frames) for story in stories)

    def stacked(arrays: list[np.ndarray]) -> Tensor:
        rows = [np.pad(a, [(0, num_frames - len(a))] + [(0, 0)] * (a.ndim - 1)) for a in arrays]
        return torch.from_numpy(np.stack(rows))

    def of_label(name: str) -> Tensor:
        arrays = [story.labels[name] for story in stories]
        return torch.from_numpy(np.stack(arrays)) if name.startswith("source_") else stacked(arrays)

    return StoryBatch(
        captions=[story.captions for story in stories],
        source=to_tensor(np.stack([story.source for story in stories])),
        frames=to_tensor(stacked([story.frames for story in stories])),
        mask=stacked([np.ones(len(story.frames), dtype=bool) for story in stories]),
        labels={name: of_label(name) for name in stories[0].labels},
        ids=[story.id for story in stories],
    )
