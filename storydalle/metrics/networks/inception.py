"""Inception-v3 (Szegedy et al. 2016, arXiv 1512.00567), twice from one set of blocks, named as in the released files.

========================================= ============================ =========================================
file                                      network                      differences
========================================= ============================ =========================================
pt_inception-2015-12-05-6726825d.pth      ``FIDInception``: FID, KID   1008 outputs; averages leave padding out;
                                                                       the last block pools by maximum
inception_v3_google-0cc3c7bd.pth          ``ClassifierInception``:     1000 outputs and an auxiliary head;
                                          torchvision's                averages count padding as zeros
========================================= ============================ =========================================

Nothing is downloaded: ``find_weights`` says which file to get, and where to put it.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, TypedDict

import torch
from jaxtyping import Float
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from storydalle.configured import Configured, NetworkSettings
from storydalle.files.paths import user_path
from storydalle.files.records import sha256_of_file
from storydalle.files.weights import check_finite
from storydalle.metrics.networks.inception_blocks import (
    Convolution,
    Pool,
    block_a,
    block_b,
    block_c,
    block_d,
    block_e,
    halving,
    maximum,
    mean_with_padding,
    mean_without_padding,
)

FID_WEIGHTS, IMAGENET_WEIGHTS = "pt_inception-2015-12-05-6726825d.pth", "inception_v3_google-0cc3c7bd.pth"
ORIGINS = {
    FID_WEIGHTS: "github.com/mseitzer/pytorch-fid, release fid_weights",
    IMAGENET_WEIGHTS: "download.pytorch.org/models",
}
SIDE = 299


class Resize(TypedDict, total=False):
    """Options of torch's ``interpolate``."""

    mode: str
    antialias: bool
    align_corners: bool


RESIZES: Mapping[str, Resize] = {
    "clean": {"mode": "bicubic", "antialias": True},
    "legacy": {"mode": "bilinear", "align_corners": False},
    "bilinear": {"mode": "bilinear", "antialias": True},
    "area": {"mode": "area"},
}
IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resized(images: Float[Tensor, "n c h w"], resize: str, side: int = SIDE) -> Float[Tensor, "n c side side"]:
    """Images at ``side`` pixels; ``resize`` is one of:

    - "clean": bicubic with antialiasing, Pillow's on float channels, clipped to [-1, 1], as clean-fid (Parmar et al.
      2022, section 3), which gives it pictures at their own size;
    - "legacy": bilinear between the nearest pixels, without antialiasing, as pytorch-fid;
    - "bilinear": bilinear with antialiasing, Pillow's, as torchvision's ``Resize`` in the field's classifiers;
    - "area": each pixel is the mean of those that it covers, as ToonSV is drawn.

    Raises ValueError for another name.
    """
    if resize not in RESIZES:
        raise ValueError(f"resize={resize!r}: choose one of {', '.join(RESIZES)}")
    images = F.interpolate(images, (side, side), **RESIZES[resize])
    return images.clamp(-1, 1) if resize == "clean" else images


# ------------------------------------------------------------------------------------------------ networks


class Auxiliary(nn.Module):
    """A second classifier on the 17 x 17 maps, which improves their gradient in training (section 4)."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv0 = Convolution(768, 128, 1)
        self.conv1 = Convolution(128, 768, 5, is_valid=True)
        self.fc = nn.Linear(768, num_classes)

    def forward(self, middle: Float[Tensor, "n 768 h w"]) -> Float[Tensor, "n k"]:
        return self.fc(self.conv1(self.conv0(F.avg_pool2d(middle, 5, stride=3))).mean((-2, -1)))


class Inception(nn.Module):
    """The layers that both networks have."""

    dim: ClassVar[int] = 2048  # of a picture's features

    def __init__(self, num_classes: int, average: Pool, last_pool: Pool) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3, is_valid=True)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3, is_valid=True)
        self.Mixed_5b = block_a(192, 32, average)
        self.Mixed_5c = block_a(256, 64, average)
        self.Mixed_5d = block_a(288, 64, average)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b = block_c(768, 128, average)
        self.Mixed_6c = block_c(768, 160, average)
        self.Mixed_6d = block_c(768, 160, average)
        self.Mixed_6e = block_c(768, 192, average)
        self.Mixed_7a = block_d(768)
        self.Mixed_7b = block_e(1280, average)
        self.Mixed_7c = block_e(2048, last_pool)
        self.fc = nn.Linear(self.dim, num_classes)
        # Twice as fast on a CPU; torch's stubs do not know that modules take it.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def middle(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 768 rows columns"]:
        """The maps of ``Mixed_6e``, 17 x 17 of 299 pixels, that the auxiliary head reads."""
        x = halving(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(inputs))))
        x = halving(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        return self.Mixed_6e(self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(x))))

    def pooled(self, middle: Float[Tensor, "n 768 h w"]) -> Float[Tensor, "n 2048"]:
        """Pool3: the last maps' mean over their places."""
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(middle))).mean((-2, -1))


