"""Frames of stories of several lengths as rows, and back: networks see the frames that exist, and no others.

Batch norms would count what stands behind a shorter story's end, so it is taken out ahead of them. Where all stories
have one length nothing is moved.
"""

from jaxtyping import Bool, Shaped
from torch import Tensor


def existing(x: Shaped[Tensor, "b f ..."], mask: Bool[Tensor, "b f"]) -> Shaped[Tensor, "n ..."]:
    """The frames that exist, story by story."""
    return x.flatten(0, 1) if mask.all() else x[mask]


def placed(rows: Shaped[Tensor, "n ..."], mask: Bool[Tensor, "b f"]) -> Shaped[Tensor, "b f ..."]:
    """The rows that ``existing`` took out, in their places again, with zeros where no frame is."""
    if mask.all():
        return rows.unflatten(0, mask.shape)
    filled = rows.new_zeros(mask.shape + rows.shape[1:])
    filled[mask] = rows
    return filled
