"""The interface of image tokenizers: pictures in [-1, 1] in, codes in raster order out, and back.

Released tokenizers need pictures in different ranges; each converts them inside. Two tokenizers with the same number of
codes and the same codebook size still cannot be exchanged: OpenAI's dVAE and taming's Gumbel VQGAN both write 1024
codes out of 8192, but the codes mean different things.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn

from storydalle.configured import Configured
from storydalle.files.paths import user_path
from storydalle.files.reading import read_object
from storydalle.files.registry import Registry
from storydalle.files.weights import described_by, stored_floats, write_tensors
from storydalle.files.whole import write_text

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"

Tokenizer = TypeVar("Tokenizer", bound="ImageTokenizer")


class PixelRange(NamedTuple):
    """The range of pictures inside a network; outside it is [-1, 1]."""

    low: float = -1.0
    high: float = 1.0

    def inward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Convert pictures from [-1, 1] to the network's range; the same object if the range is [-1, 1]."""
        if self == (-1.0, 1.0):
            return images
        return (images + 1.0) * ((self.high - self.low) / 2.0) + self.low

    def outward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The inverse of ``inward``."""
        if self == (-1.0, 1.0):
            return images
        return (images - self.low) * (2.0 / (self.high - self.low)) - 1.0


class ImageTokenizer(Configured, nn.Module, ABC):
    """Square pictures of one size <-> codes.

    Codes depend only on what ``encoding_weights`` and ``encoding_settings`` return.
    """

    kind: ClassVar[str]  # its name in ``IMAGE_TOKENIZERS``
    resolution: int
    grid: int  # codes a row, and rows
    codebook_size: int
    window: int  # side of the squares that are encoded separately; the resolution if there is only one

    @property
    def num_codes(self) -> int:
        """Codes a picture."""
        return self.grid**2

    @property
    @abstractmethod
    def picture_bytes(self) -> int:
        """Upper bound of the bytes that decoding one picture works with, from the sizes of the network alone."""

    @property
    def description(self) -> dict[str, object]:
        """Kind and config: what ``from_config`` reads."""
        return {"kind": self.kind, **self.config}

    @abstractmethod
    def encode(self, images: Float[Tensor, "b 3 h w"]) -> Int[Tensor, "b l"]:
        """Codes in raster order of pictures in [-1, 1]; ValueError for pictures of another size."""

    @abstractmethod
    def decode(self, codes: Int[Tensor, "b l"]) -> Float[Tensor, "b 3 h w"]:
        """Pictures clamped to [-1, 1] of codes in raster order; ValueError for codes that are not this tokenizer's."""

    @abstractmethod
    def encoding_weights(self) -> dict[str, Tensor]:
        """The weights that codes depend on, by their names in the state dict of the encoding network."""

    def encoding_settings(self) -> dict[str, object]:
        """The settings that codes depend on; newer settings are left out if they have the value of before."""
        return {}

    def encode_windows(self, windows: Float[Tensor, "n 3 h w"]) -> Int[Tensor, "n l"]:
        """Codes of single squares of ``window`` pixels."""
        return self.encode(windows)

    def check_images(self, images: Float[Tensor, "b 3 h w"]) -> None:
        """Raise ValueError if pictures do not have this tokenizer's size."""
        if images.shape[-2:] != (self.resolution, self.resolution):
            raise ValueError(
                f"pictures of {images.shape[-1]}x{images.shape[-2]} pixels do not fit a tokenizer of "
                f"{self.resolution}x{self.resolution}: resize them"
            )

    def check_codes(self, codes: Int[Tensor, "b l"]) -> None:
        """Raise ValueError for codes that this tokenizer cannot have made."""
        if codes.shape[1] != self.num_codes:
            raise ValueError(f"{codes.shape[1]} codes a picture do not fill this tokenizer's {self.num_codes}")
        lowest, highest = codes.min().item(), codes.max().item()
        if lowest < 0 or highest >= self.codebook_size:
            wrong = lowest if lowest < 0 else highest
            raise ValueError(
                f"code {wrong} lies outside the codebook of {self.codebook_size} (0 to {self.codebook_size - 1}): "
                "decode with the tokenizer that made the codes"
            )

    # ------------------------------------------------------------------------------------------------- files

    @classmethod
    def from_config(cls: type[Tokenizer], config: Mapping[str, object]) -> Tokenizer:
        """An untrained tokenizer of the kind that ``config`` names, by default a VQGAN.

        Raises ValueError for a kind that is unknown, or that is not this class.
        """
        found, settings = IMAGE_TOKENIZERS.split(config)
        if not issubclass(found, cls):
            raise ValueError(f"it is an image tokenizer of kind {found.kind}, not {cls.kind}")
        return found(**settings)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json`` (kind and constructor's arguments) and ``model.safetensors``.

        Raises ValueError, naming the weight, if a weight is not finite.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / WEIGHTS_NAME, self.state_dict())
        write_text(folder / CONFIG_NAME, json.dumps(self.description, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls: type[Tokenizer], folder: str | Path) -> Tokenizer:
        """Read what ``save_pretrained`` wrote; called on a subclass, only a tokenizer of its kind.

        Raises ValueError, naming the file, if it is missing or does not fit, or if a weight is not finite.
        """
        config_file, weights_file = user_path(folder) / CONFIG_NAME, user_path(folder) / WEIGHTS_NAME
        with described_by(config_file, "is not the configuration of an image tokenizer", weights_file):
            model = cls.from_config(read_object(config_file))
        try:
            model.load_state_dict(dict(stored_floats(weights_file)))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{weights_file} does not hold the weights of {config_file}: {reason}") from error
        return model.eval()


IMAGE_TOKENIZERS: Registry[ImageTokenizer] = Registry(
    "an image tokenizer",
    {
        "vqgan": "storydalle.tokens.vqgan.VQGAN",
        "dvae": "storydalle.tokens.dvae.DVAE",
        "paired": "storydalle.tokens.paired.PairedTokenizer",
    },
    unnamed="vqgan",  # older files, from when there was no other kind, do not name it
)
