"""Which released file is this? By the names of its tensors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from storydalle.checkpoints.layouts import Layout
from storydalle.checkpoints.model_layouts import MEGA_DECODER, MEGA_ENCODER, MINDALLE_STAGE2, STORYDALLE
from storydalle.checkpoints.stored_weights import stored_weights
from storydalle.checkpoints.tokenizer_layouts import (
    DETOKER,
    FLAVA_ENCODER,
    OPENAI_DECODER,
    OPENAI_ENCODER,
    TAMING_GUMBEL_VQGAN,
    TAMING_VQGAN,
)
from storydalle.checkpoints.torch_files import ForeignFile

FAMILIES: Mapping[str, Sequence[Layout]] = {
    "stage 2 of format=mindalle": (MINDALLE_STAGE2,),
    "format=storydalle": (STORYDALLE,),
    "format=taming-vqgan, or stage 1 of format=mindalle": (TAMING_VQGAN, TAMING_GUMBEL_VQGAN),
    "a part of format=openai-dvae": (OPENAI_ENCODER, OPENAI_DECODER, FLAVA_ENCODER),
    "a part of format=dalle-mega": (MEGA_DECODER, MEGA_ENCODER, DETOKER),
}
PLACES = (None, "state_dict", "model_state_dict")  # where files have their weights
ENOUGH = 0.9  # of the tensors' names


def looks_like(path: Path) -> str | None:
    """The family whose names nearly all tensors of a file have; None where there is none, or no such file."""
    for place in PLACES:
        try:
            with stored_weights(path, place) as stored:
                names = list(stored.shapes)
        except ForeignFile:
            continue
        shares = {
            family: max(sum(layout.row_of(name) is not None for name in names) for layout in layouts) / len(names)
            for family, layouts in FAMILIES.items()
        }
        best = max(shares, key=lambda family: shares[family])
        return best if shares[best] >= ENOUGH else None
    return None
