"""A small network that reads ToonSV's labels in a frame; all ToonSV scores depend on it."""

import json
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from storydalle.configured import Configured, NetworkSettings
from storydalle.files.reading import read_object
from storydalle.files.weights import described_by, stored_floats, write_tensors
from storydalle.files.whole import write_text
from storydalle.stories.toon import ACCESSORIES, ACTIONS, CHARACTERS, COLORS, HATS, PROPS, SETTINGS, SHAPES, TINTS

LabelLogits = dict[str, Tensor]

# Heads that choose one class for the whole frame; those of the guest's look hold only where there is a guest.
LOOK_HEADS = ("guest_shape", "guest_color", "guest_accessory")
SCENE_HEADS = ("setting", "tint", "action", "prop")


def convolution(dim_in: int, dim_out: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, normalised."""
    return nn.Sequential(
        nn.Conv2d(dim_in, dim_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(dim_out), nn.ReLU()
    )


def strided_maps(dims: tuple[int, ...]) -> nn.Sequential:
    """A convolutional map of a picture; the side is halved at first and again for each further width."""
    blocks: list[nn.Module] = [nn.Conv2d(3, dims[0], 4, stride=2, padding=1), nn.ReLU(), convolution(dims[0], dims[0])]
    for dim_in, dim_out in pairwise(dims):
        blocks += [convolution(dim_in, dim_out, stride=2), convolution(dim_out, dim_out)]
    return nn.Sequential(*blocks)


@dataclass(frozen=True)
class LabelReaderSettings(NetworkSettings):
    """Sizes, and the number of classes of each label; the defaults are ToonSV's."""

    resolution: int = 64
    dims: tuple[int, ...] = (24, 48, 96, 128)
    num_characters: int = len(CHARACTERS)
    num_settings: int = len(SETTINGS)
    num_tints: int = len(TINTS)
    num_actions: int = len(ACTIONS)
    num_props: int = len(PROPS)
    num_shapes: int = len(SHAPES)
    num_colors: int = len(COLORS)
    num_accessories: int = len(ACCESSORIES)
    num_hats: int = len(HATS)

    @property
    def classes(self) -> dict[str, int]:
        """The number of classes of each head."""
        scene = (self.num_settings, self.num_tints, self.num_actions, self.num_props)
        look = (self.num_shapes, self.num_colors, self.num_accessories)
        return dict(zip((*SCENE_HEADS, *LOOK_HEADS), (*scene, *look), strict=True))


class LabelReader(Configured, nn.Module):
    """Reads characters, setting, action, prop and hats in a frame.

    A convolutional map of the frame is pooled by one learned attention map for each question ("where is the bear?",
    "where does one see the action?"), so that a character's hat is read at that character.
    """

    settings: LabelReaderSettings

    def __init__(self, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = LabelReaderSettings.of(*values, **named)
        self.resolution, self.num_characters = settings.resolution, settings.num_characters
        self.features = strided_maps(settings.dims)
        dim, classes = settings.dims[-1], settings.classes
        self.attention = nn.Conv2d(dim, self.num_characters + len(classes), 1)  # a map a question
        self.present = nn.Parameter(torch.randn(self.num_characters, dim) * dim**-0.5)
        self.present_bias = nn.Parameter(torch.zeros(self.num_characters))
        self.hat = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, settings.num_hats))
        self.heads = nn.ModuleDict({name: nn.Linear(dim, number) for name, number in classes.items()})

    def forward(self, images: Float[Tensor, "n c h w"]) -> LabelLogits:
        """Logits ``(n, classes)``, of hats ``(n, characters, classes)``, of images in [-1, 1] of any resolution."""
        features = self.features(resized(images, self.resolution))
        weights = rearrange(self.attention(features), "n q h w -> n q (h w)").softmax(-1)
        answers = torch.einsum("nqp,ndp->nqd", weights, rearrange(features, "n d h w -> n d (h w)"))
        characters = answers[:, : self.num_characters]
        logits = {
            "characters": (characters * self.present).sum(-1) + self.present_bias,
            "hat": self.hat(characters),
        }
        rest = answers[:, self.num_characters :].unbind(1)
        return logits | {name: head(answer) for (name, head), answer in zip(self.heads.items(), rest, strict=True)}

    @torch.inference_mode()
    def read(self, images: Float[Tensor, "n c h w"]) -> dict[str, Int[Tensor, "..."]]:
        """Labels of images in [-1, 1], encoded as ToonSV's: hats only on characters present, a look only on a guest."""
        assert not self.training, "call eval() before reading"
        logits = self(images)
        characters = (logits["characters"] > 0).long()
        guest = characters[:, -1]
        labels = {name: logits[name].argmax(-1) for name in SCENE_HEADS}
        labels |= {name: torch.where(guest > 0, logits[name].argmax(-1), -1) for name in LOOK_HEADS}
        return labels | {"characters": characters, "guest": guest, "hat": logits["hat"].argmax(-1) * characters}

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``config.json`` and the weights in half precision."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            name: (value.half() if value.is_floating_point() else value).contiguous()
            for name, value in self.state_dict().items()
        }
        write_tensors(folder / "model.safetensors", state)
        write_text(folder / "config.json", json.dumps(self.config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "LabelReader":
        """The reader saved in a folder, ready to read; ValueError where it is damaged or of another kind."""
        config_file, weights = Path(folder) / "config.json", Path(folder) / "model.safetensors"
        with described_by(config_file, "is not the configuration of a label reader", weights):
            reader = cls(**read_object(config_file))
            reader.load_state_dict(dict(stored_floats(weights)))
        return reader.eval()


def resized(images: Float[Tensor, "n c h w"], resolution: int) -> Float[Tensor, "n c r r"]:
    """Images at the reader's own resolution, each pixel the mean of those it covers, as ToonSV is drawn."""
    return F.interpolate(images, (resolution, resolution), mode="area")
