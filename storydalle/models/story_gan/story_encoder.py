"""StoryGAN's story and context encoder (Li et al. 2019, sections 3.2 and 3.3): captions' vectors -> one vector a frame.

A draw from a Gaussian posterior of the whole story starts a recurrent network over its frames; Text2Gist then filters
each frame's state with filters made from its sentence.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn

from storydalle.configured import Configured, NetworkSettings
from storydalle.models.ranks import SharedBatchNorm1d

GIST_CHANNELS, GIST_WIDTH = 3, 21  # of the dynamic filters, as the related code has them
MAX_LOG_VARIANCE = 10.0
START_LOG_VARIANCE = -2.0  # of the posterior: at 0 the recurrent network would start from little but noise
FILTERS_FROM = ("sentence", "context")


class Noise(NamedTuple):
    """Standard normal draws: one vector a story, and one a frame."""

    story: Float[Tensor, "b d"]
    frames: Float[Tensor, "b f z"]


class StoryState(NamedTuple):
    """A story, frame by frame, as the generator and the discriminators read it."""

    frames: Float[Tensor, "b f d"]  # for the generator: recurrent state, story content, gist
    sentences: Float[Tensor, "b f s"]
    content: Float[Tensor, "b c"]  # the posterior's mean
    log_variance: Float[Tensor, "b c"]

    def condition(self) -> Float[Tensor, "b f d"]:
        """The condition that a discriminator judges a frame under: its sentence, and the story's content."""
        content = repeat(self.content, "b c -> b f c", f=self.sentences.shape[1])
        return torch.cat([self.sentences, content], -1)

    def divergence(self) -> Float[Tensor, ""]:
        """KL divergence of the posterior from a standard normal in nats, its mean over stories and dimensions.

        KL(N(m, s^2) || N(0, 1)) = (m^2 + s^2 - 1 - ln s^2) / 2  (Kingma and Welling 2014, appendix B)
        """
        mean, log_variance = self.content.float(), self.log_variance.float()
        return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()


@dataclass(frozen=True)
class StoryEncoderSettings(NetworkSettings):
    """``filters_from`` tells what Text2Gist's filters are made from: "sentence" as in the paper's equations, "context"
    as in the related code.
    """

    sentence_dim: int = 256
    content_dim: int = 124
    noise_dim: int = 100
    filters_from: str = "sentence"

    def __post_init__(self) -> None:
        if self.filters_from not in FILTERS_FROM:
            raise ValueError(f"filters_from={self.filters_from!r}: choose one of {', '.join(FILTERS_FROM)}")


class GANStoryEncoder(Configured, nn.Module):
    """Caption vectors and noise in, one state a frame out.

    A frame's state depends on all captions, and on the noise of the frames up to it.
    """

    settings: StoryEncoderSettings

    def __init__(self, caption_dim: int, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = StoryEncoderSettings.of(*values, **named)
        sentence_dim, content_dim, noise_dim = settings.sentence_dim, settings.content_dim, settings.noise_dim
        self.content_dim, self.noise_dim = content_dim, noise_dim
        self.condition_dim = sentence_dim + content_dim
        self.dim = sentence_dim + 2 * content_dim
        self.sentence = nn.Linear(caption_dim, sentence_dim)
        # At first caption vectors hardly differ; without a norm the difference between them would drown in the noise.
        self.sentence_norm = SharedBatchNorm1d(sentence_dim)
        self.posterior = nn.Linear(sentence_dim, 2 * content_dim)
        self.sentence_rnn = nn.GRU(sentence_dim + noise_dim, sentence_dim, batch_first=True)
        self.context_rnn = nn.GRU(sentence_dim, content_dim, batch_first=True)
        self.gist = Text2Gist(sentence_dim, content_dim, settings.filters_from)
        self._init_weights()

    def _init_weights(self) -> None:
        """As torch draws layers, with a narrow posterior: its standard deviation starts at e^-1."""
        nn.init.constant_(self.posterior.bias[self.content_dim :], START_LOG_VARIANCE)

    def forward(self, captions: Float[Tensor, "b f d"], mask: Bool[Tensor, "b f"], noise: Noise) -> StoryState:
        raw = self.sentence(captions)  # b f s
        normed = self.sentence_norm(raw[mask])  # n s: padding has no part in the batch's statistics
        sentences = torch.zeros_like(raw, dtype=normed.dtype).masked_scatter(mask[..., None], normed)
        content, log_variance = self.posterior(masked_mean(sentences, mask)).chunk(2, -1)
        log_variance = log_variance.clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        # A draw of the posterior starts the network: m + s e, whose gradient reaches m and s.
        start = content + (0.5 * log_variance).exp() * noise.story.to(content)
        states, _ = self.sentence_rnn(torch.cat([sentences, noise.frames.to(sentences)], -1))  # b f s
        contexts, _ = self.context_rnn(states, start[None].to(states))  # b f c
        gists = self.gist(states, contexts)
        # The posterior's mean and not its draw, whose noise would outweigh the words until training has made it small.
        frames = torch.cat([states, repeat(content, "b c -> b f c", f=states.shape[1]), gists], -1)
        return StoryState(frames, sentences, content, log_variance)


class Text2Gist(nn.Module):
    """A frame's gist: one vector, convolved in one dimension with filters made from another (Li et al. 2019).

    All frames of a batch are computed as one grouped convolution, one group a frame.
    """

    def __init__(self, sentence_dim: int, content_dim: int, filters_from: str = "sentence") -> None:
        super().__init__()
        self.filters_from = filters_from
        dims = {"sentence": (sentence_dim, content_dim), "context": (content_dim, sentence_dim)}
        filter_dim, signal_dim = dims[filters_from]
        self.filters = nn.Linear(filter_dim, GIST_CHANNELS * GIST_WIDTH)
        self.signal = nn.Linear(signal_dim, GIST_CHANNELS * content_dim)

    def forward(self, sentences: Float[Tensor, "b f s"], contexts: Float[Tensor, "b f c"]) -> Float[Tensor, "b f c"]:
        of_filters, of_signal = (sentences, contexts) if self.filters_from == "sentence" else (contexts, sentences)
        filters = rearrange(self.filters(of_filters), "b f (k w) -> (b f) k w", k=GIST_CHANNELS)
        signal = rearrange(self.signal(of_signal).tanh(), "b f (k c) -> 1 (b f k) c", k=GIST_CHANNELS)
        gists = F.conv1d(signal, filters.to(signal), padding=GIST_WIDTH // 2, groups=len(filters))
        return rearrange(gists, "1 (b f) c -> b f c", b=len(contexts))


def masked_mean(x: Float[Tensor, "b f d"], mask: Bool[Tensor, "b f"]) -> Float[Tensor, "b d"]:
    """Mean over the frames that exist."""
    weights = mask[..., None].to(x)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)
