"""The blocks of Inception-v3 (Szegedy et al. 2016), their layers named as in the released files."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from storydalle.models.ranks import SharedBatchNorm2d

Kernel = int | tuple[int, int]
Pool = Callable[[Tensor], Tensor]


def mean_with_padding(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, stride=1, padding=1)


def mean_without_padding(x: Tensor) -> Tensor:
    """TensorFlow's mean: pixels at the border have fewer neighbours."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def maximum(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=1, padding=1)


def halving(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2)


class Convolution(nn.Module):
    """Convolution, normalised: of the same size with a stride of 1, or without padding (``is_valid``)."""

    def __init__(self, dim_in: int, dim: int, kernel: Kernel, stride: int = 1, is_valid: bool = False) -> None:
        super().__init__()
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if is_valid or stride > 1 else (kernel[0] // 2, kernel[1] // 2)
        self.conv = nn.Conv2d(dim_in, dim, kernel, stride, padding, bias=False)
        self.bn = SharedBatchNorm2d(dim, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Conv(NamedTuple):
    """A convolution of a block: its name in the released files, its channels, its kernel (height, width)."""

    name: str
    dim: int
    kernel: Kernel
    stride: int = 1


Branch = Sequence[Conv | list[Conv]]  # layers in a list read the same input, and their channels are joined


class BranchedBlock(nn.Module):
    """Branches side by side; their channels are joined, those of the pooled input at the end."""

    def __init__(self, dim_in: int, branches: Sequence[Branch], pool: Pool, pool_dim: int = 0) -> None:
        super().__init__()
        self.branches: list[list[list[str]]] = []
        self.pool = pool
        for branch in branches:
            dim, steps = dim_in, [step if isinstance(step, list) else [step] for step in branch]
            for step in steps:
                for layer in step:
                    self.add_module(layer.name, Convolution(dim, layer.dim, layer.kernel, layer.stride))
                dim = sum(layer.dim for layer in step)
            self.branches.append([[layer.name for layer in step] for step in steps])
        self.branch_pool = Convolution(dim_in, pool_dim, 1) if pool_dim else None

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for steps in self.branches:
            y = x
            for names in steps:
                y = torch.cat([self.get_submodule(name)(y) for name in names], dim=1)
            outputs.append(y)
        pooled = self.pool(x)
        outputs.append(pooled if self.branch_pool is None else self.branch_pool(pooled))
        return torch.cat(outputs, dim=1)


def block_a(dim_in: int, pool_dim: int, pool: Pool) -> BranchedBlock:
    """35 x 35: figure 5 of the paper, with a 5 x 5 in place of its single 3 x 3."""
    double = [
        Conv("branch3x3dbl_1", 64, 1),
        Conv("branch3x3dbl_2", 96, 3),
        Conv("branch3x3dbl_3", 96, 3),
    ]
    five = [Conv("branch5x5_1", 48, 1), Conv("branch5x5_2", 64, 5)]
    return BranchedBlock(dim_in, [[Conv("branch1x1", 64, 1)], five, double], pool, pool_dim)


def block_b(dim_in: int) -> BranchedBlock:
    """35 x 35 to 17 x 17: figure 10."""
    double = [
        Conv("branch3x3dbl_1", 64, 1),
        Conv("branch3x3dbl_2", 96, 3),
        Conv("branch3x3dbl_3", 96, 3, stride=2),
    ]
    return BranchedBlock(dim_in, [[Conv("branch3x3", 384, 3, stride=2)], double], halving)


def block_c(dim_in: int, dim: int, pool: Pool) -> BranchedBlock:
    """17 x 17: figure 6, a kernel of 7 x 7 as a row and a column."""
    row, column = (1, 7), (7, 1)
    seven = [
        Conv("branch7x7_1", dim, 1),
        Conv("branch7x7_2", dim, row),
        Conv("branch7x7_3", 192, column),
    ]
    kernels: list[Kernel] = [1, column, row, column, row]
    double = [Conv(f"branch7x7dbl_{i}", 192 if i == 5 else dim, kernel) for i, kernel in enumerate(kernels, 1)]
    return BranchedBlock(dim_in, [[Conv("branch1x1", 192, 1)], seven, double], pool, 192)


def block_d(dim_in: int) -> BranchedBlock:
    """17 x 17 to 8 x 8."""
    three = [Conv("branch3x3_1", 192, 1), Conv("branch3x3_2", 320, 3, stride=2)]
    row, column = Conv("branch7x7x3_2", 192, (1, 7)), Conv("branch7x7x3_3", 192, (7, 1))
    seven = [Conv("branch7x7x3_1", 192, 1), row, column, Conv("branch7x7x3_4", 192, 3, stride=2)]
    return BranchedBlock(dim_in, [three, seven], halving)


def block_e(dim_in: int, pool: Pool) -> BranchedBlock:
    """8 x 8: figure 7, where rows and columns stand side by side."""

    def fork(name: str) -> list[Conv]:
        return [Conv(f"{name}a", 384, (1, 3)), Conv(f"{name}b", 384, (3, 1))]

    three: Branch = [Conv("branch3x3_1", 384, 1), fork("branch3x3_2")]
    double: Branch = [
        Conv("branch3x3dbl_1", 448, 1),
        Conv("branch3x3dbl_2", 384, 3),
        fork("branch3x3dbl_3"),
    ]
    return BranchedBlock(dim_in, [[Conv("branch1x1", 320, 1)], three, double], pool, 192)
