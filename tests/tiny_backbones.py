"""Tiny backbones for tests, of three blocks, made in milliseconds."""

from typing import Any

from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE

PAD, WORDS, CODES, TEXT, LENGTH, DIM, HEADS, DEPTH = 0, 40, 30, 7, 9, 32, 4, 3
GLU_DIM, START = 48, 29  # of Mega: the width of its feed-forward networks, and the code that it reads first


def tiny_dalle(pad_id: int | None = PAD, kind: type[DALLE] = DALLE) -> DALLE:
    return kind(WORDS, CODES, TEXT, LENGTH, dim=DIM, depth=DEPTH, num_heads=HEADS, pad_id=pad_id)


def tiny_mega(**options: Any) -> MegaDALLE:
    """Two rows of the head are beyond the codes, as 32 of Mega's are."""
    sizes = {"text_length": TEXT, "image_length": LENGTH, "dim": DIM, "glu_dim": GLU_DIM, "depth": DEPTH}
    sizes |= {"num_heads": HEADS, "pad_id": PAD, "start_code": START}
    sizes |= {"text_vocab_size": WORDS, "image_vocab_size": CODES + 1, "num_codes": CODES}
    return MegaDALLE(**(sizes | options))
