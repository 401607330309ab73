"""Several codes of a row in one step of decoding, exactly those that are drawn one by one.

A code depends on the codes before it and on a uniform number that belongs to its place. So a step can read guesses of
the next codes, and draw a code after each of them: up to the first wrong guess they are the codes of the plain loop,
and the others are the guesses of the next step. For greedy decoding that is Jacobi decoding (Santilli et al. 2023,
arXiv 2305.10427). Speculative Jacobi decoding (Teng et al. 2024, arXiv 2410.01699) accepts guesses by ratios of
probabilities instead, which keeps the distribution but not the codes. The first guesses are the codes of the source,
or of the newest frame that a model remembers: much of a frame looks as it did there.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from storydalle.models.packing import LARGE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE

MOST = 8  # codes of a row in one step
COLUMNS = 32  # of all rows in one step: more cost a CPU more than they gain
SHARE = 0.3  # of the newest step in the mean gain of a step, in codes a row
# A step with a window of 8 takes about twice as long as one of a single code, one of 4 a half longer.
PAYING = {8: 2.0, 4: 1.5}  # the gain from which a window pays

# Codes and where they stand, to the codes that follow them and the nats of each.
Draw = Callable[[Int[Tensor, "r n"], Int[Tensor, "r n"]], tuple[Int[Tensor, "r n"], Float[Tensor, "r n"]]]


def window_for(model: RetrofittedDALLE, num_rows: int, num_candidates: int) -> int:
    """Codes of a row that a step tries: 1 where reading more columns takes as much longer as there are more of them."""
    backbone = model.backbone
    if num_candidates > 1 or backbone.device.type != "cpu" or backbone.dim**2 >= LARGE:
        return 1
    return max(1, min(MOST, COLUMNS // num_rows))


def draw_ahead(
    draw: Draw, first: Int[Tensor, " r"], guesses: Int[Tensor, "r l"], most: int, report: Callable[[int], None]
) -> tuple[Int[Tensor, "r l"], Float[Tensor, " r"]]:
    """All codes, and the nats of those after the ``first``; a step tries ``most`` of a row, fewer where guesses fail.

    ``report`` is called with the number of codes that all rows have.
    """
    length, window, gain = guesses.shape[1], most, most / 2
    codes = F.pad(guesses, (0, most))  # r (l + window), so that no window ends too early
    codes[:, 0] = first
    known = torch.ones_like(first)  # codes of each row that are drawn
    nats = torch.zeros(first.shape, device=first.device)
    while bool((known < length).any()):
        places = known[:, None] + torch.arange(window, device=first.device)  # r n: of the codes to draw
        read = (places - 1).clamp(max=length - 2)
        drawn, found = draw(codes.gather(1, read), read)
        right = (codes.gather(1, places) == drawn)[:, :-1].cumprod(1)  # a code is right if all guesses before it were
        is_new = F.pad(right, (1, 0), value=1).bool() & (places < length)  # r n
        codes.scatter_(1, places, drawn)
        nats += found.where(is_new, 0).sum(1)
        gain += SHARE * (is_new.sum() / (known < length).sum() - gain).item()
        known += is_new.sum(1)
        report(int(known.min()))
        window = min(most, next((width for width, least in PAYING.items() if gain >= least), 1))
    return codes[:, :length], nats
