"""Training of a discrete VAE, or of a VQGAN with Gumbel codes, by relaxed codes (Ramesh et al. 2021, section 2.1)."""

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from storydalle.models import ranks
from storydalle.stories.story import StoryBatch
from storydalle.tokens.dvae import DVAE
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.relaxation import (
    gumbel,
    kl_to_uniform,
    logit_laplace_nats,
    one_hot_codes,
    relaxed_samples,
    squared_errors,
    straight_through,
)
from storydalle.tokens.vqgan import VQGAN
from storydalle.training.codebook_use import CodebookUse
from storydalle.training.optimisation import build_adamw, clip_groups, step_generator, warmup_cosine
from storydalle.training.tokenizer_training import pictures_of

COLLAPSED = 0.05  # of the codes
RELAXATIONS = ("gumbel", "straight_through")
LIKELIHOODS = ("logit_laplace", "mse")
# The share of the way from the first value to the last one, by the share t of the steps.
SHAPES: dict[str, Callable[[float], float]] = {
    "half_cosine": lambda t: 0.5 * (1.0 - math.cos(math.pi * t)),  # the paper's
    "quarter_cosine": lambda t: 1.0 - math.cos(0.5 * math.pi * t),  # of widely copied code
    "linear": lambda t: t,
}


class Schedule(NamedTuple):
    """A value that goes from ``start`` to ``end`` in ``steps`` optimizer steps, and stays there.

    start + (end - start) shape(min(1, s / steps)) at step s: of the step alone, so that nothing adds up.
    """

    name: str
    start: float | int
    end: float | int
    steps: int
    shape: str

    def at(self, step: int) -> float:
        share = min(1.0, step / self.steps) if self.steps else 1.0
        return self.start + (self.end - self.start) * SHAPES[self.shape](share)

    def check(self, max_steps: int) -> None:
        """Raise ValueError for a schedule that the training does not complete."""
        if self.shape not in SHAPES:
            raise ValueError(f"schedule={self.shape} is unknown; choose one of {', '.join(SHAPES)}")
        if not 0 <= self.steps <= max_steps:
            raise ValueError(
                f"{self.name}_steps={self.steps} does not fit a training of max_steps={max_steps}, at whose end "
                f"{self.name} would be {self.at(max_steps):.3g} and not {self.end:.3g}: give fewer {self.name}_steps, "
                "or more max_steps"
            )


def check_relaxed(image_tokenizer: ImageTokenizer, relaxation: str, likelihood: str) -> None:
    """Raise ValueError for an image tokenizer that this recipe cannot train, or for an unknown name."""
    kind, quantizer = image_tokenizer.kind, image_tokenizer.config.get("quantizer")
    if kind != DVAE.kind and (kind, quantizer) != (VQGAN.kind, "gumbel"):
        raise ValueError(
            f"an image tokenizer of kind {kind} (quantizer={quantizer}) cannot be trained here: only a dvae, or a "
            "vqgan with quantizer=gumbel, can; one with quantizer=nearest trains by experiment=toon/image_tokenizer"
        )
    for name, value, known in (("relaxation", relaxation, RELAXATIONS), ("likelihood", likelihood, LIKELIHOODS)):
        if value not in known:
            raise ValueError(f"{name}={value} is unknown; choose one of {', '.join(known)}")
    if likelihood == "logit_laplace" and kind != DVAE.kind:
        raise ValueError(f"likelihood=logit_laplace needs the six maps of a dvae, not a {kind}: give likelihood=mse")
    if likelihood == "logit_laplace" and not image_tokenizer.config["margin"]:
        raise ValueError("margin=0 leaves black and white without a logit: give margin=0.1, or likelihood=mse")


