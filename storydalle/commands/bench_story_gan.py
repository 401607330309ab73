"""bench=story_gan: a training step of StoryGANc, compared with a plain implementation as in StoryGAN's successors."""

import statistics
import time
from typing import cast

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from storydalle.commands.train import quieten
from storydalle.evaluation.toon_table import markdown
from storydalle.mistakes import UserError
from storydalle.models import kinds
from storydalle.models.story_gan.model import Imagined, StoryGANc
from storydalle.models.story_gan.story_encoder import MAX_LOG_VARIANCE, GANStoryEncoder, Noise, StoryState
from storydalle.stories.data import batch_of
from storydalle.stories.story import StoryBatch
from storydalle.stories.toon import ToonSV
from storydalle.training.optimisation import step_generator
from storydalle.training.story_gan_training import StoryGANTraining

PLAIN, OURS = "plain loop", "ours"
PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}
STEPS = 3  # a round; the first is not counted


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


class Stopwatch(pl.Callback):
    """Seconds of each training step, its batch at hand."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.started = 0.0

    def on_train_batch_start(self, *args: object) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, *args: object) -> None:
        self.seconds.append(time.perf_counter() - self.started)


def bench_story_gan(model: str, batch_size: int, rounds: int) -> tuple[str, dict[str, object]]:
    """Steps of both, in both precisions, in turn."""
    quieten()
    story_gan = kinds.open_model(kinds.locate(model))
    if not isinstance(story_gan, StoryGANc):
        raise UserError(f"model={model} is a {type(story_gan).__name__}: bench=story_gan takes a StoryGANc")
    batch = batch_of(list(ToonSV("train", batch_size, resolution=story_gan.resolution)))
    if story_gan.num_characters != (known := batch.labels["characters"].shape[-1]):
        raise UserError(
            f"model={model} names {story_gan.num_characters} characters and ToonSV has {known}: "
            "bench=story_gan takes a model trained on ToonSV"
        )
    variants = {PLAIN: PlainTraining, OURS: StoryGANTraining}
    seconds: dict[str, list[float]] = {f"{name}, {precision}": [] for precision in PRECISIONS for name in variants}
    for _ in range(rounds):
        for precision, lightning_name in PRECISIONS.items():
            for name, variant in variants.items():
                seconds[f"{name}, {precision}"] += step_seconds(variant(story_gan), batch, lightning_name)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    floor = medians[f"{PLAIN}, float32"]
    lines = [[name, f"{1000 * value:.0f}", f"{floor / value:.2f}"] for name, value in medians.items()]
    ratios = {name: medians[f"{PLAIN}, {name}"] / medians[f"{OURS}, {name}"] for name in PRECISIONS}
    text = (
        f"A step of {batch_size} stories of {batch.mask.shape[1]} frames of {story_gan.resolution} pixels; "
        f"medians of {rounds} rounds of {STEPS - 1} steps\n\n"
        f"{markdown(['', 'ms a step', 'times as fast as the plain loop in float32'], lines)}\n\n"
        + ", ".join(f"in {name} ours is {ratio:.2f} times as fast as the plain loop" for name, ratio in ratios.items())
        + "."
    )
    return text, {"seconds_a_step": medians, "ratio_at_equal_precision": ratios}


def step_seconds(system: StoryGANTraining, batch: StoryBatch, precision: str) -> list[float]:
    """Seconds of the steps of a round but for the first."""
    watch = Stopwatch()
    trainer = pl.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(system.train(), DataLoader([batch] * STEPS, batch_size=None))  # type: ignore[arg-type]
    return watch.seconds[1:]