class FIDInception(Inception):
    """The network of FID (Heusel et al. 2017): TensorFlow's of 2015-12-05 as pytorch-fid ported it, without weights.

    Its last block pools by maximum, unlike in the paper; published numbers depend on that.
    """

    weights_sha256: str | None = None

    def __init__(self) -> None:
        super().__init__(1008, average=mean_without_padding, last_pool=maximum)

    def forward(self, inputs: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1008"]:
        """Logits of inputs as they are: 299 pixels a side, in [-1, 1]."""
        return self.fc(self.pooled(self.middle(inputs)))

    @torch.no_grad()
    def features(self, images: Float[Tensor, "n 3 h w"], resize: str = "clean") -> Float[Tensor, "n 2048"]:
        """Pool3 of images in [-1, 1] of any size; ``resize`` as in ``resized``."""
        assert not self.training, "call eval() before reading"
        inputs = resized(images.float(), resize)
        if resize == "clean":
            # clean-fid centres pixels p at 128, (p - 128) / 128; pytorch-fid's p / 127.5 - 1 is what images are.
            inputs = inputs * (127.5 / 128) - 0.5 / 128
        return self.pooled(self.middle(inputs))


class ClassLogits(NamedTuple):
    """A classifier's logits; ``auxiliary`` only in training, for networks with such a head."""

    main: Float[Tensor, "n k"]
    auxiliary: Float[Tensor, "n k"] | None = None


@dataclass(frozen=True)
class InceptionSettings(NetworkSettings):
    """The defaults are torchvision's."""

    num_classes: int = 1000
    has_auxiliary: bool = True
    transform_input: bool = True


class ClassifierInception(Configured, Inception):
    """torchvision's ``inception_v3`` with ``num_classes`` outputs, for images in [-1, 1] of 299 pixels.

    Users of torchvision normalise pictures by ImageNet's mean and deviation. Networks with ``transform_input``, which
    are all networks with torchvision's weights, undo that: together both leave [-1, 1] as it is. Without it the network
    sees the normalised picture.
    """

    settings: InceptionSettings

    def __init__(self, *values: object, **named: object) -> None:
        settings = InceptionSettings.of(*values, **named)
        super().__init__(settings.num_classes, average=mean_with_padding, last_pool=mean_with_padding)
        self.settings, self.transform_input = settings, settings.transform_input
        self.AuxLogits = Auxiliary(settings.num_classes) if settings.has_auxiliary else None
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> ClassLogits:
        middle = self.middle(self.normalised(images))
        auxiliary = self.AuxLogits(middle) if self.AuxLogits is not None and self.training else None
        return ClassLogits(self.fc(self.dropout(self.pooled(middle))), auxiliary)

    @torch.no_grad()
    def features(self, images: Float[Tensor, "n 3 h w"], resize: str = "bilinear") -> Float[Tensor, "n 2048"]:
        """Pool3 of images in [-1, 1] of any size; ``resize`` as in ``resized``."""
        assert not self.training, "call eval() before reading"
        return self.pooled(self.middle(self.normalised(resized(images.float(), resize))))

    def normalised(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        if self.transform_input:
            return images
        mean, deviation = (images.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_DEVIATION))
        return ((images + 1) / 2 - mean) / deviation


# ------------------------------------------------------------------------------------------------ weights


def weights_folder() -> Path:
    """The folder where a user puts weights: ``$STORYDALLE_WEIGHTS``, by default ~/.cache/storydalle."""
    return user_path(os.environ.get("STORYDALLE_WEIGHTS") or "~/.cache/storydalle")


def find_weights(name: str, path: Path | str | None = None) -> Path:
    """The file ``path``, the file of that name in the folder ``path``, or in ``weights_folder()`` if ``path`` is None.

    Raises ValueError, naming the file to get and where to put it, if it is missing.
    """
    given = weights_folder() if path is None else user_path(path)
    file = given / name if path is None or given.is_dir() else given
    if not file.is_file():
        origin = f" ({ORIGINS[name]})" if name in ORIGINS else ""
        raise ValueError(
            f"no weights at {file}: get {name}{origin} and put it there, or set STORYDALLE_WEIGHTS to the folder "
            "that holds it"
        )
    return file


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name from a .safetensors file or a file of torch; no code in it is executed.

    Raises ValueError, naming the file, if it is damaged or contains something else.
    """
    remedy = "save the network's state dict alone, torch.save(network.state_dict(), FILE)"
    try:
        with warnings.catch_warnings(action="ignore"):  # torch's advice on scripts, before it refuses them
            is_safe = path.suffix == ".safetensors"
            weights = load_file(path) if is_safe else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises can be anything
        raise ValueError(
            f"{path} cannot be read as weights ({type(error).__name__}): it is damaged, or holds code or objects "
            f"beside tensors, which are never opened; get it again, or {remedy}"
        ) from error
    held = isinstance(weights, Mapping)
    entries: list[tuple[object, object]] = list(weights.items()) if held else [(type(weights).__name__, None)]
    tensors = {name: value for name, value in entries if isinstance(name, str) and isinstance(value, Tensor)}
    foreign = [name for name, _ in entries if name not in tensors]
    if foreign or not entries:
        found = repr(foreign[0]) if foreign else "nothing"
        raise ValueError(f"{path} holds {found} where tensors with names are expected: {remedy}")
    check_finite(tensors.items(), str(path))
    return tensors


def load_weights(
    network: nn.Module, weights: Mapping[str, Tensor], source: Path | str, remedy: str, fresh: Sequence[str] = ()
) -> None:
    """Load weights by name; parameters whose names begin with one of ``fresh`` keep the network's own values.

    ``num_batches_tracked`` may be missing, as in torchvision's file: it is older than that counter. Raises ValueError
    naming the ``source``, the first parameter that is missing, foreign or misshapen, and the ``remedy``.
    """
    kept = {name: value for name, value in network.state_dict().items() if not name.startswith(tuple(fresh))}
    given = {name: value for name, value in weights.items() if not name.startswith(tuple(fresh))}
    for name in [*kept, *given]:
        has, wants = (tuple(of[name].shape) if name in of else None for of in (given, kept))
        if has == wants or (has is None and name.endswith(".num_batches_tracked")):
            continue
        first = f", and the file begins with {next(iter(given), 'nothing')}" if has is None else ""
        raise ValueError(
            f"{source} is no file of {type(network).__name__}: {name} is {'missing' if has is None else has} and "
            f"should be {'absent' if wants is None else wants}{first}; {remedy}"
        )
    network.load_state_dict(given, strict=False)  # nothing is missing but counters


def open_weights(path: Path | str | None = None) -> FIDInception:
    """The network of FID with its weights, ready to read; ``weights_sha256`` is their file's, for the protocol.

    ``path`` as in ``find_weights``. Raises ValueError where the file is missing or another network's.
    """
    file = find_weights(FID_WEIGHTS, path)
    network = FIDInception()
    load_weights(network, read_weights(file), file, f"get {FID_WEIGHTS}")
    network.weights_sha256 = sha256_of_file(file)
    return network.eval().requires_grad_(False)