class DVAETraining(CodebookUse):
    """Trains ``image_tokenizer``, a dVAE or a VQGAN with Gumbel codes; random draws are keyed by (seed, step).

    loss = mean over sub-pixels of -ln p(x | codes) + beta / (3 f^2) mean over places of KL(q || uniform)

    with codes in shares at temperature tau (``relaxed_samples``), and f x f pixels a code. At beta = 1 that is the
    negative evidence lower bound in nats a sub-pixel, logged as ``bound``. **A negative bound or loss is no mistake**:
    a density may be above 1. tau goes from 1 to ``tau_end``, beta from 0 to ``beta``, by ``schedule``, in ``tau_steps``
    (by default three quarters of ``max_steps``; in the paper 150,000 of 3,000,000) and ``beta_steps`` (a tenth; 5,000).

    ``relaxation=straight_through`` and ``likelihood=mse`` are those of DALLE-pytorch, for comparison; the squared error
    of colours from 0 to 1 then takes the place of the nats, and there is no bound.

    A validation compares whole codes, with which the tokenizer is used, with codes in shares. Where they differ, tau is
    not yet low enough. It says if less than a twentieth of the codes is used.
    """

    MONITOR = "val/reconstruction_error"  # by which a validation judges the model

    def __init__(
        self,
        image_tokenizer: DVAE | VQGAN,
        learning_rate: float = 1e-4,
        warmup_steps: int = 100,
        max_steps: int = 10_000,
        weight_decay: float = 1e-4,
        gradient_clip: float | int | None = 1.0,
        tau_end: float | int = 1.0 / 16.0,
        tau_steps: int | None = None,
        beta: float | int = 6.6,
        beta_steps: int | None = None,
        schedule: str = "half_cosine",
        relaxation: str = "gumbel",
        likelihood: str = "logit_laplace",
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_relaxed(image_tokenizer, relaxation, likelihood)
        if not (tau_end > 0 and beta >= 0):
            raise ValueError(f"tau_end={tau_end} must be above 0, and beta={beta} not below")
        self.tau = Schedule("tau", 1.0, tau_end, max_steps * 3 // 4 if tau_steps is None else tau_steps, schedule)
        self.beta = Schedule("beta", 0.0, beta, max_steps // 10 if beta_steps is None else beta_steps, schedule)
        for each in (self.tau, self.beta):
            each.check(max_steps)
        self.image_tokenizer = image_tokenizer
        self.learning_rate, self.weight_decay, self.gradient_clip = learning_rate, weight_decay, gradient_clip
        self.warmup_steps, self.max_steps, self.seed = warmup_steps, max_steps, seed
        self.relaxation, self.likelihood = relaxation, likelihood
        self.kl_scale = 1.0 / (3 * (image_tokenizer.resolution // image_tokenizer.grid) ** 2)  # 1 / (3 f^2)
        self.start_counting(image_tokenizer.codebook_size)
        self.sums = torch.zeros(6)  # of one validation, see ``validation_step``

    def samples(
        self, logits: Float[Tensor, "b v grid grid"], uniform: Float[Tensor, "b v grid grid"]
    ) -> Float[Tensor, "b v grid grid"]:
        """Codes in shares at the temperature of this step, with the Gumbel noise of ``uniform`` numbers."""
        soft = relaxed_samples(logits.float(), gumbel(uniform), self.tau.at(self.global_step))
        return straight_through(soft) if self.relaxation == "straight_through" else soft

    def errors(self, maps: Float[Tensor, "b m h w"], images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        """Nats or squared errors of sub-pixels."""
        if self.likelihood == "mse":
            return squared_errors(self.image_tokenizer.pictures(maps), images)
        assert isinstance(self.image_tokenizer, DVAE)
        return logit_laplace_nats(maps, self.image_tokenizer.phi(images.float()))

    def training_step(self, batch: Tensor | StoryBatch, batch_idx: int) -> Tensor:
        images = pictures_of(batch).images
        logits = self.image_tokenizer.logits(images)
        draw = partial(torch.rand, device=logits.device)
        generator = step_generator(self.seed, self.global_step, logits.device)
        uniform = ranks.drawn(draw, len(logits), *logits.shape[1:], generator=generator)
        maps = self.image_tokenizer.relaxed(self.samples(logits, uniform))
        errors, divergences = self.errors(maps, images), kl_to_uniform(logits)
        error = ranks.ratio(errors.sum(), torch.tensor(errors.numel(), device=errors.device))
        kl = ranks.ratio(divergences.sum(), torch.tensor(divergences.numel(), device=errors.device))
        tau, beta = self.tau.at(self.global_step), self.beta.at(self.global_step)
        loss = error + beta * self.kl_scale * kl
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        named = {"train/reconstruction": error, "train/kl": kl}
        if self.likelihood == "logit_laplace":
            named["train/bound"] = error + self.kl_scale * kl
        self.log_dict(named, sync_dist=True)
        self.log_dict({"train/tau": tau, "train/beta": beta})
        codes = ranks.gathered(logits.argmax(dim=1).flatten())
        self.log_use(torch.bincount(codes, minlength=len(self.code_counts)) / len(codes))
        return loss

    def validation_step(self, batch: Tensor | StoryBatch, batch_idx: int) -> None:
        images = pictures_of(batch).images
        logits = self.image_tokenizer.logits(images)
        self.count(logits.argmax(dim=1))
        found = [torch.ones((), device=logits.device), kl_to_uniform(logits).mean()]
        generator = step_generator(self.seed + 1 + ranks.rank(), batch_idx, logits.device)  # ranks' numbers may differ
        uniform = torch.rand(logits.shape, generator=generator, device=logits.device)
        for samples in (one_hot_codes(logits), self.samples(logits, uniform)):
            maps = self.image_tokenizer.relaxed(samples)
            drawn = self.image_tokenizer.pictures(maps).clamp(-1.0, 1.0)
            found += [(drawn - images).abs().mean() / 2.0, self.errors(maps, images).mean()]
        self.sums += len(images) * torch.stack(found)

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self.sums = torch.zeros(6, device=self.device)

    def on_validation_epoch_end(self) -> None:
        """Log the means of all pictures, of whole codes and of codes in shares (``soft``), and how they differ."""
        super().on_validation_epoch_end()
        number, *sums = ranks.mean(self.sums)
        kl, hard, hard_errors, soft, soft_errors = (each / number for each in sums)
        self.log("val/reconstruction_error", hard, prog_bar=True, sync_dist=True)
        named = {"val/reconstruction_error_soft": soft, "val/hard_over_soft": hard / soft, "val/kl": kl}
        if self.likelihood == "logit_laplace":
            named["val/bound"] = hard_errors + self.kl_scale * kl
            named["val/bound_soft"] = soft_errors + self.kl_scale * kl
            named["val/bound_gap"] = hard_errors - soft_errors
        self.log_dict(named, sync_dist=True)
        self.tell_collapse()

    def tell_collapse(self) -> None:
        """Say it if hardly any code of those that the pictures of this validation could use was used."""
        counts = ranks.mean(self.code_counts)
        num_used, possible = int((counts > 0).sum()), min(len(counts), int(counts.sum() * ranks.num_ranks()))
        if num_used < COLLAPSED * possible:
            remedy = f"system.beta={2 * self.beta.end or 6.6:.3g} (now {self.beta.end:.3g}) spreads them"
            lower = "a lower system.learning_rate" + (", or relaxation=gumbel" if self.relaxation != "gumbel" else "")
            told = f"of {len(counts)} codes are used at step {self.global_step}"
            self.print(f"note: only {num_used} {told}, they have collapsed: {remedy}; so may {lower}")

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.log_dict({f"train/grad_{name}": norm for name, norm in clip_groups(optimizer, self.gradient_clip).items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups, rates = {"base": self.image_tokenizer.parameters()}, {"base": self.learning_rate}
        optimizer = build_adamw(groups, rates, self.weight_decay, betas=(0.9, 0.999))
        schedule = warmup_cosine(optimizer, self.warmup_steps, self.max_steps, floor=0.0125)  # 1e-4 to 1.25e-6
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
