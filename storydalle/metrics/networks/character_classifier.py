"""Character classifiers, released or trained here, with one interface, ``read``.

The usual one is torchvision's Inception-v3, fine-tuned on single frames at 299 pixels with one sigmoid a character and
a threshold of 0.5 (StoryViz, Maharana et al. 2021; StoryDALL-E; StoryGPT-V). For ToonSV a small network is enough.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from storydalle.configured import Configured, NetworkSettings
from storydalle.files.json_values import as_object, as_text
from storydalle.files.paths import user_path
from storydalle.files.reading import read_object
from storydalle.files.records import sha256_of_file
from storydalle.files.weights import described_by, write_tensors
from storydalle.files.whole import write_text
from storydalle.metrics.networks import inception
from storydalle.metrics.networks.inception import ClassifierInception, ClassLogits
from storydalle.models.ranks import SharedBatchNorm2d
from storydalle.stories.character_labels import character_names
from storydalle.stories.story import Stories

CONFIG, WEIGHTS = "config.json", "model.safetensors"
HEADS = ("fc.", "AuxLogits.fc.")  # layers whose outputs are the classes
BACKGROUNDS = 323  # outputs of StoryGPT-V's second classifier of FlintstonesSV, classifier_bg.pt


@dataclass(frozen=True)
class SmallSettings(NetworkSettings):
    num_classes: int
    dims: tuple[int, ...] = (24, 48, 96, 128)


class SmallNetwork(Configured, nn.Module):
    """Strided convolutions, then one attention map and one map of logits for each character; 64 or 128 pixels."""

    settings: SmallSettings

    def __init__(self, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = SmallSettings.of(*values, **named)
        dims, num_classes = self.settings.dims, self.settings.num_classes
        layers: list[nn.Module] = [nn.Conv2d(3, dims[0], 4, stride=2, padding=1), nn.ReLU()]
        for dim_in, dim in pairwise(dims):
            layers += [self.convolution(dim_in, dim, stride=2), self.convolution(dim, dim, stride=1)]
        self.maps = nn.Sequential(*layers)
        self.where = nn.Conv2d(dims[-1], num_classes, 1)
        self.seen = nn.Conv2d(dims[-1], num_classes, 1)

    @staticmethod
    def convolution(dim_in: int, dim: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(dim_in, dim, 3, stride=stride, padding=1, bias=False), SharedBatchNorm2d(dim), nn.ReLU()
        )

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> ClassLogits:
        maps = self.maps(images)
        weights = rearrange(self.where(maps), "n k h w -> n k (h w)").softmax(-1)
        return ClassLogits((weights * rearrange(self.seen(maps), "n k h w -> n k (h w)")).sum(-1))


NETWORKS: dict[str, type[ClassifierInception] | type[SmallNetwork]] = {
    "inception": ClassifierInception,
    "small": SmallNetwork,
}
RESOLUTIONS = {"inception": inception.SIDE, "small": 64}
RESIZES = {"inception": "bilinear", "small": "area"}


@dataclass(frozen=True)
class ClassifierSettings(NetworkSettings):
    """``names`` of the characters, one for each output; pictures are resized to ``resolution``, as ``resize`` says."""

    names: tuple[str, ...]
    resolution: int
    threshold: float | int = 0.5
    resize: str = "bilinear"

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) != len(self.names):
            told = f"names={list(self.names)}"
            raise ValueError(f"{told}: give each character's own, in the order of the network's outputs")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold={self.threshold}: a probability between 0 and 1, the field's is 0.5")


class CharacterClassifier(Configured, nn.Module):
    """Reads which of the characters ``names`` are in a frame.

    ``network`` maps images in [-1, 1] of ``resolution`` pixels to ``ClassLogits``, one column a name. Images of another
    size are resized, by default in the usual way (``resize`` as in ``inception.resized``). A character is read if its
    probability is above ``threshold``.

    Raises ValueError for too few, too many or repeated names, and for a threshold that is not a probability.
    """

    weights_sha256: str | None = None  # of the file that the weights are from, for a protocol

    settings: ClassifierSettings

    def __init__(self, network: nn.Module, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = ClassifierSettings.of(*values, **named)
        names = settings.names
        if isinstance(network, ClassifierInception | SmallNetwork):
            outputs = network.config["num_classes"]
            if outputs != len(names):
                raise ValueError(f"{len(names)} names ({', '.join(names)}) for {outputs} outputs: name each output")
        self.network, self.names, self.resolution = network, names, settings.resolution
        self.threshold, self.resize = settings.threshold, settings.resize

    def forward(self, images: Float[Tensor, "n c h w"]) -> ClassLogits:
        """Logits of images in [-1, 1] of any size."""
        if images.shape[-2:] != (self.resolution, self.resolution):
            images = inception.resized(images, self.resize, self.resolution)
        return self.network(images)

    def present(self, logits: Float[Tensor, "n k"]) -> Int[Tensor, "n k"]:
        """1 for each character whose probability is over the threshold, 0 for the others."""
        return (logits.float().sigmoid() > self.threshold).long()

    @torch.no_grad()
    def probabilities(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        """The probability of each character in each image in [-1, 1]."""
        assert not self.training, "call eval() before reading"
        return self(images).main.float().sigmoid()

    @torch.no_grad()
    def read(self, images: Float[Tensor, "n c h w"]) -> Int[Tensor, "n k"]:
        """1 for each character that is read in an image in [-1, 1], 0 for the others."""
        assert not self.training, "call eval() before reading"
        return self.present(self(images).main)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        folder = Path(folder)
        if not isinstance(self.network, ClassifierInception | SmallNetwork):
            raise ValueError(f"a {type(self.network).__name__} is not saved: only {', '.join(NETWORKS)} networks are")
        name = next(name for name, kind in NETWORKS.items() if isinstance(self.network, kind))
        config = {"network": name, "settings": self.network.config, **self.config}
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / WEIGHTS, self.network.state_dict())
        write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "CharacterClassifier":
        """Read what ``save_pretrained`` wrote; ValueError, naming the file, where it is missing or does not fit."""
        config_file, weights_file = user_path(folder) / CONFIG, user_path(folder) / WEIGHTS
        with described_by(config_file, "is not the configuration of a character classifier", weights_file):
            config = read_object(config_file)
            network = NETWORKS[as_text(config.pop("network"))](**as_object(config.pop("settings")))
            classifier = cls(network, **config)
        remedy = "write the folder again with save_pretrained"
        inception.load_weights(network, inception.read_weights(weights_file), weights_file, remedy)
        classifier.weights_sha256 = sha256_of_file(weights_file)
        return classifier.eval().requires_grad_(False)


def released_classifier(
    path: Path | str, names: Sequence[str], threshold: float = 0.5, transform_input: bool = True
) -> CharacterClassifier:
    """A released classifier of ``names``, ready to read: of StoryViz and StoryDALL-E, or StoryGPT-V's.

    Both are state dicts of torchvision's Inception-v3 whose ``fc`` and ``AuxLogits.fc`` have an output a character.
    Their training code has ``transform_input=True``, like torchvision's pretrained networks, and so has StoryGPT-V's
    evaluation. The evaluation of StoryViz and StoryDALL-E (``eval_char_clf.py``) builds the network without it, so the
    network sees pictures with another scale and contrast than in training; False does the same.

    Raises ValueError if the file is missing, or has other keys, shapes or another number of outputs.
    """
    file = user_path(path)
    if not file.is_file():
        raise ValueError(f"no classifier at {file}: give the .pt file that its authors share")
    weights = inception.read_weights(file)
    check_outputs(weights, names, file)
    has_auxiliary = any(name.startswith("AuxLogits.") for name in weights)
    network = ClassifierInception(len(names), has_auxiliary, transform_input)
    inception.load_weights(network, weights, file, "give a state dict of torchvision's inception_v3")
    classifier = CharacterClassifier(network, names, inception.SIDE, threshold)
    classifier.weights_sha256 = sha256_of_file(file)
    return classifier.eval().requires_grad_(False)


def check_outputs(weights: Mapping[str, Tensor], names: Sequence[str], file: Path) -> None:
    """Refuse a network with another number of classes with its own message: this is the most likely mistake."""
    outputs = len(weights["fc.weight"]) if "fc.weight" in weights and weights["fc.weight"].ndim == 2 else len(names)
    if outputs != len(names):
        hint = "; it is the one of backgrounds, use classifier_char.pt" if outputs == BACKGROUNDS else ""
        raise ValueError(
            f"{file}: fc.weight is {tuple(weights['fc.weight'].shape)}, one output for each of {outputs} classes, and "
            f"there are {len(names)} names ({', '.join(names)}){hint}"
        )


def new_classifier(
    stories: Stories,
    network: str = "inception",
    resolution: int | None = None,
    pretrained: Path | str | None = None,
    threshold: float = 0.5,
) -> CharacterClassifier:
    """A classifier to be trained on the characters of ``stories``, by default at its network's usual resolution.

    ``pretrained`` is "imagenet" or the file of torchvision's Inception-v3; its last layers are replaced by new ones.
    Raises ValueError if the stories have no characters, and as ``inception.find_weights`` and ``load_weights`` do.
    """
    names = character_names(stories)
    if network not in NETWORKS:
        raise ValueError(f"network={network!r}: choose one of {', '.join(NETWORKS)}")
    made = NETWORKS[network](len(names))
    if pretrained is not None:
        if not isinstance(made, ClassifierInception):
            raise ValueError(
                f"pretrained={pretrained}: there are no weights for network={network}; give pretrained=null"
            )
        file = inception.find_weights(inception.IMAGENET_WEIGHTS, None if pretrained == "imagenet" else pretrained)
        remedy = f"get {inception.IMAGENET_WEIGHTS}"
        inception.load_weights(made, inception.read_weights(file), file, remedy, fresh=HEADS)
    return CharacterClassifier(made, names, resolution or RESOLUTIONS[network], threshold, RESIZES[network])
