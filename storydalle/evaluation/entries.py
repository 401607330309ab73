"""What ``evaluate`` scores: models, or pictures that any system has drawn; each a row of frames, story by story."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from storydalle.evaluation.drawn import DrawnFrames, Survey
from storydalle.files.paths import user_path
from storydalle.metrics.networks.clip import ImageTextNetwork
from storydalle.metrics.text_image import rerank
from storydalle.mistakes import UserError, told_in_one_line
from storydalle.models import kinds
from storydalle.models.pretrained import PretrainedModel
from storydalle.stories.data import batch_of
from storydalle.stories.images import to_images, to_pixels, to_tensor
from storydalle.stories.resizing import LANCZOS, at_size
from storydalle.stories.story import Stories, Story, StoryBatch
from storydalle.training.building import MODEL

if TYPE_CHECKING:
    from storydalle.models.story_dalle.model import StoryDALLE

Inputs = tuple[list[str], np.ndarray]  # captions, and a source frame, uint8 (h, w, 3)
Choice = Callable[[Stories, int], Inputs]


class Subjects:
    """The stories of a split, as they are judged and at any resolution that a model draws at.

    Those of the last batches are kept, since every row asks for them. ``interpolation`` says how pictures reach the
    size of the judging.
    """

    def __init__(self, judged: Stories, open_at: Callable[[int], Stories], interpolation: str = LANCZOS) -> None:
        self.judged, self.resolution, self.interpolation = judged, judged.resolution, interpolation
        self.at = lru_cache(maxsize=None)(open_at)
        self.group = lru_cache(maxsize=4)(self._group)

    def __len__(self) -> int:
        return len(self.judged)

    def _group(self, start: int, stop: int, resolution: int | None = None) -> list[Story]:
        """Stories at a resolution; as they are judged without one."""
        return (self.judged if resolution is None else self.at(resolution))[start:stop]

    def batch(self, start: int, stop: int) -> StoryBatch:
        """Stories as they are judged."""
        return batch_of(self.group(start, stop))


def as_judged(frames: Tensor, resolution: int, interpolation: str) -> Tensor:
    """Frames ``(b, f, c, h, w)`` in [-1, 1] as they would be judged from files: of 8 bits, then at the size."""
    pictures = to_images(rearrange(frames, "b f c h w -> (b f) c h w"))
    sized = to_tensor(np.stack([at_size(picture, resolution, interpolation) for picture in pictures]))
    return rearrange(sized, "(b f) c h w -> b f c h w", b=len(frames))


class System(ABC):
    """One row."""

    name: str

    @abstractmethod
    def frames(self, subjects: Subjects, start: int, stop: int) -> Tensor:
        """Frames of some stories, (b, f, c, h, w) in [-1, 1], of any size; padded as ``StoryBatch``."""

    def judged(self, frames: Tensor, subjects: Subjects) -> Tensor:
        """Those frames as they are judged."""
        return as_judged(frames, subjects.resolution, subjects.interpolation)

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """What made the frames, for the record."""


# ------------------------------------------------------------------------------------------------ models


def own_inputs(stories: Stories, index: int) -> Inputs:
    story = stories[index]
    return story.captions, story.source


class DrawingModel(System):
    """What a model draws; ``choose`` says from which captions and which source."""

    def __init__(
        self,
        name: str,
        folder: Path,
        model: PretrainedModel,
        seed: int,
        num_candidates: int = 1,
        reranker: ImageTextNetwork | None = None,
        choose: Choice = own_inputs,
    ) -> None:
        self.name, self.folder, self.model, self.seed = name, folder, model, seed
        self.num_candidates, self.reranker, self.choose = num_candidates, reranker, choose

    def frames(self, subjects: Subjects, start: int, stop: int) -> Tensor:
        stories = subjects.at(self.model.resolution)
        if self.choose is own_inputs:
            inputs: list[Inputs] = [
                (story.captions, story.source) for story in subjects.group(start, stop, self.model.resolution)
            ]
        else:
            inputs = [self.choose(stories, index) for index in range(start, stop)]
        captions, sources = [each[0] for each in inputs], to_tensor(np.stack([each[1] for each in inputs]))
        drawn = self.model.draw_stories(captions, sources, self.seed, start, self.num_candidates)
        drawn = to_tensor(to_pixels(drawn.cpu()))  # chosen among, too, as the pictures that are saved
        return drawn[:, :, 0] if self.reranker is None else reranked(self.reranker, captions, drawn)

    def varied(self, seed: int | None = None, choose: Choice = own_inputs) -> "DrawingModel":
        """The same model under another seed, or with other inputs."""
        seed = self.seed if seed is None else seed
        return DrawingModel(self.name, self.folder, self.model, seed, self.num_candidates, self.reranker, choose)

    def about(self) -> dict[str, Any]:
        return {
            "model": str(self.folder.name if self.folder.parent == kinds.zoo_folder() else self.folder),
            "resolution": self.model.resolution,
            "weights_sha256": kinds.weights_sha256(self.folder),
            "sampling": vars(self.model.sampling()),
            "best_of": self.num_candidates,
            "chosen_by": "likelihood" if self.reranker is None else self.reranker.name,
        }


def reranked(network: ImageTextNetwork, captions: Sequence[Sequence[str]], drawn: Tensor) -> Tensor:
    """Of each frame the candidate that shows its caption best, from ``(b, f, k, c, h, w)``."""
    best = drawn[:, :, 0].clone()
    for story, texts in enumerate(captions):
        for frame, text in enumerate(texts):
            scores = rerank(network, [text], drawn[story, frame][:, None])
            best[story, frame] = drawn[story, frame, scores.argmax()]
    return best


# ------------------------------------------------------------------------------------------------ pictures


class SizedFrames(System):
    """Frames that have the size of the judging."""

    def judged(self, frames: Tensor, subjects: Subjects) -> Tensor:
        return frames


class StoredFrames(SizedFrames):
    """Pictures that lie in a folder."""

    def __init__(self, name: str, drawn: DrawnFrames, survey: Survey) -> None:
        self.name, self.drawn, self.survey = name, drawn, survey

    def frames(self, subjects: Subjects, start: int, stop: int) -> Tensor:
        stories = subjects.group(start, stop)
        with told_in_one_line(""):
            frames = [to_tensor(self.drawn.read(story.id)) for story in stories]
        longest = max(len(each) for each in frames)
        return torch.stack([F.pad(each, (0, 0, 0, 0, 0, 0, 0, longest - len(each))) for each in frames])

    def about(self) -> dict[str, Any]:
        return {"images": self.survey.record()}


class Ceiling(System):
    """True frames at a model's resolution, through the part of it that limits what it can draw."""

    def __init__(self, name: str, resolution: int, limit: Callable[[Tensor], Tensor]) -> None:
        self.name, self.resolution, self.limit = name, resolution, limit

    def frames(self, subjects: Subjects, start: int, stop: int) -> Tensor:
        frames = batch_of(subjects.group(start, stop, self.resolution)).frames
        images = self.limit(rearrange(frames, "b f c h w -> (b f) c h w"))
        return rearrange(images, "(b f) c h w -> b f c h w", b=len(frames))

    def about(self) -> dict[str, Any]:
        return {}


