"""The path probes of a trained model over a data set's stories."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from storydalle.stories.story import Story
from storydalle.story_dalle import StoryDALLE
from storydalle.systems.probes import Match, probe_paths
from storydalle.tokens.cache import encode_batch
from storydalle.tokens.encoding import FrameEncoder


def measure_probes(
    model: object,
    stories: Sequence[Story],
    caption_probes: Mapping[str, Match],
    source_probes: Mapping[str, Match],
    batch_size: int = 32,
) -> dict[str, float]:
    """Mean nats a frame of every probe of ``systems.probes`` over all stories; none of a model without a likelihood."""
    if not isinstance(model, StoryDALLE):
        return {}
    encode = FrameEncoder(model.image_tokenizer)
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for start in range(0, len(stories), batch_size):
        chunk = [stories[i] for i in range(start, min(start + batch_size, len(stories)))]
        batch = encode_batch(chunk, encode, model.caption_tokenizer)
        with torch.inference_mode():
            found = probe_paths(model.model, batch, caption_probes, source_probes)
        for name, probed in found.items():
            sums[name] += probed.mean.item() * probed.num_frames
            counts[name] += probed.num_frames
    return {name: sums[name] / counts[name] for name in sums}
