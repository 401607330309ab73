"""Encoders of a story's captions, whose vectors of a frame are prepended to its caption (section 3.1 of the paper)."""

import math
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from storydalle.models.backbones.backbone import init_weights
from storydalle.models.backbones.dalle import Block, causal_mask
from storydalle.models.layers import attend


class StoryColumns(NamedTuple):
    """The columns that a story encoder's blocks read, without padding of captions; rows are filled up at their ends.

    ``frame`` is the caption that a column belongs to: -1 is the source's, one beyond the last caption's is filling.
    """

    x: Float[Tensor, "b n d"]
    frame: Int[Tensor, "b n"]
    seen: Bool[Tensor, "b n"]  # by other columns

    @classmethod
    def of_captions(
        cls, x: Float[Tensor, "b f t d"], present: Bool[Tensor, "b f t"], mask: Bool[Tensor, "b f"]
    ) -> "StoryColumns":
        """The tokens that exist, caption by caption; of an empty caption its first column, which nothing else sees."""
        num_frames, num_tokens = present.shape[1:]
        kept = present.clone()
        kept[..., 0] |= ~present.any(-1)
        kept = kept.flatten(1)
        order = kept.int().argsort(dim=1, descending=True, stable=True)[:, : fullest(kept)]  # b n
        frame = torch.where(kept.gather(1, order), order // num_tokens, num_frames)
        seen = (present & mask[..., None]).flatten(1).gather(1, order)
        return cls(x.flatten(1, 2).gather(1, order[..., None].expand(-1, -1, x.shape[-1])), frame, seen)

    def after(self, source: Float[Tensor, "b m d"], has_source: Bool[Tensor, " b"] | None) -> "StoryColumns":
        """The same columns after those of a source, which nothing sees where ``has_source`` is false."""
        marks = torch.ones_like(source[..., 0], dtype=torch.bool)
        seen = marks if has_source is None else marks & has_source[:, None]
        frame = torch.full_like(marks, -1, dtype=self.frame.dtype)
        joined = ((source, self.x), (frame, self.frame), (seen, self.seen))
        return StoryColumns(*(torch.cat(pair, 1) for pair in joined))

    def visible(self, causal: bool) -> Bool[Tensor, "b 1 n n"]:
        """The columns that each column sees: itself too, for a softmax over nothing would be nan."""
        visible = self.seen[:, None, None]
        if causal:
            visible = visible & (self.frame[:, None, None] <= self.frame[:, None, :, None])
        return visible | torch.eye(self.frame.shape[1], dtype=torch.bool, device=self.frame.device)

    def near(
        self, visible: Bool[Tensor, "b 1 n n"], distances: Float[Tensor, "heads i"]
    ) -> Float[Tensor, "b heads n n"]:
        """Numbers that ``attend`` adds to the scores: one for each head and distance of captions, in both directions.

        Captions further away are not seen. The source is seen by all, with the last of the numbers.
        """
        reach = distances.shape[1] // 2 - 1
        away = self.frame[:, None] - self.frame[..., None]  # b n n, of the column that is read
        of_source = (self.frame < 0)[:, None].expand_as(away)
        index = (away.clamp(-reach, reach) + reach).masked_fill(of_source, 2 * reach + 1)
        added = F.embedding(index, distances.T).permute(0, 3, 1, 2)  # b heads n n
        return added.masked_fill(~(visible & ((away.abs() <= reach) | of_source)[:, None]), float("-inf"))

    def of_frames(self, num_frames: int) -> Bool[Tensor, "b f n"]:
        """The columns of each frame's own caption."""
        return self.frame[:, None] == torch.arange(num_frames, device=self.frame.device)[:, None]


class StoryEncoder(nn.Module):
    """Self-attention over the captions of a story; its vectors of frame i are prepended to caption i.

    Bidirectional blocks read all captions of a story at once, f_self(S + S_pos) (section 3.1 of the paper). Then
    ``num_story_tokens`` learned queries attend to the outputs at a frame's own caption; what they find are the frame's
    story vectors. An input of one vector a caption (a sentence encoder's) is the special case t = 1.

    ``causal`` and ``positions=False`` are the released code's variant: caption i sees captions 1..i only, unordered.
    With ``reads_source`` the blocks read the source frame's codes ahead of all captions: who "they" are, or where a
    story is that names no place, only the source shows.

    With ``reach`` a caption sees so many captions before it and after it, and learns what their distance means, a
    number for each head that is added to the scores; no frame has a number of its own. A caption of a long story then
    is read as in the short ones of training. The numbers start as linear biases (Press et al. 2022, arXiv 2108.12409),
    half of the heads looking back and half ahead.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        depth: int = 1,
        num_story_tokens: int = 1,
        input_dim: int | None = None,
        causal: bool = False,
        positions: bool = True,
        reads_source: bool = False,
        reach: int | None = None,
    ) -> None:
        super().__init__()
        self.distances = None if reach is None else nn.Parameter(linear_biases(num_heads, reach))
        self.causal, self.positions = causal, positions
        input_dim = dim if input_dim is None else input_dim
        self.ln_in = nn.LayerNorm(input_dim)
        self.project = nn.Linear(input_dim, dim)
        self.source = nn.Sequential(nn.LayerNorm(input_dim), nn.Linear(input_dim, dim)) if reads_source else None
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(dim)
        self.queries = nn.Parameter(torch.randn(num_story_tokens, dim))
        self.ln_out = nn.LayerNorm(dim)
        self._init_weights()

    def _init_weights(self) -> None:
        """N(0, 0.02), except for the input projections; the queries are N(0, 1)."""
        self.apply(init_weights)
        # Inputs enter at the size of the positions; at a backbone's initial size they would drown in them.
        for layer in [self.project, *([] if self.source is None else [cast(nn.Linear, self.source[1])])]:
            nn.init.normal_(layer.weight, std=layer.in_features**-0.5)

    @property
    def num_story_tokens(self) -> int:
        return self.queries.shape[0]

    def forward(
        self,
        embeddings: Float[Tensor, "b f t e"],
        present: Bool[Tensor, "b f t"],
        mask: Bool[Tensor, "b f"],
        source: Float[Tensor, "b m e"] | None = None,
        has_source: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b f s d"]:
        """Story vectors from caption embeddings; ``present`` marks tokens that exist, ``mask`` frames that do.

        ``source`` are embedded codes with their places, for an encoder that reads them; stories whose ``has_source`` is
        false are read without.
        """
        num_frames, num_tokens = embeddings.shape[1:3]
        x = self.project(self.ln_in(embeddings))  # b f t d
        if self.positions:
            x = x + sinusoids(num_tokens, x.shape[-1]).to(x)  # t d
            if self.distances is None:
                x = x + sinusoids(num_frames, x.shape[-1])[:, None].to(x)  # f 1 d
        columns = StoryColumns.of_captions(x, present, mask)
        if self.source is not None and source is not None:
            columns = columns.after(self.source(source), has_source)
        x, visible = columns.x, columns.visible(self.causal)
        near = visible if self.distances is None else columns.near(visible, self.distances)
        for block in self.blocks:
            x = block(x, near)
        captions = self.ln_f(x)[:, None]  # b 1 n d
        queries = self.queries.to(captions).repeat(num_frames, 1).expand(len(x), 1, -1, -1)  # b 1 (f s) d
        own = columns.of_frames(num_frames).repeat_interleave(self.num_story_tokens, 1)[:, None]  # b 1 (f s) n
        found = attend(queries, captions, captions, own)
        return self.ln_out(found[:, 0].unflatten(1, (num_frames, -1)))


class SentenceStoryEncoder(nn.Module):
    """The released code's story encoder: one block over a sentence encoder's vectors of the captions.

    Caption i sees captions 1..i, unordered, and its vector is the frame's one story token. The released models read
    the 512 numbers that the Universal Sentence Encoder (large, version 5) gives a caption.
    """

    num_story_tokens = 1

    def __init__(self, dim: int, num_heads: int, input_dim: int) -> None:
        super().__init__()
        self.input_dim = input_dim
        self.project = nn.Linear(input_dim, dim)
        self.block = Block(dim, num_heads)

    def forward(self, sentences: Float[Tensor, "b f e"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, "b f 1 d"]:
        """Story vectors; ``mask`` marks frames that exist."""
        if sentences.shape[-1] != self.input_dim:
            raise ValueError(
                f"sentence vectors are {sentences.shape[-1]} wide, the story encoder reads {self.input_dim}"
            )
        x = self.block(self.project(sentences), causal_mask(mask))
        return rearrange(x, "b f d -> b f 1 d")


def linear_biases(num_heads: int, reach: int) -> Float[Tensor, "heads i"]:
    """-m |distance| for the distances -reach to reach and a 0, m = 1, 1, 1/2, 1/2, 1/4, ...

    m is twice as large for captions ahead (even heads), or behind (odd ones).
    """
    away, heads = torch.arange(-reach, reach + 1.0), torch.arange(num_heads)[:, None]
    is_unlooked = torch.where(heads % 2 == 0, away > 0, away < 0)  # heads i
    return F.pad(-(away.abs() / 2.0 ** (heads // 2)) * (1 + is_unlooked), (0, 1))


def fullest(kept: Bool[Tensor, "b n"]) -> int:
    """The most columns that a row keeps."""
    return int(kept.sum(1).max())


def sinusoids(length: int, dim: int) -> Float[Tensor, "length dim"]:
    """Sinusoidal positions, sin and cos of p / 10000^(2 i / dim) (Vaswani et al. 2017, section 3.5).

    The sines stand in the first half of the columns, the cosines in the second.
    """
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :dim]
