"""Batches of encoded stories: padded to the longest one, from rows of a cache or from stories with their pictures."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Real
from torch import Tensor

from storydalle.stories.story import Story
from storydalle.tokens.caption_tokenizer import TextTokenizer
from storydalle.tokens.encoding import FrameEncoder

Row = dict[str, np.ndarray]  # of one story: "codes" (f + 1, l), "captions" (f, t), "label_...", "probe_..." (l,)


class EncodedStories(NamedTuple):
    """A batch of stories, ready for a transformer, padded to the longest one; ``mask`` is true at frames that exist."""

    tokens: Int[Tensor, "b f t"]
    descriptions: Int[Tensor, "b g t"]  # g = f + 1: full captions, the source's first; g = 0 where there are none
    source: Int[Tensor, "b l"]
    codes: Int[Tensor, "b f l"]
    mask: Bool[Tensor, "b f"]
    labels: dict[str, Real[Tensor, "b ..."]]  # as in ``StoryBatch``
    probes: dict[str, Int[Tensor, "b l"]]  # codes of other sources, by the name of the probe

    def of_frames(self, frames: slice) -> "EncodedStories":
        """Some frames of each story, with their captions and labels, and all that is the source's."""
        named = self.labels.items()
        labels = {name: value if name.startswith("source_") else value[:, frames] for name, value in named}
        descriptions = torch.cat([self.descriptions[:, :1], self.descriptions[:, 1:][:, frames]], 1)
        return self._replace(
            tokens=self.tokens[:, frames],
            descriptions=descriptions,
            codes=self.codes[:, frames],
            mask=self.mask[:, frames],
            labels=labels,
        )


def collate(rows: Sequence[Row], pad_id: int) -> EncodedStories:
    """Stories of any lengths as one batch."""
    num_targets = [len(row["captions"]) for row in rows]
    longest = max(num_targets)

    def padded(name: str, length: int, value: int = 0) -> Tensor:
        batch = np.full((len(rows), length, *rows[0][name].shape[1:]), value, np.int64)
        for entry, row in zip(batch, rows, strict=True):
            entry[: len(row[name])] = row[name]
        return torch.from_numpy(batch)

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([row[name] for row in rows]).astype(np.int64))

    tokens, codes = padded("captions", longest, pad_id), padded("codes", longest + 1)
    descriptions = padded("descriptions", longest + 1, pad_id) if "descriptions" in rows[0] else tokens[:, :0]
    labels = {
        name.removeprefix("label_"): stacked(name) if name.startswith("label_source_") else padded(name, longest)
        for name in rows[0]
        if name.startswith("label_")
    }
    probes = {name.removeprefix("probe_"): stacked(name) for name in rows[0] if name.startswith("probe_")}
    mask = torch.arange(longest) < torch.tensor(num_targets)[:, None]
    return EncodedStories(tokens, descriptions, codes[:, 0], codes[:, 1:], mask, labels, probes)


def encode_batch(stories: Sequence[Story], encode: FrameEncoder, caption_tokenizer: TextTokenizer) -> EncodedStories:
    """Stories with their pictures as a batch."""

    def row(story: Story) -> Row:
        codes = encode(np.concatenate([story.source[None], story.frames, *(p[None] for p in story.probes.values())]))
        num_own = len(story.frames) + 1
        texts = {"captions": story.captions, "descriptions": story.descriptions}
        return {
            "codes": codes[:num_own],
            **{name: caption_tokenizer.encode(text).tokens.numpy() for name, text in texts.items() if text},
            **{f"label_{name}": label for name, label in story.labels.items()},
            **{f"probe_{name}": code for name, code in zip(story.probes, codes[num_own:], strict=True)},
        }

    return collate([row(story) for story in stories], caption_tokenizer.pad_id)
