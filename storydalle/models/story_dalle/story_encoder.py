"""Encoders of a story's captions, whose vectors of a frame are prepended to its caption (section 3.1 of the paper)."""

import math

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from storydalle.models.backbones.backbone import init_weights
from storydalle.models.backbones.dalle import Block, causal_mask
from storydalle.models.layers import attend


class StoryEncoder(nn.Module):
    """Self-attention over the captions of a story; its vectors of frame i are prepended to caption i.

    Bidirectional blocks read all captions of a story at once, f_self(S + S_pos) (section 3.1 of the paper). Then
    ``num_story_tokens`` learned queries attend to the outputs at a frame's own caption; what they find are the frame's
    story vectors. An input of one vector a caption (a sentence encoder's) is the special case t = 1.

    ``causal`` and ``positions=False`` are the released code's variant: caption i sees captions 1..i only, unordered.
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
    ) -> None:
        super().__init__()
        self.causal, self.positions = causal, positions
        input_dim = dim if input_dim is None else input_dim
        self.ln_in = nn.LayerNorm(input_dim)
        self.project = nn.Linear(input_dim, dim)
        self.blocks = nn.ModuleList(Block(dim, num_heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(dim)
        self.queries = nn.Parameter(torch.randn(num_story_tokens, dim))
        self.ln_out = nn.LayerNorm(dim)
        self._init_weights()

    def _init_weights(self) -> None:
        """N(0, 0.02), except for the input projection; the queries are N(0, 1)."""
        self.apply(init_weights)
        # Captions enter at the size of the positions; at a backbone's initial size they would drown in them.
        nn.init.normal_(self.project.weight, std=self.project.in_features**-0.5)

    @property
    def num_story_tokens(self) -> int:
        return self.queries.shape[0]

    def forward(
        self,
        embeddings: Float[Tensor, "b f t e"],
        present: Bool[Tensor, "b f t"],
        mask: Bool[Tensor, "b f"],
    ) -> Float[Tensor, "b f s d"]:
        """Story vectors from caption embeddings; ``present`` marks tokens that exist, ``mask`` frames that do."""
        num_frames, num_tokens = embeddings.shape[1:3]
        x = self.project(self.ln_in(embeddings))  # b f t d
        if self.positions:
            frames = sinusoids(num_frames, x.shape[-1])
            x = x + sinusoids(num_tokens, x.shape[-1]).to(x) + frames[:, None].to(x)  # t d and f 1 d
        x = rearrange(x, "b f t d -> b (f t) d")
        visible = self._visible(present & mask[..., None])
        for block in self.blocks:
            x = block(x, visible)
        captions = rearrange(self.ln_f(x), "b (f t) d -> b f t d", f=num_frames)
        queries = self.queries.to(captions).expand(*captions.shape[:2], -1, -1)  # b f s d
        # An empty caption is read at its first column: that one always exists, others depend on the rest of the batch.
        own = present.clone()
        own[..., 0] |= ~present.any(-1)
        own = own[:, :, None]  # b f 1 t
        return self.ln_out(attend(queries, captions, captions, own))  # frames take the place of attention's heads

    def _visible(self, seen: Bool[Tensor, "b f t"]) -> Bool[Tensor, "b 1 n n"]:
        num_frames, num_columns = seen.shape[1:]
        frame = torch.arange(num_frames, device=seen.device).repeat_interleave(num_columns)  # the frame of each column
        visible = rearrange(seen, "b f t -> b 1 1 (f t)")
        if self.causal:
            visible = visible & (frame[None] <= frame[:, None])  # b 1 n n
        itself = torch.eye(len(frame), dtype=torch.bool, device=seen.device)
        return visible | itself  # a softmax over nothing would be nan


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


def sinusoids(length: int, dim: int) -> Float[Tensor, "length dim"]:
    """Sinusoidal positions, sin and cos of p / 10000^(2 i / dim) (Vaswani et al. 2017, section 3.5).

    The sines stand in the first half of the columns, the cosines in the second.
    """
    angles = torch.arange(length)[:, None] * torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    return torch.cat([angles.sin(), angles.cos()], 1)[:, :dim]
