"""What every data set yields: a ``Story``; what a batch of them looks like: a ``StoryBatch``."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from torch import Tensor


class Story(NamedTuple):
    """One story: a given source frame, and the captions and frames that continue it."""

    id: str
    captions: list[str]  # one a target frame; the source's own caption is not part of the task
    source: np.ndarray  # uint8 (h, w, 3)
    frames: np.ndarray  # uint8 (f, h, w, 3)
    labels: dict[str, np.ndarray]
    descriptions: list[str]  # f + 1 captions that say everything, the source's first; empty where a data set has none
    probes: Mapping[str, np.ndarray] = MappingProxyType({})  # other source frames, uint8 (h, w, 3), for probing a model


class StoryBatch(NamedTuple):
    """Stories of a batch, padded to the longest one; ``mask`` is true at frames that exist."""

    captions: list[list[str]]
    source: Tensor  # (b, c, h, w) in [-1, 1]
    frames: Tensor  # (b, f, c, h, w) in [-1, 1]
    mask: Tensor  # bool (b, f)
    labels: dict[str, Tensor]
    ids: list[str]
