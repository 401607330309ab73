"""Scores that a trained model's own networks give to a data set's true stories."""

import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import singledispatch

import numpy as np
import torch
from torch import Tensor

from storydalle.metrics.declared import Column
from storydalle.metrics.topics import PICTURES
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_gan.model import StoryGANc
from storydalle.stories.story import Story, batch_of
from storydalle.tokens.encoded_stories import encode_batch
from storydalle.tokens.encoding import FrameEncoder
from storydalle.training.probes import Match, OtherStories, probe_paths, separation

PROBED = 16  # stories at a time; each of 32 takes a fifth longer, since together they do not fit into caches
PROBE_COLUMNS = (Column("nats", "nats", PICTURES), Column("story_order_auc", "story order", PICTURES))
PROBE_LEGEND = (
    "*nats*: loss of the true frames, *story order*: AUC of a story discriminator for true stories against reordered "
    "ones, each only of models that have it"
)


@singledispatch
def measure_probes(
    model: object,
    stories: Sequence[Story],
    caption_probes: Mapping[str, Match],
    source_probes: Mapping[str, Match],
    batch_size: int = PROBED,
) -> dict[str, float]:
    """Scores by name; none for an unknown kind of model. They do not depend on ``batch_size``.

    StoryDALL-E: mean nats a frame of every probe of ``training.probes``; the other story is the one before (for the
    first story, the last). StoryGANc: ``story_order_auc``, the area under the ROC curve of the story discriminator's
    logits, for true stories against the same frames in another order under the same captions; 0.5 is chance.
    """
    return {}


@measure_probes.register
def _(
    model: StoryDALLE,
    stories: Sequence[Story],
    caption_probes: Mapping[str, Match],
    source_probes: Mapping[str, Match],
    batch_size: int = PROBED,
) -> dict[str, float]:
    encode, last = FrameEncoder(model.image_tokenizer), None
    if len(stories) > 1:  # the order closes: the first story's other one is the last
        last = OtherStories.last_of(encode_batch([stories[len(stories) - 1]], encode, model.caption_tokenizer))
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for chunk in in_batches(stories, batch_size):
        batch = encode_batch(chunk, encode, model.caption_tokenizer)
        others = None if last is None else OtherStories.before(batch, last)
        with torch.inference_mode():
            found = probe_paths(model.model, batch, caption_probes, source_probes, others)
        last = None if last is None else OtherStories.last_of(batch)
        for name, probed in found.items():
            sums[name] += probed.mean.item() * probed.num_frames
            counts[name] += probed.num_frames
    return {name: sums[name] / counts[name] for name in sums}


@measure_probes.register
def _(
    model: StoryGANc,
    stories: Sequence[Story],
    caption_probes: Mapping[str, Match],
    source_probes: Mapping[str, Match],
    batch_size: int = PROBED,
) -> dict[str, float]:
    if model.story_discriminator is None:
        return {}
    true: list[Tensor] = []
    permuted: list[Tensor] = []
    for chunk in in_batches(stories, batch_size):
        several = [story for story in chunk if len(story.captions) > 1]
        for logits, each in ((true, several), (permuted, [reordered(story) for story in several])):
            if each:
                batch = batch_of(each)
                logits.append(model.story_logits(batch.captions, batch.frames))
    return {"story_order_auc": separation(torch.cat(true), torch.cat(permuted)).item()} if true else {}


def in_batches(stories: Sequence[Story], batch_size: int) -> Iterator[list[Story]]:
    """The stories in order, ``batch_size`` at a time; each is read when its turn comes."""
    for start in range(0, len(stories), batch_size):
        yield [stories[i] for i in range(start, min(start + batch_size, len(stories)))]


def reordered(story: Story) -> Story:
    """The story with its frames in another order, drawn by its id; captions stay."""
    draws = np.random.default_rng(zlib.crc32(story.id.encode()))
    order = own = np.arange(len(story.frames))
    while (order == own).all():
        order = draws.permutation(own)
    return story._replace(frames=story.frames[order])
