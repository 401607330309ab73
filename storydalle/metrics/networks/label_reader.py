"""A small network that reads the labels of a frame of ToonSV or of ToonSV 2; all their scores depend on it."""

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

LOOK_HEADS = ("guest_shape", "guest_color", "guest_accessory")  # they hold only where there is a guest
NOBODY = {"action": -1} | dict.fromkeys(LOOK_HEADS, -1)  # what is read of characters that are not there: else 0
# Settings of a reader of ToonSV 2: figures of casts of three and four are small, so it looks closer.
TOONSV2: dict[str, object] = {
    "resolution": 128,
    "dims": (48, 96, 128),
    "patch": 4,
    "num_characters": len(CHARACTERS) + 1,
    "num_guests": 2,
    "scene": ("setting", "light"),
    "own": ("action", "prop", "hat"),
}


def convolution(dim_in: int, dim_out: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 convolution, normalised."""
    return nn.Sequential(
        nn.Conv2d(dim_in, dim_out, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(dim_out), nn.ReLU()
    )


def strided_maps(dims: tuple[int, ...], patch: int = 2) -> nn.Sequential:
    """A convolutional map of a picture; the side is divided by ``patch``, 2 or 4, and halved for each further width."""
    first = nn.Conv2d(3, dims[0], 4, stride=patch, padding=(4 - patch) // 2)
    blocks: list[nn.Module] = [first, nn.ReLU(), convolution(dims[0], dims[0])]
    for dim_in, dim_out in pairwise(dims):
        blocks += [convolution(dim_in, dim_out, stride=2), convolution(dim_out, dim_out)]
    return nn.Sequential(*blocks)


@dataclass(frozen=True)
class LabelReaderSettings(NetworkSettings):
    """Sizes, the number of classes of each label, and where each is read; the defaults are ToonSV's.

    ``scene`` are labels of the whole frame, ``own`` those of each character. The last ``num_guests`` characters are
    guests. If there is one, what is own is read where the character is; if there are more, they are read from left to
    right, and there is a map for each label of each character.
    """

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
    patch: int = 2  # pixels between the first features
    num_guests: int = 1
    scene: tuple[str, ...] = ("setting", "tint", "action", "prop")
    own: tuple[str, ...] = ("hat",)

    @property
    def is_ordered(self) -> bool:
        """Several guests are read from left to right."""
        return self.num_guests > 1

    @property
    def classes(self) -> dict[str, int]:
        """The number of classes of each label."""
        scene = {"setting": self.num_settings, "tint": self.num_tints, "light": self.num_tints}
        own = {"action": self.num_actions, "prop": self.num_props, "hat": self.num_hats}
        look = (self.num_shapes, self.num_colors, self.num_accessories)
        return scene | own | dict(zip(LOOK_HEADS, look, strict=True))

    @property
    def mapped(self) -> tuple[str, ...]:
        """The labels that have one attention map."""
        return self.scene if self.is_ordered else (*self.scene, *LOOK_HEADS)

    @property
    def questions(self) -> dict[str, int]:
        """The number of attention maps of each label, in their order."""
        own = dict.fromkeys(self.own, self.num_characters) | dict.fromkeys(LOOK_HEADS, self.num_guests)
        return {"characters": self.num_characters} | (own if self.is_ordered else {}) | dict.fromkeys(self.mapped, 1)

    @property
    def labels(self) -> tuple[str, ...]:
        """All that is read."""
        return ("characters", *self.scene, *self.own, *LOOK_HEADS, *(() if self.is_ordered else ("guest",)))


class LabelReader(Configured, nn.Module):
    """Reads characters, setting, light, actions, props and hats in a frame.

    A convolutional map of the frame is pooled by one learned attention map for each question ("where is the bear?",
    "where does one see the setting?"), so that a character's hat is read at that character. "What does the first guest
    from the left do?" needs places too, so a reader that tells guests apart has them as two more features.
    """

    settings: LabelReaderSettings

    def __init__(self, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = LabelReaderSettings.of(*values, **named)
        self.resolution, self.num_characters = settings.resolution, settings.num_characters
        self.features = strided_maps(settings.dims, settings.patch)
        dim = settings.dims[-1] + 2 * settings.is_ordered
        self.attention = nn.Conv2d(dim, sum(settings.questions.values()), 1)  # a map a question
        self.present = nn.Parameter(torch.randn(self.num_characters, dim) * dim**-0.5)
        self.present_bias = nn.Parameter(torch.zeros(self.num_characters))
        for name in settings.own:
            self.add_module(name, two_layers(dim, settings.classes[name]))
        self.heads = nn.ModuleDict({name: nn.Linear(dim, settings.classes[name]) for name in settings.mapped})
        if settings.is_ordered:
            self.looks = nn.ModuleDict({name: two_layers(dim, settings.classes[name]) for name in LOOK_HEADS})
            self.guests = two_layers(dim * settings.num_guests, settings.num_guests)
            self.lean_guests()

    @torch.no_grad()
    def lean_guests(self) -> None:
        """Let each question's map of the first guest begin with a slope to the left, that of the last to the right."""
        slopes = torch.linspace(-4, 4, self.settings.num_guests)
        for maps in self.attention.weight.split(list(self.settings.questions.values())):
            if len(maps) > 1:
                maps[-len(slopes) :, -2, 0, 0] = slopes

    @property
    def guest_columns(self) -> slice:
        return slice(self.num_characters - self.settings.num_guests, self.num_characters)

    def forward(self, images: Float[Tensor, "n c h w"]) -> LabelLogits:
        """Logits of images in [-1, 1] of any resolution.

        Those of characters are ``(n, characters)``, of what is read at each of them ``(n, characters, classes)``, of
        looks of guests that are told apart ``(n, guests, classes)``, and of others ``(n, classes)``.
        """
        features = self.features(resized(images, self.resolution))
        if self.settings.is_ordered:
            features = torch.cat([features, places_like(features)], dim=1)
        weights = rearrange(self.attention(features), "n q h w -> n q (h w)").softmax(-1)
        pooled = torch.einsum("nqp,ndp->nqd", weights, rearrange(features, "n d h w -> n d (h w)"))
        questions = self.settings.questions
        answers = dict(zip(questions, pooled.split(list(questions.values()), dim=1), strict=True))
        characters = answers["characters"]
        logits = {"characters": (characters * self.present).sum(-1) + self.present_bias}
        logits |= {name: self.get_submodule(name)(answers.get(name, characters)) for name in self.settings.own}
        if self.settings.is_ordered:
            seen = logits["characters"][:, : self.guest_columns.start]
            guests = self.guests(characters[:, self.guest_columns].flatten(1))
            logits["characters"] = torch.cat([seen, guests], dim=1)
            logits |= {name: head(answers[name]) for name, head in self.looks.items()}
        return logits | {name: head(answers[name][:, 0]) for name, head in self.heads.items()}

    @torch.inference_mode()
    def read(self, images: Float[Tensor, "n c h w"]) -> dict[str, Int[Tensor, "..."]]:
        """Labels of images in [-1, 1], encoded as ToonSV's: hats only on characters present, a look only on a guest.

        Guests that are told apart are those of ToonSV 2 from left to right, the second one only beside a first.
        """
        assert not self.training, "call eval() before reading"
        logits = self(images)
        characters = (logits["characters"] > 0).long()
        characters[:, self.guest_columns] = characters[:, self.guest_columns].cumprod(1)
        guests = characters[:, self.guest_columns] if self.settings.is_ordered else characters[:, -1]
        there = dict.fromkeys(self.settings.own, characters) | dict.fromkeys(LOOK_HEADS, guests)
        labels = {name: logits[name].argmax(-1) for name in (*self.settings.scene, *there)}
        for name, who in there.items():
            labels[name] = torch.where(who > 0, labels[name], NOBODY.get(name, 0))
        labels |= {} if self.settings.is_ordered else {"guest": guests}
        return labels | {"characters": characters}

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


def two_layers(dim: int, num_classes: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim, min(dim, 128)), nn.ReLU(), nn.Linear(min(dim, 128), num_classes))


def places_like(features: Float[Tensor, "n d h w"]) -> Float[Tensor, "n 2 h w"]:
    """The place of each feature, right and down in [-1, 1]."""
    sides = [torch.linspace(-1, 1, side, dtype=features.dtype, device=features.device) for side in features.shape[-2:]]
    down, right = torch.meshgrid(*sides, indexing="ij")
    return torch.stack([right, down]).expand(len(features), -1, -1, -1)


def resized(images: Float[Tensor, "n c h w"], resolution: int) -> Float[Tensor, "n c r r"]:
    """Images at the reader's own resolution, each pixel the mean of those it covers, as ToonSV is drawn."""
    return F.interpolate(images, (resolution, resolution), mode="area")
