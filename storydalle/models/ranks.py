"""Several processes (ranks) that train one model: sums, rows and random draws over all of them.

Each rank has its own stories of a step. With these functions a step gives the result of one process with all the
stories, in the order of the ranks; in one process every function returns its input. All ranks must call a function
together.
"""

from collections.abc import Callable

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def num_ranks() -> int:
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    return dist.get_rank() if num_ranks() > 1 else 0


@torch.no_grad()
def mean(x: Tensor) -> Tensor:
    """The mean of the ranks' tensors of one shape; no gradient goes through it."""
    if num_ranks() == 1:
        return x
    x = x.float().clone()
    dist.all_reduce(x)
    return x / num_ranks()


def ratio(total: Float[Tensor, ""], count: Tensor, least: float | int = 0) -> Float[Tensor, ""]:
    """Return total / mean(count): its mean over ranks is sum(totals) / sum(counts).

    The gradients and losses of ranks are averaged, so a total over items whose number differs between ranks (frames
    that exist, tokens, weights) must be divided by the mean number. The sum of counts counts as at least ``least``.
    """
    return total / mean(count).clamp(min=least / num_ranks())


@torch.no_grad()
def gathered(x: Shaped[Tensor, "n ..."]) -> Shaped[Tensor, "m ..."]:
    """The rows of all ranks, rank by rank, without gradient; other axes are padded with zeros to the largest size."""
    if num_ranks() == 1:
        return x
    sizes = torch.tensor(x.shape, device=x.device)
    shapes = [torch.empty_like(sizes) for _ in range(num_ranks())]
    dist.all_gather(shapes, sizes)
    common = torch.stack(shapes).amax(0).tolist()
    padded = x.new_zeros(common, dtype=torch.uint8 if x.dtype == torch.bool else x.dtype)
    padded[tuple(slice(size) for size in x.shape)] = x
    parts = [torch.empty_like(padded) for _ in range(num_ranks())]
    dist.all_gather(parts, padded)
    rows = [part[: int(shape[0])] for part, shape in zip(parts, shapes, strict=True)]
    return torch.cat(rows).to(x.dtype)


def own_rows(x: Shaped[Tensor, "m ..."], num_rows: int) -> Shaped[Tensor, "n ..."]:
    """This rank's part of the rows of all ranks; each rank has ``num_rows``."""
    return x[rank() * num_rows : (rank() + 1) * num_rows]


def drawn(
    draw: Callable[..., Tensor], num_rows: int, *shape: int, generator: torch.Generator
) -> Shaped[Tensor, "n ..."]:
    """This rank's ``num_rows`` of the rows that ``draw`` (torch.rand, torch.randn) draws for all ranks together."""
    counts = gathered(torch.tensor([num_rows], device=device())).tolist()
    start = sum(counts[: rank()])
    return draw(sum(counts), *shape, generator=generator)[start : start + num_rows]


def device() -> torch.device:
    """The device on which the ranks exchange numbers."""
    return torch.device("cuda" if num_ranks() > 1 and dist.get_backend() == "nccl" else "cpu")


class _SharedStatistics(_BatchNorm):
    """Batch norm over the stories of all ranks. (torch's SyncBatchNorm does not work on a CPU.)"""

    def forward(self, input: Float[Tensor, "n c ..."]) -> Float[Tensor, "n c ..."]:
        if not self.training or num_ranks() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        dims = [0, *range(2, input.dim())]
        shape = [1, -1, *[1] * (input.dim() - 2)]
        x = input.float()
        from torch.distributed.nn.functional import all_reduce  # not in every build of torch

        count = num_ranks() * mean(torch.tensor(x.numel() / x.shape[1], device=x.device))
        centre = all_reduce(x.sum(dims)) / count
        x = x - centre.view(shape)
        variance = all_reduce(x.square().sum(dims)) / count
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            share = 1 / self.num_batches_tracked.item() if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(centre, share)
                self.running_var.lerp_(variance * count / (count - 1), share)
        x = x * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            x = x * self.weight.float().view(shape) + self.bias.float().view(shape)
        return x.to(input.dtype)


class SharedBatchNorm1d(_SharedStatistics, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` over all ranks."""


class SharedBatchNorm2d(_SharedStatistics, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` over all ranks."""


class SharedBatchNorm3d(_SharedStatistics, nn.BatchNorm3d):
    """``nn.BatchNorm3d`` over all ranks."""
