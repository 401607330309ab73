"""StoryGANc as one object: captions and a source picture in, frames out.

Following the description in the StoryDALL-E paper; no code of it was released.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from storydalle.configured import Configured, NetworkSettings
from storydalle.files.json_values import as_object
from storydalle.files.reading import read_object
from storydalle.files.weights import described_by
from storydalle.models.drawing import Candidates, Sampling, StoryRequest
from storydalle.models.pretrained import CAPTIONS_FOLDER, CARD_NAME, PretrainedModel, read_card
from storydalle.models.story_gan.caption_encoder import CaptionEncoder, open_caption_encoder
from storydalle.models.story_gan.discriminators import (
    ImageDiscriminator,
    ImageDiscriminatorSettings,
    StoryDiscriminator,
    StoryDiscriminatorSettings,
)
from storydalle.models.story_gan.generator import Generator, GeneratorSettings
from storydalle.models.story_gan.story_encoder import GANStoryEncoder, Noise, StoryEncoderSettings, StoryState
from storydalle.models.zoo import CONFIG_NAME, WEIGHTS_NAME
from storydalle.tokens.known_words import KnownWords

MODEL_TYPE = "storyganc"
DISCRIMINATORS_NAME = "discriminators.safetensors"
DISCRIMINATORS = ("image_discriminator.", "story_discriminator.")


class Imagined(NamedTuple):
    """Drawn frames in [-1, 1], what they were drawn from, and the mean entropy of the contextual attention."""

    frames: Float[Tensor, "b f c h w"]
    state: StoryState
    entropy: Float[Tensor, ""]


@dataclass(frozen=True)
class GANSampling(Sampling):
    """How frames are drawn: ``noise_scale`` is the standard deviation of the noise, 1 as in training."""

    noise_scale: float | int = 1.0

    def __post_init__(self) -> None:
        if not self.noise_scale >= 0:
            raise ValueError(f"noise_scale={self.noise_scale}: use 0 (no noise) or more")


@dataclass(frozen=True)
class StoryGANSettings(NetworkSettings):
    """Settings of each network; sizes that must agree are given here once.

    ``has_story_discriminator=False`` leaves the story discriminator out.
    """

    num_characters: int = 0
    resolution: int = 64
    story_encoder: StoryEncoderSettings = field(default_factory=StoryEncoderSettings)
    generator: GeneratorSettings = field(default_factory=GeneratorSettings)
    image_discriminator: ImageDiscriminatorSettings = field(default_factory=ImageDiscriminatorSettings)
    story_discriminator: StoryDiscriminatorSettings = field(default_factory=StoryDiscriminatorSettings)
    has_story_discriminator: bool = True


class StoryGANc(Configured, PretrainedModel):
    """Caption encoder, story encoder, generator and the two discriminators."""

    settings: StoryGANSettings
    sampling_class = GANSampling
    needs_source = True
    lacks = "a GAN draws no codes, so it has no such setting"

    def __init__(
        self, caption_encoder: CaptionEncoder, *values: object, card: dict[str, object] | None = None, **named: object
    ) -> None:
        super().__init__()
        self.settings = settings = StoryGANSettings.of(*values, **named)
        self.card = card or {}
        self.num_characters, self.resolution = settings.num_characters, settings.resolution
        self.caption_encoder = caption_encoder
        self.story_encoder = GANStoryEncoder(caption_encoder.dim, **settings.story_encoder.to_config())
        resolution, condition_dim = settings.resolution, self.story_encoder.condition_dim
        self.generator = Generator(self.story_encoder.dim, resolution=resolution, **settings.generator.to_config())
        judge = settings.image_discriminator.to_config()
        self.image_discriminator = ImageDiscriminator(
            condition_dim, num_characters=settings.num_characters, resolution=resolution, **judge
        )
        self.story_discriminator = None
        if settings.has_story_discriminator:
            judge = settings.story_discriminator.to_config()
            self.story_discriminator = StoryDiscriminator(condition_dim, resolution=resolution, **judge)
        self._init_weights()

    def _init_weights(self) -> None:
        """N(0, 0.02) for all convolutions but the spectral ones, as in StoryGAN; the encoders have started themselves.

        What is copied from the source begins unmixed.
        """
        networks: list[nn.Module] = [self.generator, *self.discriminators().values()]
        for network in networks:
            for module in network.modules():
                if isinstance(module, nn.Conv2d | nn.Conv3d) and not is_parametrized(module):
                    nn.init.normal_(module.weight, std=0.02)
        if self.generator.attention is not None:
            nn.init.dirac_(self.generator.attention.out.weight)

    @property
    def device(self) -> torch.device:
        return self.generator.start.weight.device

    def discriminators(self) -> dict[str, ImageDiscriminator | StoryDiscriminator]:
        """Both of them by name, or the one that there is."""
        both = {"image": self.image_discriminator, "story": self.story_discriminator}
        return {name: each for name, each in both.items() if each is not None}

    def drawing_parameters(self) -> list[nn.Parameter]:
        """Parameters of the generator's optimizer: all that drawing needs, except frozen ones."""
        networks = (self.caption_encoder, self.story_encoder, self.generator)
        return [parameter for network in networks for parameter in network.parameters() if parameter.requires_grad]

    # ------------------------------------------------------------------------------------------------- drawing

    def imagine(
        self,
        captions: Float[Tensor, "b f d"],
        source: Float[Tensor, "b c h w"],
        noise: Noise,
        mask: Bool[Tensor, "b f"],
    ) -> Imagined:
        """Frames from captions' vectors, a source in [-1, 1] and noise; zeros beyond a story's end.

        Padding beyond a story's end changes nothing, in training too.
        """
        state = self.story_encoder(captions, mask, noise)
        frames, entropy = self.generator(state.frames, source, mask)  # b f c h w
        return Imagined(frames, state, entropy)

    def draw_candidates(self, request: StoryRequest) -> Candidates:
        """Candidates that differ in their noise; the image discriminator's logits are their scores."""
        assert not self.training, "call eval() before drawing"
        assert isinstance(request.sampling, GANSampling) and request.source is not None
        vectors = self.caption_encoder(request.captions)  # b f d, the same for all candidates
        mask = lengths_mask([len(story) for story in request.captions], vectors)
        stories = range(request.first, request.first + len(request.captions))
        parts = []
        for candidate in range(request.num_candidates):
            noise = self._keyed_noise(request.sampling, request.seed, stories, vectors.shape[1], candidate)
            parts.append(self.imagine(vectors, request.source, noise, mask).frames)
            if request.progress is not None:
                request.progress(candidate + 1, request.num_candidates)
        frames = torch.stack(parts, 2)  # b f k c h w
        return Candidates(frames, partial(self._scores, request.captions, frames))

    def caption_notes(self, captions: list[str]) -> list[str]:
        return self.caption_encoder.notes(captions) + super().caption_notes(captions)

    @torch.inference_mode()
    def story_logits(
        self,
        captions: Sequence[Sequence[str]],
        frames: Float[Tensor, "b f c h w"],
        mask: Bool[Tensor, "b f"] | None = None,
    ) -> Float[Tensor, " b"]:
        """Logits of the story discriminator for frames in [-1, 1] under captions; higher is more real."""
        assert self.story_discriminator is not None, "this model has no story discriminator"
        condition, own = self._condition(captions)
        mask = own if mask is None else mask
        features = self.story_discriminator.encode(frames.to(self.device), mask)
        return self.story_discriminator.judge(features, condition, mask)

    def _condition(self, captions: Sequence[Sequence[str]]) -> tuple[Float[Tensor, "b f d"], Bool[Tensor, "b f"]]:
        """The condition that each frame is judged under, and a mask of the frames that exist."""
        vectors = self.caption_encoder(captions)
        mask = lengths_mask([len(story) for story in captions], vectors)
        # The condition is made of sentences and the posterior's mean, which no noise reaches: any will do.
        noise = self._keyed_noise(GANSampling(), 0, range(len(captions)), vectors.shape[1], 0)
        return self.story_encoder(vectors, mask, noise).condition(), mask

    @torch.inference_mode()
    def _scores(self, captions: list[list[str]], frames: Float[Tensor, "b f k c h w"]) -> Float[Tensor, "b f k"]:
        """Logits of the image discriminator, each under its frame's caption."""
        num_candidates = frames.shape[2]
        condition, mask = self._condition([story for story in captions for _ in range(num_candidates)])  # (b k) f d
        # Candidates become stories, whose frames the discriminator judges one by one.
        features = self.image_discriminator.encode(rearrange(frames, "b f k c h w -> (b k) f c h w"), mask)
        logits = self.image_discriminator.judge(features, condition, mask)
        return rearrange(logits, "(b k) f -> b f k", k=num_candidates)

    def summary(self) -> dict[str, str]:
        """A summary for people: what is drawn, and how large the networks are."""
        drawing = sum(parameter.numel() for parameter in self.drawing_parameters())
        judging = sum(parameter.numel() for each in self.discriminators().values() for parameter in each.parameters())
        return {
            "draws": f"{self.resolution} x {self.resolution} pixels, each frame in one pass",
            "parameters": f"{drawing / 1e6:.1f} M draw, {judging / 1e6:.1f} M judge",
            "captions": f"read by the {self.caption_encoder.config['kind']} caption encoder",
            "follows": "the description of StoryGANc in the StoryDALL-E paper, of which no code was released",
        }

    def _keyed_noise(self, sampling: GANSampling, seed: int, stories: range, num_frames: int, candidate: int) -> Noise:
        """Normal draws of a counter-based generator keyed by their place: one of the story, and one of each frame."""

        def draws(story: int, place: int, dim: int) -> np.ndarray:
            entropy = np.random.SeedSequence([seed, story, candidate, place])
            return np.random.Generator(np.random.Philox(entropy)).standard_normal(dim, dtype=np.float32)

        of_stories = np.stack([draws(story, 0, self.story_encoder.content_dim) for story in stories])  # b c; place 0
        of_frames = np.stack(
            [[draws(story, 1 + i, self.story_encoder.noise_dim) for i in range(num_frames)] for story in stories]
        )
        return Noise(
            *(sampling.noise_scale * torch.from_numpy(part).to(self.device) for part in (of_stories, of_frames))
        )

    # ------------------------------------------------------------------------------------------------- files

    @classmethod
    def open_folder(cls, folder: Path) -> "StoryGANc":
        weights = folder / WEIGHTS_NAME, folder / DISCRIMINATORS_NAME
        with described_by(folder / CONFIG_NAME, "is no StoryGANc configuration", *weights):
            config = read_object(folder / CONFIG_NAME)
            if config.pop("model_type", None) != MODEL_TYPE:
                raise ValueError(f"its model_type is not {MODEL_TYPE}")
            captions = open_caption_encoder(as_object(config.pop("caption_encoder")), folder / CAPTIONS_FOLDER)
            story_gan = cls(captions, **config, card=read_card(folder))
            story_gan.words = KnownWords.load(folder)
        story_gan.load_files((folder / WEIGHTS_NAME, ""), (folder / DISCRIMINATORS_NAME, ""))
        with described_by(folder / CARD_NAME, "is no card of a StoryGANc"):
            story_gan.sampling()
        return story_gan.eval()

    def save_folder(self, folder: str | Path, dtype: torch.dtype = torch.float16) -> None:
        """Write config, weights (half precision; the discriminators in a separate file), caption encoder and card.

        Raises ValueError before anything is written, if a weight is not finite.
        """
        config = {"model_type": MODEL_TYPE, "caption_encoder": self.caption_encoder.config, **self.config}
        weights: dict[str, dict[str, Tensor]] = {WEIGHTS_NAME: {}, DISCRIMINATORS_NAME: {}}
        for name, value in self.state_dict().items():
            weights[DISCRIMINATORS_NAME if name.startswith(DISCRIMINATORS) else WEIGHTS_NAME][name] = value
        self.write_weights(Path(folder), weights, dtype)
        self.caption_encoder.save(Path(folder) / CAPTIONS_FOLDER)
        self.write_description(Path(folder), config)


def lengths_mask(lengths: Sequence[int], vectors: Float[Tensor, "b f d"]) -> Bool[Tensor, "b f"]:
    """True at the frames that exist."""
    return torch.arange(vectors.shape[1], device=vectors.device) < torch.tensor(lengths, device=vectors.device)[:, None]
