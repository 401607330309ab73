"""What ``evaluate`` scores: models, or pictures that any system has drawn."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from storydalle.commands import models
from storydalle.commands.building import MODEL
from storydalle.commands.mistakes import UserError, told_in_one_line
from storydalle.sampling import FrameKey
from storydalle.stories.data import batch_of
from storydalle.stories.images import from_images
from storydalle.stories.story import Stories
from storydalle.story_dalle import StoryDALLE

Frames = tuple[Tensor, dict[str, Tensor], Tensor]  # (b, f, c, h, w) in [-1, 1], true labels, mask (b, f)


def find_systems(settings: dict[str, Any]) -> dict[str, Path]:
    """The folders of the models to score, by the names of their rows.

    With ``images`` the row is the pictures', and the model gives their resolution and the tokenizer's ceiling.
    """
    if settings["compare"] is not None:
        runs = Path(str(settings["compare"])).expanduser()
        found = sorted(path.parent for path in runs.glob(f"**/{MODEL}/{models.CONFIG}"))
        if not found:
            raise UserError(f"compare={runs} holds no model: give the folder of a sweep's finished runs")
        return {folder.parent.relative_to(runs).as_posix(): folder for folder in found}
    name = settings["model"] if settings["images"] is None else settings["images"]
    return {str(name): models.locate(str(settings["model"]))}


def open_systems(folders: Mapping[str, Path]) -> dict[str, StoryDALLE]:
    """Models by the names of their rows, which must draw alike to compare."""
    systems = {name: open_story_dalle(folder) for name, folder in folders.items()}
    check_alike(systems)
    return systems


def check_alike(systems: Mapping[str, StoryDALLE]) -> None:
    """Refuse models that draw at different sizes, or with different sampling: their rows would not compare."""
    (first, one), *others = systems.items()
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


def open_story_dalle(folder: Path) -> StoryDALLE:
    model = models.open_model(folder)
    assert isinstance(model, StoryDALLE)
    return model


def stored_batches(folder: Path, stories: Stories, batch_size: int) -> Iterator[Frames]:
    """Frames of ``folder/<story id>/*.png`` in the order of their names, resized to the stories'."""
    for start in range(0, len(stories), batch_size):
        group = stories[start : start + batch_size]
        batch = batch_of(group)
        pictures: list[Tensor] = []
        for story in group:
            files = sorted((folder / story.id).glob("*.png"))
            if len(files) != len(story.frames):
                raise UserError(
                    f"{folder / story.id} holds {len(files)} .png files, the story {len(story.frames)} frames"
                )
            with told_in_one_line(f"{folder / story.id} holds a picture that cannot be read", OSError):
                pictures.append(from_images([Image.open(file) for file in files], stories.resolution))
        yield torch.stack(pictures).view_as(batch.frames), batch.labels, batch.mask


def drawn_batches(model: StoryDALLE, stories: Stories, batch_size: int, seed: int) -> Iterator[Frames]:
    """Frames that the model draws, with true labels and mask; a story's frames do not depend on its batch."""
    for start in tqdm(range(0, len(stories), batch_size), desc="drawing", disable=None):
        group = stories[start : start + batch_size]
        batch = batch_of(group)
        num_frames = batch.frames.shape[1]
        captions = [[*captions, *[""] * (num_frames - len(captions))] for captions in batch.captions]
        tokens = model.caption_tokenizer.encode([caption for story in captions for caption in story]).tokens
        tokens = rearrange(tokens, "(b f) t -> b f t", f=num_frames).to(model.device)
        keys = [FrameKey(seed, start + i, frame) for i in range(len(group)) for frame in range(num_frames)]
        with torch.inference_mode():
            source = model.image_tokenizer.encode(batch.source.to(model.device))
            codes = model.draw(tokens, source, keys, mask=batch.mask.to(model.device)).codes[:, 0]
            images = model.image_tokenizer.decode(codes)
        yield rearrange(images, "(b f) c h w -> b f c h w", f=num_frames), batch.labels, batch.mask
