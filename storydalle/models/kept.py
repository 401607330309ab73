"""The memory that a block keeps for the backward pass: numbers of tensors, and bytes at a precision.

For each block the forward pass keeps the tensors of the residual stream, which autocast leaves in single precision; the
tensors inside the block, at the precision of the computation; the scores of attention, only on a CPU, since the fused
kernel of a GPU keeps none; and the copies of weights that autocast makes for every product.
"""

from typing import NamedTuple

from torch import nn


class NumberBytes(NamedTuple):
    """Bytes of one number: in the weights and the residual stream, and inside a block."""

    stream: int
    inside: int

    @property
    def is_mixed(self) -> bool:
        return self.stream != self.inside


class StepSizes(NamedTuple):
    """Sizes of a batch of stories, and how it is computed."""

    num_stories: int
    num_frames: int  # of a story
    precision: NumberBytes
    keeps_scores: bool  # attention without a fused kernel, as on a CPU
    text_columns: int  # of captions, that are computed

    @property
    def num_rows(self) -> int:
        return self.num_stories * self.num_frames


class KeptByBlock(NamedTuple):
    """Numbers of tensors, as wide as the model, that one block keeps, and the rest of its memory."""

    positions: int  # of all rows
    stream: float | int  # tensors of the residual stream
    inside: float | int  # tensors of the computation
    scores: float | int  # numbers
    copies: float | int  # weights that are copied, by autocast or to be fused
    apart: float | int  # bytes that are kept whether or not it is computed again: what it reads of source and caption
    widest: float | int  # tensors that its backward pass works with at a time

    def num_bytes(self, dim: int, precision: NumberBytes) -> float | int:
        """``positions * dim`` numbers a tensor; scores and copies are kept at the precision of the computation."""
        wide = self.positions * dim * (self.stream * precision.stream + self.inside * precision.inside)
        return wide + (self.scores + self.copies) * precision.inside

    def worked_with(self, dim: int, precision: NumberBytes) -> float | int:
        """Bytes of its backward pass: the stream's gradient before and after, and the widest tensors inside."""
        return self.positions * dim * (2 * precision.stream + self.widest * precision.inside)


def trains(module: nn.Module) -> bool:
    """True if some parameter of the module gets a gradient."""
    return any(parameter.requires_grad for parameter in module.parameters())
