"""Rows of a ToonSV table that need no story model, and the scoring of any frames."""

from collections.abc import Callable, Mapping, Sequence

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from storydalle.metrics.label_reader import LabelReader
from storydalle.metrics.toon import ToonScores
from storydalle.stories.data import batch_of
from storydalle.stories.story import Story

Frames = Float[Tensor, "b f c h w"] | UInt8[Tensor, "b f c h w"]
Draw = Callable[[Tensor, Tensor], Tensor]


def read_frames(reader: LabelReader, frames: Frames, batch_size: int = 256) -> dict[str, Tensor]:
    """Labels read from frames, bytes or floats in [-1, 1]: ``(b, f)``, or ``(b, f, characters)``."""
    num_stories = frames.shape[0]
    device = next(reader.parameters()).device
    parts = []
    for part in rearrange(frames, "b f c h w -> (b f) c h w").split(batch_size):
        images = part.to(device)
        parts.append(reader.read(images / 127.5 - 1 if images.dtype == torch.uint8 else images.float()))
    return {
        name: rearrange(torch.cat([part[name] for part in parts]), "(b f) ... -> b f ...", b=num_stories)
        for name in parts[0]
    }


def score_frames(
    reader: LabelReader,
    frames: Frames,
    labels: Mapping[str, Tensor],
    mask: Bool[Tensor, "b f"],
    scores: ToonScores | None = None,
) -> ToonScores:
    """Scores of drawn frames against the true labels, added to ``scores`` where given."""
    scores = ToonScores() if scores is None else scores
    scores.update(read_frames(reader, frames), labels, mask)
    return scores


def score_stories(reader: LabelReader, stories: Sequence[Story], draw: Draw, batch_size: int = 64) -> ToonScores:
    """Scores of the frames that ``draw(source, frames)`` makes of real ones; all are floats in [-1, 1]."""
    scores = ToonScores()
    for start in range(0, len(stories), batch_size):
        group = [stories[i] for i in range(start, min(start + batch_size, len(stories)))]
        batch = batch_of(group)
        score_frames(reader, draw(batch.source, batch.frames), batch.labels, batch.mask, scores)
    return scores


def score_real_frames(reader: LabelReader, stories: Sequence[Story], batch_size: int = 64) -> ToonScores:
    """The ceiling of every score: the reader on the true frames."""
    return score_stories(reader, stories, lambda source, frames: frames, batch_size)


def score_copied_source(reader: LabelReader, stories: Sequence[Story], batch_size: int = 64) -> ToonScores:
    """The floor that needs no captions: the source frame as every frame."""

    def copied(source: Tensor, frames: Tensor) -> Tensor:
        return repeat(source, "b c h w -> b f c h w", f=frames.shape[1])

    return score_stories(reader, stories, copied, batch_size)


def score_reconstructions(
    reader: LabelReader,
    stories: Sequence[Story],
    reconstruct: Callable[[Float[Tensor, "n c h w"]], Float[Tensor, "n c h w"]],
    batch_size: int = 64,
) -> ToonScores:
    """The ceiling of a tokenizer: true frames through ``reconstruct``, which maps images in [-1, 1] to such images."""

    @torch.inference_mode()
    def reconstructed(source: Tensor, frames: Tensor) -> Tensor:
        images = reconstruct(rearrange(frames, "b f c h w -> (b f) c h w"))
        return rearrange(images, "(b f) c h w -> b f c h w", b=frames.shape[0])

    return score_stories(reader, stories, reconstructed, batch_size)
