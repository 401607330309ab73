"""Attention of the frame being drawn to the frames that it continues (section 3.2 of the paper)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from storydalle.models.backbones.backbone import init_weights
from storydalle.models.kept import KeptByBlock, StepSizes
from storydalle.models.layers import attend

STARTS = ("identity", "random")


class FrameContext(NamedTuple):
    """The embedded frames that frames being drawn may read: the source, and those drawn before, oldest first.

    ``num_frames`` frames read at a time, each what stands before it: the last of them all, the one ahead of it all but
    the newest, and so on. So in training the frames before are a story's without the last, and while drawing, frame by
    frame, what has been drawn.
    """

    frames: Float[Tensor, "b g l d"]
    num_sources: int  # of the frames, which all read
    num_frames: int

    def split(self, x: Float[Tensor, "b n d"], num_heads: int) -> list[Float[Tensor, "b heads m head_dim"]]:
        """Keys or values of the source, and of each frame drawn before."""
        length, num_before = self.frames.shape[2], self.frames.shape[1] - self.num_sources
        parts = x.split([self.num_sources * length, *[length] * num_before], 1)
        return [rearrange(part, "b m (h k) -> b h m k", h=num_heads) for part in parts]

    def reach(self, most: int) -> list[range]:
        """Of each frame that reads, the frames before it that it remembers: the newest ones, ``most`` at most."""
        num_before = self.frames.shape[1] - self.num_sources
        ends = range(num_before - self.num_frames + 1, num_before + 1)
        return [range(max(0, end - most), end) for end in ends]


class SourceMemory(NamedTuple):
    """Keys and values of context frames in one block: computed once, read at every position and step."""

    key: Float[Tensor, "b heads m head_dim"]
    value: Float[Tensor, "b heads m head_dim"]


class SourceCrossAttention(nn.Module):
    """Queries from the frame being drawn, keys and values from the source frame (section 3.2 of the paper).

    A block adds W_o softmax(Q K^T / sqrt(head_dim)) V to its residual stream. W_o is the gate: it starts at zero, so a
    fresh retrofit leaves the backbone as it was. With ``start="random"``, the released code's, all projections start as
    torch draws them, which disturbs the pretrained blocks from the first step on.

    With ``num_remembered`` the frames drawn before are context too, the newest so many. Their keys tell how long ago:
    key + position of the distance, as the relative positions of Shaw et al. 2018 (arXiv 1803.02155, eq. 4). The source
    has none: what is added to all keys alike changes no softmax. Positions start at zero, so weights that were trained
    without memory read a remembered frame as one more source.
    """

    def __init__(self, dim: int, num_heads: int, start: str = "identity", num_remembered: int = 0) -> None:
        super().__init__()
        self.num_heads = num_heads
        # Row i is for the frame i + 1 frames ago. No parameter where there is no memory, as in files without one.
        self.positions = nn.Parameter(torch.zeros(num_remembered, dim)) if num_remembered else None
        self.ln1 = nn.LayerNorm(dim)
        self.ln2 = nn.LayerNorm(dim)
        self.key = nn.Linear(dim, dim)
        self.query = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self._init_weights(start)

    def _init_weights(self, start: str) -> None:
        """N(0, 0.02) and a zero output ("identity"), or as torch draws layers ("random")."""
        if start == "identity":
            self.apply(init_weights)
            nn.init.zeros_(self.proj.weight)  # one zero factor alone: its gradient is not zero, so it learns

    def remember(self, context: Float[Tensor, "b m d"]) -> SourceMemory:
        context = self.ln2(context)
        split = "b m (h k) -> b h m k"  # m: codes of the source
        key = rearrange(self.key(context), split, h=self.num_heads)
        return SourceMemory(key, rearrange(self.value(context), split, h=self.num_heads))

    def remember_frames(self, context: FrameContext) -> list[SourceMemory]:
        """The memory of each frame that is drawn: the source and the newest frames before it.

        Keys and values of a frame are computed once, and copied for each frame that reads them: without an empty place
        there is nothing to mask, and a story's attention takes half the time that one masked product would.
        """
        assert self.positions is not None, "made without memory"
        normed = self.ln2(context.frames.flatten(1, 2))
        key, *keys = context.split(self.key(normed), self.num_heads)
        value, *values = context.split(self.value(normed), self.num_heads)
        positions = rearrange(self.positions.to(key), "s (h k) -> s h 1 k", h=self.num_heads)
        return [
            SourceMemory(
                torch.cat([key, *(keys[i] + positions[reach.stop - 1 - i] for i in reach)], 2),
                torch.cat([value, *(values[i] for i in reach)], 2),
            )
            for reach in context.reach(len(positions))
        ]

    def forward(
        self, x: Float[Tensor, "r n d"], memory: SourceMemory | Sequence[SourceMemory]
    ) -> Float[Tensor, "r n d"]:
        """``r`` rows are frames (and candidates) of ``b`` stories; rows of one story stand side by side.

        They read one memory, or each frame its own; then there are no candidates.
        """
        query = self.query(self.ln1(x))
        if isinstance(memory, SourceMemory):
            return self.proj(self._read(query, memory))
        queries = query.unflatten(0, (-1, len(memory))).unbind(1)  # b n d of each frame
        found = [self._read(one, own) for one, own in zip(queries, memory, strict=True)]
        return self.proj(torch.stack(found, 1).flatten(0, 1))  # (b f) n d

    def _read(self, query: Float[Tensor, "r n d"], memory: SourceMemory) -> Float[Tensor, "r n d"]:
        # All rows of a story become queries of one attention: the source's keys and values are not copied for each.
        by_head = query.view(len(memory.key), -1, self.num_heads, memory.key.shape[-1])  # b (r n) h k
        out = attend(by_head.transpose(1, 2), memory.key, memory.value)  # b h (r n) k
        return out.transpose(1, 2).reshape(query.shape)

    def kept_beside(self, block: KeptByBlock, codes: int, step: StepSizes) -> KeptByBlock:
        """The memory of ``block`` together with this attention, which trains in every mode of tuning.

        Added are inputs and results of its products at the ``codes`` positions of every row, and keys and values as
        they are read: of the source once, or for each frame of the source and the frames that it remembers.
        """
        dim, share = self.proj.out_features, step.num_rows * codes / block.positions
        most = 0 if self.positions is None else len(self.positions)
        reads = sum(1 + min(most, i) for i in range(step.num_frames))  # frames that those of a story read
        inputs = step.num_frames * (2 if step.precision.is_mixed else 1)  # autocast copies them for either product
        memory = step.num_stories * codes * dim * (inputs + 2 * reads if most else 3)
        copies = 2 * dim**2 if step.precision.is_mixed else 0
        return block._replace(
            stream=block.stream + 1,
            inside=block.inside + 3 * share,
            scores=block.scores + (step.num_stories * reads * self.num_heads * codes**2 if step.keeps_scores else 0),
            copies=block.copies + copies,
            apart=block.apart + (memory + copies) * step.precision.inside,
        )
