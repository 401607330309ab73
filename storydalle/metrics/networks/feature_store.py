"""Stored features of pictures, by their content: pictures that were seen before need no network."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from storydalle.metrics.networks.features import FeatureNetwork, feature_dim, features_of

KEY_BYTES = 16


class StoredFeatures:
    """A feature network that stores its features in ``folder``, in a subfolder for each network.

    The key of a picture is the first 128 bits of the sha256 of its size and pixels; its name and place do not matter.
    Two files grow together, keys and vectors; if a process was killed, the longer one is cut. Memory holds all keys,
    but only the requested vectors. Only one process at a time may write to a folder.
    """

    def __init__(self, network: FeatureNetwork, folder: Path) -> None:
        self.network = network
        self.name, self.sha256, self.label = network.name, network.sha256, network.label
        self.dim = feature_dim(network)
        own = folder / f"{network.name}-{hashlib.sha256(identity(network).encode()).hexdigest()[:16]}"
        own.mkdir(parents=True, exist_ok=True)
        self.keys_file, self.vectors_file = own / "keys.bin", own / "vectors.bin"
        self.places = self.known()

    def known(self) -> dict[bytes, int]:
        """The place of each key's vector; both files are cut to whole rows."""
        for file in (self.keys_file, self.vectors_file):
            file.touch()
        row_bytes = 4 * self.dim
        number = min(self.keys_file.stat().st_size // KEY_BYTES, self.vectors_file.stat().st_size // row_bytes)
        for file, size in ((self.keys_file, KEY_BYTES), (self.vectors_file, row_bytes)):
            with file.open("r+b") as opened:
                opened.truncate(number * size)
        keys = self.keys_file.read_bytes()
        return {keys[i * KEY_BYTES : (i + 1) * KEY_BYTES]: i for i in range(number)}

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Features of images in [-1, 1]; known ones are read from disk."""
        keys = [picture_key(image) for image in images]
        new = [i for i, key in enumerate(keys) if key not in self.places and key not in keys[:i]]
        if new:
            self.add([keys[i] for i in new], features_of(self.network, images[new]))
        vectors = np.memmap(self.vectors_file, dtype="<f4", mode="r").reshape(-1, self.dim)
        return torch.from_numpy(vectors[[self.places[key] for key in keys]].copy()).to(images.device)

    def add(self, keys: list[bytes], features: Float[Tensor, "n d"]) -> None:
        """Write vectors first, so that every key has a vector."""
        with self.vectors_file.open("ab") as file:
            file.write(features.cpu().numpy().astype("<f4").tobytes())
        with self.keys_file.open("ab") as file:
            file.write(b"".join(keys))
        for key in keys:
            self.places[key] = len(self.places)


def picture_key(image: Float[Tensor, "c h w"]) -> bytes:
    pixels = np.ascontiguousarray(image.float().cpu().numpy())
    return hashlib.sha256(str(pixels.shape).encode() + pixels.tobytes()).digest()[:KEY_BYTES]


def identity(network: FeatureNetwork) -> str:
    """Everything that a network's features depend on."""
    return f"{network.name} {network.sha256} {getattr(network, 'resize', None)}"
