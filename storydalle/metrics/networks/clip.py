"""Networks that embed pictures and captions in one space: transformers' CLIP, and a small network for ToonSV."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from storydalle.configured import Configured, NetworkSettings
from storydalle.files.json_values import as_list, as_number
from storydalle.files.paths import user_path
from storydalle.files.reading import read_object
from storydalle.files.records import sha256_of_file
from storydalle.files.registry import Registry
from storydalle.files.weights import described_by, stored_floats, write_tensors
from storydalle.files.whole import write_text
from storydalle.metrics.networks.label_reader import resized, strided_maps
from storydalle.models.layers import attend
from storydalle.models.story_gan.language_models import LOCAL
from storydalle.stories.story import Stories
from storydalle.tokens.caption_tokenizer import CaptionOptions, CaptionTokenizer

CONFIG, WEIGHTS, CAPTIONS = "config.json", "model.safetensors", "captions"
TINY = "tiny_clip"  # of config.json, where transformers writes "clip"
TRANSFORMERS_WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first is the one that is read
CHUNK = 256  # captions that a text tower reads at once
MAX_SCALE = 100.0  # of logits (Radford et al. 2021, section 2.5)

# Of the images that OpenAI's CLIP was trained on, in [0, 1]; every checkpoint of that architecture keeps to them.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@runtime_checkable
class ImageTextNetwork(Protocol):
    """A network that compares pictures with captions, as the metrics use it.

    Images are in [-1, 1], of any size; embeddings have length 1, so their product is the cosine. ``features`` are those
    of the picture before the projection, for Fréchet distances and for the similarity of two pictures; ``projected``
    they are its embeddings.
    """

    @property
    def name(self) -> str:
        """Its name in tables."""

    @property
    def sha256(self) -> str:
        """Of the weights."""

    def embed_images(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]: ...
    def embed_captions(self, captions: Sequence[str]) -> Float[Tensor, "n d"]: ...
    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e"]: ...
    def projected(self, features: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]: ...


def open_image_text_network(folder: Path | str) -> "TinyCLIP | TransformersCLIP":
    """The network in a folder, by its ``config.json``; ValueError where that is of another kind or missing."""
    try:
        config = read_object(user_path(folder) / CONFIG)
        kind = IMAGE_TEXT_NETWORKS.named(config.get("model_type"))
    except ValueError as error:
        raise ValueError(f"{folder} holds no image-text network of {CONFIG}: {error}") from error
    return kind.from_pretrained(folder)


IMAGE_TEXT_NETWORKS: "Registry[TinyCLIP | TransformersCLIP]" = Registry(
    "an image-text network",
    {
        TINY: "storydalle.metrics.networks.clip.TinyCLIP",
        "clip": "storydalle.metrics.networks.clip.TransformersCLIP",  # as transformers writes it
    },
    key="model_type",
)


# ------------------------------------------------------------------------------------------------ ours


class ImageTower(nn.Module):
    """A convolutional map of a picture, pooled by learned attention maps (for characters, setting, action ...)."""

    def __init__(self, dims: tuple[int, ...], num_glances: int, feature_dim: int) -> None:
        super().__init__()
        dim = dims[-1]
        self.map = strided_maps(dims)
        self.glances = nn.Conv2d(dim, num_glances, 1)
        self.features = nn.Linear(num_glances * dim, feature_dim)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e"]:
        seen = self.map(images)
        weights = rearrange(self.glances(seen), "n q h w -> n q (h w)").softmax(-1)
        glances = weights.to(seen.dtype) @ rearrange(seen, "n d h w -> n (h w) d")
        return self.features(rearrange(glances, "n q d -> n (q d)"))


class TextBlock(nn.Module):
    """Pre-norm self-attention and a feed-forward layer."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm_attention, self.norm_feedforward = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feedforward = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Float[Tensor, "n t d"], visible: Bool[Tensor, "n t"]) -> Float[Tensor, "n t d"]:
        split = "n t (three heads head_dim) -> three n heads t head_dim"
        heads = rearrange(self.query_key_value(self.norm_attention(x)), split, three=3, heads=self.num_heads)
        query, key, value = heads.unbind(0)
        attended = attend(query, key, value, visible[:, None, None])
        x = x + self.out(rearrange(attended, "n heads t head_dim -> n t (heads head_dim)"))
        return x + self.feedforward(self.norm_feedforward(x))


class TextTower(nn.Module):
    """A small transformer over a caption's tokens, then the mean over those that are not padding."""

    def __init__(self, vocab_size: int, text_length: int, pad_id: int, dim: int, depth: int, num_heads: int) -> None:
        super().__init__()
        self.pad_id = pad_id
        self.tokens, self.positions = nn.Embedding(vocab_size, dim), nn.Embedding(text_length, dim)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.blocks = nn.ModuleList(TextBlock(dim, num_heads) for _ in range(depth))

    def forward(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        exists = tokens != self.pad_id
        exists[:, 0] = True  # An empty caption is padding alone, and attention must see something.
        length = int(exists.sum(1).max())
        tokens, exists = tokens[:, :length], exists[:, :length]
        x = self.tokens(tokens) + self.positions.weight[:length]
        for block in self.blocks:
            x = block(x, exists)
        weights = exists[..., None].to(x.dtype)
        return (x * weights).sum(1) / weights.sum(1)


def projection(dim: int, embedding_dim: int) -> nn.Sequential:
    """The projection of a tower's features into the common space."""
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, embedding_dim, bias=False))


