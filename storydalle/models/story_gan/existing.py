"""Frames of stories of different lengths as rows, and back: networks see only the frames that exist.

Batch norms would count the padding after the end of a shorter story, so it is removed before them. If all stories have
the same length, nothing is moved.
"""

from jaxtyping import Bool, Shaped
from torch import Tensor


def existing(x: Shaped[Tensor, "b f ..."], mask: Bool[Tensor, "b f"]) -> Shaped[Tensor, "n ..."]:
    """The frames that exist, story by story."""
    return x.flatten(0, 1) if mask.all() else x[mask]


def placed(rows: Shaped[Tensor, "n ..."], mask: Bool[Tensor, "b f"]) -> Shaped[Tensor, "b f ..."]:
    """Put the rows of ``existing`` back in their places, with zeros where no frame is."""
    if mask.all():
        return rows.unflatten(0, mask.shape)
    filled = rows.new_zeros(mask.shape + rows.shape[1:])
    filled[mask] = rows
    return filled
