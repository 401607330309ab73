"""Is a path used? Swap one input for another story's and read the rise of the loss, in nats a frame.

A probe moves long before drawn pictures do, and it is read on the frames where the path should matter.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from storydalle.retrofit import RetrofittedDALLE
from storydalle.systems.optim import code_nats
from storydalle.tokens.cache import EncodedStories

Match = Sequence[Any]  # (label, value): the frames where the label, or any entry of it, has the value


class Probed(NamedTuple):
    """Mean nats a frame over ``num_frames`` frames."""

    mean: Float[Tensor, ""]
    num_frames: int


@torch.no_grad()
def probe_paths(
    model: RetrofittedDALLE,
    batch: EncodedStories,
    caption_probes: Mapping[str, Match],
    source_probes: Mapping[str, Match],
) -> dict[str, Probed]:
    """The loss of true frames (``nats``) and its rise (``probe_...``) under other inputs, by name.

    ``probe_source`` takes the next story's source, ``probe_captions`` its story vectors (the frame's own caption
    stays); with a name of ``caption_probes`` behind it, on those frames alone. ``probe_source_NAME`` takes the data
    set's other source of that name. A batch of one story has no other: it gives the loss alone.
    """
    story = model.encode_story(batch.tokens, batch.mask)
    source = batch.source[:, None]
    nats = frame_nats(model, batch, source, story)
    found = {"nats": (nats, batch.mask)}
    for name, match in source_probes.items():
        rise = frame_nats(model, batch, batch.probes[name][:, None], story) - nats
        found[f"probe_source_{name}"] = (rise, frames_with(batch, match))
    if len(batch.codes) > 1:
        found["probe_source"] = (frame_nats(model, batch, source.roll(1, 0), story) - nats, batch.mask)
    if len(batch.codes) > 1 and story is not None:
        rise = frame_nats(model, batch, source, story.roll(1, 0)) - nats
        found["probe_captions"] = (rise, batch.mask)
        for name, match in caption_probes.items():
            chosen = frames_with(batch, match)
            found |= {f"nats_{name}": (nats, chosen), f"probe_captions_{name}": (rise, chosen)}
    return {
        name: Probed(values[chosen].mean(), int(chosen.sum()))
        for name, (values, chosen) in found.items()
        if chosen.any()
    }


def frame_nats(
    model: RetrofittedDALLE, batch: EncodedStories, source: Tensor, story: Tensor | None
) -> Float[Tensor, "b f"]:
    """Teacher-forced loss of each frame, in nats."""
    logits = model(batch.tokens, batch.codes, source, batch.mask, story)
    nats = code_nats(logits.image, rearrange(batch.codes, "b f l -> (b f) l")).sum(-1)
    return rearrange(nats, "(b f) -> b f", b=len(batch.codes))


def frames_with(batch: EncodedStories, match: Match) -> Bool[Tensor, "b f"]:
    label, value = match
    matches = batch.labels[label] == value
    return batch.mask & (matches if matches.dim() == 2 else matches.flatten(2).any(-1))