@dataclass(frozen=True)
class TinyCLIPSettings(NetworkSettings):
    """The defaults are those of the network for ToonSV, with 0.9 M parameters."""

    resolution: int = 64
    dims: tuple[int, ...] = (24, 48, 96, 128)
    num_glances: int = 6
    feature_dim: int = 192
    text_dim: int = 96
    text_depth: int = 2
    text_heads: int = 4
    embedding_dim: int = 128


class TinyCLIP(Configured, nn.Module):
    """A two-tower network for ToonSV (after Radford et al. 2021, with a convolutional image tower)."""

    name = "tiny-clip"
    settings: TinyCLIPSettings

    def __init__(self, caption_tokenizer: CaptionTokenizer, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = TinyCLIPSettings.of(*values, **named)
        self.caption_tokenizer, self.resolution = caption_tokenizer, settings.resolution
        self.image_tower = ImageTower(settings.dims, settings.num_glances, settings.feature_dim)
        self.image_projection = projection(settings.feature_dim, settings.embedding_dim)
        words = (caption_tokenizer.vocab_size, caption_tokenizer.text_length, caption_tokenizer.pad_id)
        self.text_tower = TextTower(*words, settings.text_dim, settings.text_depth, settings.text_heads)
        self.text_projection = projection(settings.text_dim, settings.embedding_dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # as in CLIP, section 2.5
        self._file_sha256: str | None = None

    def forward(self, images: Float[Tensor, "n c h w"], tokens: Int[Tensor, "m t"]) -> Float[Tensor, "n m"]:
        """Logits of images in [-1, 1] against captions: scaled cosines."""
        seen = self.image_projection(self.image_tower(resized(images, self.resolution)))
        read = self.text_projection(self.text_tower(tokens))
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        return scale * F.normalize(seen.float(), dim=-1) @ F.normalize(read.float(), dim=-1).T

    @torch.inference_mode()
    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e"]:
        assert not self.training, "call eval() before embedding"
        return self.image_tower(resized(images, self.resolution)).float()

    @torch.inference_mode()
    def projected(self, features: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        return F.normalize(self.image_projection(features).float(), dim=-1)

    def embed_images(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.projected(self.features(images))

    @torch.inference_mode()
    def embed_captions(self, captions: Sequence[str]) -> Float[Tensor, "n d"]:
        """Captions longer than ``text_length`` tokens lose their ends."""
        assert not self.training, "call eval() before embedding"
        tokens = self.caption_tokenizer.encode(captions).tokens.to(self.log_scale.device)
        parts = [self.text_projection(self.text_tower(part)) for part in tokens.split(CHUNK)]
        return F.normalize(torch.cat(parts).float(), dim=-1)

    @property
    def sha256(self) -> str:
        """The sha256 of the file that it was opened from, or of the parameters if there is none."""
        return self._file_sha256 or sha256_of_state(self.state_dict())

    def save_pretrained(self, folder: Path | str) -> None:
        """Write ``config.json``, the caption tokenizer and the weights in half precision."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            name: (value.half() if value.is_floating_point() else value).cpu().contiguous()
            for name, value in self.state_dict().items()
        }
        write_tensors(folder / WEIGHTS, state)
        write_text(folder / CONFIG, json.dumps({"model_type": TINY, **self.config}, indent=2) + "\n")
        self.caption_tokenizer.save(folder / CAPTIONS)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "TinyCLIP":
        """The network saved in a folder, ready to embed; ValueError where files are missing, cut or of another kind."""
        folder = Path(folder)
        tokenizer = CaptionTokenizer.load(folder / CAPTIONS)
        with described_by(folder, f"holds no {cls.name} that can be opened", folder / WEIGHTS):
            config = read_object(folder / CONFIG)
            config.pop("model_type", None)
            network = cls(tokenizer, **config)
            network.load_state_dict(dict(stored_floats(folder / WEIGHTS)))
        network._file_sha256 = sha256_of_file(folder / WEIGHTS)
        return network.eval()


def tiny_clip(stories: Stories, captions: CaptionOptions, num_stories: int = 4000, **sizes: object) -> TinyCLIP:
    """A fresh network, with a caption tokenizer trained on captions and descriptions of the first stories.

    ``captions`` are options of ``CaptionTokenizer.train``, ``sizes`` those of ``TinyCLIP``.
    """
    outlines = [stories.outline(i) for i in range(min(num_stories, len(stories)))]
    texts = [text for outline in outlines for text in (*outline.captions, *outline.descriptions) if text]
    return TinyCLIP(CaptionTokenizer.train(texts, **captions), **sizes)


# ------------------------------------------------------------------------------------------------ transformers'


class TransformersCLIP(nn.Module):
    """A CLIP of the transformers library (version 4 or 5) with this interface and its own preprocessing.

    A picture's shorter side is resized to the network's size (bicubic, antialiased) and its centre is cropped, as by
    CLIP's processor; captions longer than the text tower's positions (77 tokens) lose their ends. ``tokenize`` is
    called like a tokenizer of transformers.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenize: Callable[..., Mapping[str, Tensor]],
        name: str = "clip",
        mean: Sequence[float] = CLIP_MEAN,
        std: Sequence[float] = CLIP_STD,
    ) -> None:
        super().__init__()
        self.model: Any = model.eval()
        self.tokenize, self.name = tokenize, name
        config: Any = model.config
        self.resolution: int = config.vision_config.image_size
        self.text_length: int = config.text_config.max_position_embeddings
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self._file_sha256: str | None = None

    def pixels(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c r r"]:
        """The network's input for images in [-1, 1]."""
        images = images.to(self.mean).clamp(-1, 1)
        shorter = min(images.shape[-2:])
        if images.shape[-2:] != (self.resolution, self.resolution):
            size = [round(side * self.resolution / shorter) for side in images.shape[-2:]]
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(-1, 1)
        top, left = ((side - self.resolution) // 2 for side in images.shape[-2:])
        images = images[..., top : top + self.resolution, left : left + self.resolution]
        return ((images + 1) / 2 - self.mean) / self.std

    @torch.inference_mode()
    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e"]:
        return pooled(self.model.vision_model(pixel_values=self.pixels(images))).float()

    @torch.inference_mode()
    def projected(self, features: Float[Tensor, "n e"]) -> Float[Tensor, "n d"]:
        return F.normalize(self.model.visual_projection(features.to(self.mean)).float(), dim=-1)

    def embed_images(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        return self.projected(self.features(images))

    @torch.inference_mode()
    def embed_captions(self, captions: Sequence[str]) -> Float[Tensor, "n d"]:
        chunks = [list(captions[start : start + CHUNK]) for start in range(0, len(captions), CHUNK)]
        return torch.cat([self._embed_captions(chunk) for chunk in chunks])

    def _embed_captions(self, captions: list[str]) -> Float[Tensor, "n d"]:
        tokens = self.tokenize(
            captions, padding=True, truncation=True, max_length=self.text_length, return_tensors="pt"
        )
        ids, mask = (tokens[name].to(self.mean.device) for name in ("input_ids", "attention_mask"))
        return F.normalize(pooled(self.model.get_text_features(input_ids=ids, attention_mask=mask)).float(), dim=-1)

    @property
    def sha256(self) -> str:
        """The sha256 of the file of weights, or of the parameters if that is not a single file."""
        return self._file_sha256 or sha256_of_state(self.model.state_dict())

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "TransformersCLIP":
        """The network in a local folder that transformers can read; nothing is downloaded.

        Raises ``ValueError`` where the library, a file or a weight is missing, naming it.
        """
        folder = user_path(folder).resolve()
        transformers = _transformers()
        if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
            # Version 5 would make do with a vocabulary of three tokens.
            raise ValueError(f"{folder} holds neither tokenizer.json nor vocab.json: put CLIP's vocabulary there")
        try:
            model, found = transformers.CLIPModel.from_pretrained(folder, output_loading_info=True, **LOCAL)
            tokenize = transformers.AutoTokenizer.from_pretrained(folder, **LOCAL)
        except Exception as error:  # of another library, which raises what it likes on files of strangers
            raise ValueError(f"{folder} holds no CLIP that transformers can open: {error}") from error
        missing = sorted(key for key in found["missing_keys"] if not key.endswith("position_ids"))
        if missing:
            raise ValueError(f"the weights in {folder} lack {missing[0]} and {len(missing) - 1} more: not a whole CLIP")
        network = cls(model, tokenize, folder.name, **statistics_of(folder))
        files = [folder / name for name in TRANSFORMERS_WEIGHTS if (folder / name).is_file()]
        network._file_sha256 = sha256_of_file(files[0]) if files else None
        return network.eval()


def pooled(output: Any) -> Tensor:
    """The pooled vectors of what transformers returns: version 4 gives them bare, version 5 in an object."""
    return output if isinstance(output, Tensor) else output.pooler_output


def statistics_of(folder: Path) -> dict[str, Sequence[float]]:
    """Mean and deviation of pixels that a folder's ``preprocessor_config.json`` names; nothing where it has none."""
    file = folder / "preprocessor_config.json"
    said = read_object(file) if file.is_file() else {}
    names = (("mean", "image_mean"), ("std", "image_std"))
    return {name: [*map(as_number, as_list(said[key]))] for name, key in names if key in said}


def _transformers() -> Any:  # without types
    try:
        import transformers
    except ImportError as error:
        raise ValueError('a CLIP needs the package transformers: pip install "storydalle[text]"') from error
    return transformers


def sha256_of_state(state: dict[str, Tensor]) -> str:
    """The sha256 of the names, shapes and values of parameters, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
