"""Attention of the frame being drawn to the frames that it continues (section 3.2 of the paper)."""

from typing import NamedTuple

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from storydalle.models.backbones.backbone import init_weights
from storydalle.models.kept import KeptByBlock, StepSizes
from storydalle.models.layers import attend

STARTS = ("identity", "random")


class SourceMemory(NamedTuple):
    """Keys and values of a story's source frame in one block: computed once, read at every position and step."""

    key: Float[Tensor, "b heads m head_dim"]
    value: Float[Tensor, "b heads m head_dim"]


class SourceCrossAttention(nn.Module):
    """Queries from the frame being drawn, keys and values from the source frame (section 3.2 of the paper).

    A block adds W_o softmax(Q K^T / sqrt(head_dim)) V to its residual stream. W_o is the gate: it starts at zero, so a
    fresh retrofit leaves the backbone as it was. With ``start="random"``, the released code's, all projections start as
    torch draws them, which disturbs the pretrained blocks from the first step on.
    """

    def __init__(self, dim: int, num_heads: int, start: str = "identity") -> None:
        super().__init__()
        self.num_heads = num_heads
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

    def forward(self, x: Float[Tensor, "r n d"], memory: SourceMemory) -> Float[Tensor, "r n d"]:
        """``r`` rows are frames (and candidates) of ``b`` stories; rows of one story stand side by side."""
        # All frames of a story become queries of one attention: the source's keys and values are not copied for each.
        query = self.query(self.ln1(x)).view(len(memory.key), -1, self.num_heads, memory.key.shape[-1])  # b (r n) h k
        out = attend(query.transpose(1, 2), memory.key, memory.value)  # b h (r n) k
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
