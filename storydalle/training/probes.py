"""Is a path used? Replace one input by another story's and measure how much the loss rises, in nats a frame.

A probe shows progress long before drawn pictures do. It is computed on frames where the path should matter. The other
story is the one before in the order of the data, so batches make no difference.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.tokens.encoded_stories import EncodedStories
from storydalle.training.optimisation import code_nats

Match = Sequence[str | int]  # (label, value): the frames where the label, or any entry of it, has the value


class OtherStories(NamedTuple):
    """Inputs of other stories, one a row; ``mask`` is true at their frames, false everywhere if there is no other."""

    tokens: Int[Tensor, "b g t"]
    mask: Bool[Tensor, "b g"]
    source: Int[Tensor, "b l"]
    codes: Int[Tensor, "b g l"]

    @classmethod
    def last_of(cls, batch: EncodedStories) -> "OtherStories":
        return cls(batch.tokens[-1:], batch.mask[-1:], batch.source[-1:], batch.codes[-1:])

    @classmethod
    def before(cls, batch: EncodedStories, last: "OtherStories | None") -> "OtherStories":
        """The story before each story of the batch; ``last`` comes before the first, which has none without it."""
        own = cls(batch.tokens, batch.mask, batch.source, batch.codes)
        if last is None:
            last = cls(own.tokens[:1], torch.zeros_like(own.mask[:1]), own.source[:1], own.codes[:1])
        num_frames = max(own.mask.shape[1], last.mask.shape[1])
        tokens, mask, codes = (
            torch.cat([fitted(first, num_frames), fitted(rest, num_frames)[:-1]])
            for first, rest in ((last.tokens, own.tokens), (last.mask, own.mask), (last.codes, own.codes))
        )
        return cls(tokens, mask, torch.cat([last.source, own.source[:-1]]), codes)


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
    others: OtherStories | None = None,
) -> dict[str, Probed]:
    """The loss of true frames (``nats``) and its rise (``probe_...``) under other inputs, by name.

    ``probe_source`` uses the source of ``others``; ``probe_captions`` uses their story vectors, but the frame's own
    caption, on frames that both stories have; ``probe_captions_NAME`` counts only the frames of that caption probe.
    ``probe_source_NAME`` uses the data set's other source of that name. Without ``others`` the first two are left out.
    Of a model with memory, ``probe_memory`` and ``probe_memory_NAME`` have it remember the frames of ``others``.
    """
    story = model.encode_story(batch.tokens, batch.mask, source=batch.source[:, None])
    nats = frame_nats(model, batch, batch.source[:, None], story)

    def rise_with(source: Int[Tensor, "b l"]) -> Float[Tensor, "b f"]:
        other = story
        if model.settings.story_reads_source:
            other = model.encode_story(batch.tokens, batch.mask, source=source[:, None])
        return frame_nats(model, batch, source[:, None], other) - nats

    found = {"nats": (nats, batch.mask)}
    for name, match in source_probes.items():
        found[f"probe_source_{name}"] = (rise_with(batch.probes[name]), frames_with(batch, match))
    if others is not None:
        found["probe_source"] = (rise_with(others.source), batch.mask & others.mask.any(1, keepdim=True))
    swapped: dict[str, tuple[Tensor, Tensor]] = {}  # the rise by what was swapped, and the frames where it can matter
    if others is not None:
        swapped = swapped_paths(model, batch, others, story, nats)
    for what, (rise, shared) in swapped.items():
        found[f"probe_{what}"] = (rise, batch.mask & shared)
        for name, match in caption_probes.items():
            chosen = frames_with(batch, match)
            found |= {f"nats_{name}": (nats, chosen), f"probe_{what}_{name}": (rise, chosen & shared)}
    return {
        name: Probed(values[chosen].mean(), int(chosen.sum()))
        for name, (values, chosen) in found.items()
        if chosen.any()
    }


def swapped_paths(
    model: RetrofittedDALLE, batch: EncodedStories, others: OtherStories, story: Tensor | None, nats: Tensor
) -> dict[str, tuple[Float[Tensor, "b f"], Bool[Tensor, "b f"]]]:
    """The rise of the loss with the captions or the remembered frames of other stories, and the frames that have them.

    The first frame of a story remembers nothing.
    """
    source, num_frames, found = batch.source[:, None], batch.mask.shape[1], {}
    shared = fitted(others.mask, num_frames)
    if story is not None:
        other = model.encode_story(others.tokens, others.mask, source=source)
        assert other is not None
        found["captions"] = (frame_nats(model, batch, source, fitted(other, num_frames)) - nats, shared)
    if model.num_remembered:
        rise = frame_nats(model, batch, source, story, fitted(others.codes, num_frames)) - nats
        found["memory"] = (rise, F.pad(shared[:, :-1], (1, 0)))  # the frame before is there
    return found


def fitted(x: Shaped[Tensor, "b f *d"], num_frames: int) -> Shaped[Tensor, "b g *d"]:
    """The first ``num_frames`` frames of each story; zeros after its last one."""
    missing = num_frames - x.shape[1]
    filled = torch.cat([x, x.new_zeros(len(x), missing, *x.shape[2:])], 1) if missing > 0 else x
    return filled[:, :num_frames]


def frame_nats(
    model: RetrofittedDALLE,
    batch: EncodedStories,
    source: Tensor,
    story: Tensor | None,
    remembered: Tensor | None = None,
) -> Float[Tensor, "b f"]:
    """Teacher-forced loss of each frame, in nats."""
    logits = model(batch.tokens, batch.codes, source, batch.mask, story, remembered=remembered)
    nats = code_nats(logits.image, rearrange(batch.codes, "b f l -> (b f) l")).sum(-1)
    return rearrange(nats, "(b f) -> b f", b=len(batch.codes))


def frames_with(batch: EncodedStories, match: Match) -> Bool[Tensor, "b f"]:
    label, value = match
    assert isinstance(label, str) and isinstance(value, int)
    matches = batch.labels[label] == value
    return batch.mask & (matches if matches.dim() == 2 else matches.flatten(2).any(-1))


def separation(high: Float[Tensor, " n"], low: Float[Tensor, " m"]) -> Float[Tensor, ""]:
    """Area under the ROC curve: the share of pairs in which the first is higher, ties counting a half."""
    difference = high[:, None] - low[None]
    return ((difference > 0).float() + 0.5 * (difference == 0).float()).mean()