class MadeFrames(SizedFrames):
    """Frames made of the true ones: a ceiling, or a floor."""

    def __init__(self, name: str, make: Callable[[StoryBatch], Tensor]) -> None:
        self.name, self.make = name, make

    def frames(self, subjects: Subjects, start: int, stop: int) -> Tensor:
        return self.make(subjects.batch(start, stop))

    def about(self) -> dict[str, Any]:
        return {}


# ------------------------------------------------------------------------------------------------ finding them


def find_models(settings: Mapping[str, Any]) -> dict[str, Path]:
    """The folders of the models to score, by the names of their rows: those named, then a sweep's (``compare``)."""
    return {name: kinds.locate(name) for name in settings["model"]} | swept_models(settings["compare"])


def swept_models(compare: str | None) -> dict[str, Path]:
    if compare is None:
        return {}
    runs = user_path(compare)
    found = sorted(path.parent for path in runs.glob(f"**/{MODEL}/{kinds.CONFIG}"))
    if not found:
        raise UserError(f"compare={runs} holds no model: give the folder of a sweep's finished runs")
    names = {folder.parent.relative_to(runs).as_posix(): folder for folder in found}
    return dict(sorted(names.items(), key=lambda item: not item[0].startswith("full")))  # what the others differ from


def open_models(folders: Mapping[str, Path], compare: str | None) -> dict[str, PretrainedModel]:
    """Models by the names of their rows; those of a sweep must draw alike to compare."""
    opened = {name: kinds.open_model(folder) for name, folder in folders.items()}
    check_alike({name: opened[name] for name in swept_models(compare)})
    return opened


def check_alike(opened: Mapping[str, PretrainedModel]) -> None:
    """Refuse models that draw at different sizes, or with different sampling: their rows would not compare."""
    if not opened:
        return
    (first, one), *others = opened.items()
    for name, other in others:
        for setting, values in {
            "resolution": (one.resolution, other.resolution),
            "sampling": (one.sampling(), other.sampling()),
        }.items():
            if values[0] != values[1]:
                raise UserError(
                    f"{first} and {name} differ in {setting} ({values[0]} and {values[1]}): "
                    "put the same into their card.json, or compare them apart"
                )


def open_story_dalle(folder: Path) -> "StoryDALLE":
    """A model whose tokenizer is asked for."""
    from storydalle.models.story_dalle.model import StoryDALLE

    model = kinds.open_model(folder)
    if not isinstance(model, StoryDALLE):
        raise UserError(f"model={folder} is no StoryDALL-E: give one, whose image tokenizer is needed here")
    return model
