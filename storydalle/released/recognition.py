"""Recognise a released file by the names of its tensors."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from storydalle.released.layouts import Layout, LayoutError, Shape
from storydalle.released.model_layouts import (
    MEGA_DECODER,
    MEGA_ENCODER,
    MINDALLE_STAGE1,
    MINDALLE_STAGE2,
    STORYDALLE,
)
from storydalle.released.stored_weights import stored_weights
from storydalle.released.tokenizer_layouts import (
    DETOKER,
    FLAVA_ENCODER,
    OPENAI_DECODER,
    OPENAI_ENCODER,
    TAMING_GUMBEL_VQGAN,
    TAMING_VQGAN,
)
from storydalle.released.torch_files import ForeignFile

FAMILIES: Mapping[str, Sequence[Layout]] = {
    "stage 2 of format=mindalle": (MINDALLE_STAGE2,),
    "format=storydalle": (STORYDALLE,),
    "format=taming-vqgan, or stage 1 of format=mindalle": (TAMING_VQGAN, TAMING_GUMBEL_VQGAN, MINDALLE_STAGE1),
    "a part of format=openai-dvae, its encoder.pkl": (OPENAI_ENCODER,),
    "a part of format=openai-dvae, its decoder.pkl": (OPENAI_DECODER,),
    "a part of format=openai-dvae, FLAVA's encoder": (FLAVA_ENCODER,),
    "a part of format=dalle-mega, its encoder.pt": (MEGA_ENCODER,),
    "a part of format=dalle-mega, its decoder.pt": (MEGA_DECODER,),
    "a part of format=dalle-mega, its detoker.pt": (DETOKER,),
}
ENOUGH = 0.9  # of the tensors' names


def looks_like(path: Path) -> str | None:
    """The family that nearly all tensor names of a file fit; None if there is none, or if the file cannot be read."""
    try:
        with stored_weights(path, ("state_dict", "model_state_dict")) as stored:
            shapes = stored.shapes
    except ForeignFile:
        return None
    scores = {family: max(likeness(shapes, layout) for layout in layouts) for family, layouts in FAMILIES.items()}
    best = max(scores, key=lambda family: scores[family])
    return best if scores[best][0] >= ENOUGH else None


def likeness(shapes: Mapping[str, Shape], layout: Layout) -> tuple[float, float, float]:
    """The share of tensors with names of a layout, the share with possible shapes, and the share of its rows in use.

    All names of an encoder may also be names of a decoder, which has more rows, or has kernels of other sizes.
    """
    rows = {name: found[0] for name in shapes if (found := layout.row_of(name))}
    fits = [row.fits(shapes[name]) for name, row in rows.items()]
    return len(rows) / len(shapes), sum(fits) / len(shapes), len(set(rows.values())) / len(layout.rows)


def mistaken(error: LayoutError | ForeignFile, format: str) -> str | None:
    """The format that the file of an error looks like; None if that is the one it was read as, or unknown."""
    if error.path is None or not error.path.is_file():
        return None
    seems = looks_like(error.path)
    if seems is None or seems == f"format={format}":
        return None
    if isinstance(error, ForeignFile):
        return None if f"format={format}" in seems else seems
    # Only where names or shapes do not fit may the file be another one.
    is_other = error.layout is not None and error.layout not in {layout.name for layout in FAMILIES[seems]}
    return seems if is_other else None
