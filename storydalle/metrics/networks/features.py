"""Feature networks that a protocol can name: for Fréchet and kernel distances, and for similarities."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from storydalle.files.records import sha256_of_text
from storydalle.metrics.networks.clip import ImageTextNetwork, TinyCLIP
from storydalle.metrics.networks.inception import open_weights

Output = TypeVar("Output")
CELLS = 8  # of a side of the colour layout


@runtime_checkable
class FeatureNetwork(Protocol):
    """Pictures in [-1, 1], of any size, to vectors.

    Names of distances begin with ``label``; Inception has none, and only its distances are called FID and KID.
    """

    @property
    def name(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def label(self) -> str | None: ...
    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]: ...


class ColorLayout:
    """Mean colours of a grid of 8 x 8 cells, 192 numbers, without any weights.

    They describe colours and rough composition, not outlines or content.
    """

    name = "color_layout"
    label = "layout"
    sha256 = sha256_of_text(f"mean colours of {CELLS} x {CELLS} cells, in [-1, 1]")

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return rearrange(F.interpolate(images.float(), (CELLS, CELLS), mode="area"), "n c h w -> n (c h w)")


class InceptionFeatures:
    """The 2048 pooled features of the Inception network that FID is defined by (Heusel et al. 2017)."""

    name = "inception"
    label = None

    def __init__(self, weights: Path | str | None, resize: str) -> None:
        network = open_weights(weights)
        assert network.weights_sha256 is not None
        self.sha256, self.resize = network.weights_sha256, resize
        self.features = partial(network.features, resize=resize)


class TextNetworkFeatures:
    """Features of pictures from a network that compares them with captions, before its projection."""

    def __init__(self, network: ImageTextNetwork) -> None:
        self.name, self.sha256 = network.name, network.sha256
        self.label = "toon" if isinstance(network, TinyCLIP) else network.name
        self.features = network.features


GROUP = 8  # pictures; a network that is as small as ours needs three times as long for each alone


def in_groups(see: Callable[[Float[Tensor, "8 c h w"]], Output], images: Float[Tensor, "n c h w"]) -> Iterator[Output]:
    """The outputs for ``GROUP`` pictures at a time; a last group that is smaller is filled up with its first picture.

    All have one shape and memory layout, so a picture's output is equal to the last bit, whatever other pictures there
    are and wherever it comes from.
    """
    for group in images.contiguous().split(GROUP):
        yield see(torch.cat([group, group[:1].expand(GROUP - len(group), -1, -1, -1)]))


def seen_in_groups(see: Callable[[Float[Tensor, "8 c h w"]], Tensor], images: Float[Tensor, "n c h w"]) -> Tensor:
    """The outputs for all pictures, computed ``in_groups``; of none, what ``see`` makes of none."""
    return torch.cat(list(in_groups(see, images)))[: len(images)] if len(images) else see(images)


@torch.inference_mode()
def features_of(network: FeatureNetwork, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    """Features of each picture, computed ``in_groups``."""
    return seen_in_groups(network.features, images)


def feature_dim(network: FeatureNetwork) -> int:
    return features_of(network, torch.zeros(1, 3, 64, 64)).shape[1]
