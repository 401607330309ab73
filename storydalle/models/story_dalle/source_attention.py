"""Attention of the frame being drawn to the frames that it continues (section 3.2 of the paper)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from storydalle.models.backbones.backbone import init_weights
from storydalle.models.kept import KeptByBlock, StepSizes
from storydalle.models.layers import attend

STARTS = ("identity", "random")


class FrameContext(NamedTuple):
    """The embedded frames that frames being drawn may read: the source, and those drawn before, oldest first.

    ``num_frames`` frames read at a time, each what stands before it: the last of them all of ``before``, the one ahead
    of it all but the newest, and so on. So in training ``before`` is a story's frames but for the last, and while
    drawing, frame by frame, what has been drawn.
    """

    source: Float[Tensor, "b m d"]
    before: Float[Tensor, "b e l d"]
    num_frames: int

    def num_slots(self, most: int) -> int:
        """Places for frames that each frame remembers, some of which may be empty."""
        return min(most, self.before.shape[1])

    def exists(self, num_slots: int) -> Bool[Tensor, "f s"]:
        """Whether there is a frame in each place; the newest frame has the last place."""
        places = torch.arange(num_slots, device=self.before.device) - num_slots
        first = self.before.shape[1] - self.num_frames + 1  # frames before the first one that reads
        return torch.arange(first, first + self.num_frames, device=places.device)[:, None] + places >= 0

    def visible(self, num_slots: int, like: Tensor) -> Float[Tensor, "r 1 1 m"] | None:
        """The codes that each frame reads, as ``attend`` takes them; None where no place is empty."""
        exists = self.exists(num_slots)
        if exists.all():
            return None
        codes = exists.repeat_interleave(self.before.shape[2], 1)  # f (s l)
        empty = like.new_zeros(codes.shape).masked_fill(~codes, float("-inf"))
        return F.pad(empty, (self.source.shape[1], 0)).repeat(len(self.source), 1)[:, None, None]  # (b f) 1 1 (m + s l)

    def by_frame(
        self, x: Float[Tensor, "b n d"], num_heads: int, positions: Float[Tensor, "s d"] | None, num_slots: int
    ) -> Float[Tensor, "r heads m head_dim"]:
        """Keys or values of [source | before] as each frame reads them: the source's, then those in its places.

        ``positions`` are added by place. Computed once for a frame, they are copied for each frame that reads them.
        """
        own, drawn = x.split([self.source.shape[1], x.shape[1] - self.source.shape[1]], 1)
        own = rearrange(own, "b m (h k) -> b 1 h m k", h=num_heads).expand(-1, self.num_frames, -1, -1, -1)
        drawn = rearrange(drawn, "b (e l) (h k) -> b e h l k", e=self.before.shape[1], h=num_heads)
        first = self.before.shape[1] - self.num_frames + 1 - num_slots  # the frame in the first place of the first one
        drawn = F.pad(drawn, (0, 0, 0, 0, 0, 0, max(0, -first), 0))
        places = [drawn[:, i : i + self.num_frames] for i in range(max(0, first), max(0, first) + num_slots)]
        if positions is not None:
            told = rearrange(positions, "s (h k) -> s h 1 k", h=num_heads)
            places = [place + position for place, position in zip(places, told, strict=True)]
        return torch.cat([own, *places], 3).flatten(0, 1)  # (b f) h (m + s l) k


class SourceMemory(NamedTuple):
    """Keys and values of context frames in one block: computed once, read at every position and step.

    ``b`` counts stories, or frames of stories that have different frames before them.
    """

    key: Float[Tensor, "b heads m head_dim"]
    value: Float[Tensor, "b heads m head_dim"]
    visible: Float[Tensor, "b 1 1 m"] | None = None  # as ``attend`` takes it


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

    def remember_frames(self, context: FrameContext) -> SourceMemory:
        """The memory of each frame that is drawn: the source and the frames before it."""
        assert self.positions is not None, "made without memory"
        num_slots = context.num_slots(len(self.positions))
        normed = self.ln2(torch.cat([context.source, context.before.flatten(1, 2)], 1))
        positions = self.positions[:num_slots].flip(0)  # the newest frame has the last place
        key = context.by_frame(self.key(normed), self.num_heads, positions, num_slots)
        value = context.by_frame(self.value(normed), self.num_heads, None, num_slots)
        return SourceMemory(key, value, context.visible(num_slots, like=key))

    def forward(self, x: Float[Tensor, "r n d"], memory: SourceMemory) -> Float[Tensor, "r n d"]:
        """``r`` rows are frames (and candidates) of ``b`` memories; rows of one memory stand side by side."""
        # All rows of a memory become queries of one attention: its keys and values are not copied for each.
        query = self.query(self.ln1(x)).view(len(memory.key), -1, self.num_heads, memory.key.shape[-1])  # b (r n) h k
        out = attend(query.transpose(1, 2), *memory)  # b h (r n) k
        return self.proj(out.transpose(1, 2).reshape(x.shape))

    def kept_beside(self, block: KeptByBlock, codes: int, step: StepSizes) -> KeptByBlock:
        """The memory of ``block`` together with this attention, which trains in every mode of tuning.

        Added are inputs and results of its products at the ``codes`` positions of every row, and the source's keys and
        values.
        """
        dim, share = self.proj.out_features, step.num_rows * codes / block.positions
        memory = 3 * step.num_stories * codes * dim
        copies = 2 * dim**2 if step.precision.is_mixed else 0
        return block._replace(
            stream=block.stream + 1,
            inside=block.inside + 3 * share,
            scores=block.scores + (step.num_rows * self.num_heads * codes**2 if step.keeps_scores else 0),
            copies=block.copies + copies,
            apart=block.apart + (memory + copies) * step.precision.inside,
        )
