"""StoryGANc's training step written plainly, as StoryGAN's successors do: the floor of bench=story_gan."""

from typing import cast

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer

from storydalle.models.story_gan.model import Imagined
from storydalle.models.story_gan.story_encoder import MAX_LOG_VARIANCE, GANStoryEncoder, Noise, StoryState
from storydalle.stories.story import StoryBatch
from storydalle.training.optimisation import step_generator
from storydalle.training.story_gan_training import StoryGANTraining


class PlainTraining(StoryGANTraining):
    """The same losses of the same networks, for full stories, with what the related code does in addition.

    A Python loop over the frames and, in Text2Gist, over the stories; frames drawn with their graph for the
    discriminators, and drawn again for the generator; gradients of the discriminators in the generator's step, which
    nobody uses.
    """

    def training_step(self, batch: StoryBatch, batch_idx: int) -> None:
        generator, *others = cast(list[LightningOptimizer], self.optimizers())
        imagined = self.imagine(batch, step_generator(self.seed, self.global_step))
        condition = imagined.state.condition().detach()
        for (name, discriminator), optimizer in zip(self.judges().items(), others, strict=True):
            loss = self.discriminator_loss(
                name, discriminator, batch.frames, imagined.frames.detach(), condition, batch
            )
            descend(self, optimizer.optimizer, loss)  # past Lightning's wrapper, which would count it as a step
        imagined = self.imagine(batch, step_generator(self.seed, self.global_step))
        descend(self, generator, self.generator_loss(imagined, imagined.frames, condition, batch))

    def imagine(self, batch: StoryBatch, draws: torch.Generator) -> Imagined:
        encoder, (num_stories, num_frames) = self.story_gan.story_encoder, batch.mask.shape
        noise = Noise(
            torch.randn(num_stories, encoder.content_dim, generator=draws),
            torch.randn(num_stories, num_frames, encoder.noise_dim, generator=draws),
        )
        state = looped(encoder, self.story_gan.caption_encoder(batch.captions), noise)
        frames, entropy = self.story_gan.generator(state.frames, batch.source, batch.mask)
        return Imagined(frames, state, entropy)


def descend(system: pl.LightningModule, optimizer: LightningOptimizer | Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    system.manual_backward(loss)
    optimizer.step()


def looped(encoder: GANStoryEncoder, captions: Float[Tensor, "b f d"], noise: Noise) -> StoryState:
    """The story encoder's states for stories of one length, frame by frame and story by story."""
    num_stories, num_frames = captions.shape[:2]
    sentences = encoder.sentence_norm(encoder.sentence(captions).flatten(0, 1)).unflatten(0, captions.shape[:2])
    content, log_variance = encoder.posterior(sentences.mean(1)).chunk(2, -1)
    log_variance = log_variance.clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
    context = content + (0.5 * log_variance).exp() * noise.story.to(content)
    state, frames = torch.zeros_like(sentences[:, 0]), []
    for t in range(num_frames):
        state = cell(encoder.sentence_rnn, torch.cat([sentences[:, t], noise.frames[:, t].to(sentences)], -1), state)
        context = cell(encoder.context_rnn, state, context)
        from_sentence = encoder.gist.filters_from == "sentence"
        of_filters, of_signal = (state, context) if from_sentence else (context, state)
        gists = []
        for story in range(num_stories):
            signal = encoder.gist.signal(of_signal[story]).tanh().view(1, -1, encoder.content_dim)
            filters = encoder.gist.filters(of_filters[story]).view(1, signal.shape[1], -1)
            gists.append(F.conv1d(signal.to(filters), filters, padding=filters.shape[2] // 2).flatten())
        frames.append(torch.cat([state, content, torch.stack(gists).to(state)], -1))
    return StoryState(torch.stack(frames, 1), sentences, content, log_variance)


def cell(rnn: nn.GRU, x: Float[Tensor, "b i"], hidden: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """One step of a recurrent network."""
    weights = [getattr(rnn, name).to(x) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
    return torch.gru_cell(x, hidden.to(x), *weights)
