"""The terms in which a block tells what it keeps of a training step: numbers of tensors, and bytes at a precision.

The forward pass keeps of each block the tensors of the residual stream, which autocast leaves in single precision, and
those inside, at the precision of the computation; attention's scores on a CPU alone, as a GPU's fused kernel keeps
none; and copies of the weights, as autocast makes for every product.
"""

from typing import NamedTuple

from torch import nn


class NumberBytes(NamedTuple):
    """Bytes of a number of the weights and of the residual stream, and of one inside a block."""

    stream: int
    inside: int

    @property
    def is_mixed(self) -> bool:
        return self.stream != self.inside


class StepSizes(NamedTuple):
    """Sizes of one batch of stories, and how it is computed."""

    num_stories: int
    num_frames: int  # of a story
    precision: NumberBytes
    keeps_scores: bool  # attention without a fused kernel, as on a CPU

    @property
    def num_rows(self) -> int:
        return self.num_stories * self.num_frames


class KeptByBlock(NamedTuple):
    """Tensors of the width of the model that one block keeps, by their numbers, and the rest."""

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
    """True where some parameter of the module gets a gradient."""
    return any(parameter.requires_grad for parameter in module.parameters())
