"""Training of a small two-tower network: each frame finds its own text among the batch's, and each text its frame."""

from collections.abc import Callable

import pytorch_lightning as pl
import torch
from jaxtyping import Bool, Float, Int
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F

from storydalle.tokens.captioned_frames import CaptionedFrames
from storydalle.training.optimisation import build_adamw, clip_groups, step_generator, warmup_cosine


def equal_texts(tokens: Int[Tensor, "n t"]) -> Bool[Tensor, "n n"]:
    """Marks pairs of rows with the same text."""
    return (tokens[:, None] == tokens[None]).all(-1)


def contrastive_loss(logits: Float[Tensor, "n n"], equal: Bool[Tensor, "n n"]) -> Float[Tensor, ""]:
    """Symmetric cross-entropy of the diagonal (Radford et al. 2021, figure 3), in nats.

    -mean_i (ln softmax_j(l_ij)[i] + ln softmax_j(l_ji)[i]) / 2. A text that is twice in the batch is right for both
    frames: off the diagonal such pairs are left out.
    """
    twins = equal & ~torch.eye(len(equal), dtype=torch.bool, device=equal.device)  # n n: equal texts of other frames
    logits = logits.float().masked_fill(twins, float("-inf"))
    targets = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def retrieval_accuracy(logits: Float[Tensor, "n n"], equal: Bool[Tensor, "n n"]) -> Float[Tensor, ""]:
    """Share of frames (rows) whose likeliest text is their own, or says the same."""
    return equal.gather(1, logits.argmax(1, keepdim=True)).float().mean()


class ClipTraining(pl.LightningModule):
    """Trains ``network(images, tokens) -> logits``; every random draw is keyed by (seed, step).

    A step pairs each frame with its description, or with probability ``caption_share`` with its caption, so that both
    can be compared with pictures. ``augment(images, generator)`` roughens the images, for pictures that a model draws.
    """

    MONITOR = "val/loss_description"  # by which a validation judges the model

    def __init__(
        self,
        network: nn.Module,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.05,
        warmup_steps: int = 100,
        max_steps: int = 10_000,
        caption_share: float = 0.5,
        clip: float = 1.0,
        augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.warmup_steps, self.max_steps = warmup_steps, max_steps
        self.caption_share, self.clip, self.augment, self.seed = caption_share, clip, augment, seed

    def training_step(self, batch: CaptionedFrames, batch_idx: int) -> Tensor:
        generator = step_generator(self.seed, self.global_step)
        chosen = torch.rand(len(batch.images), 1, generator=generator) < self.caption_share  # n 1, on the CPU
        tokens = torch.where(chosen.to(self.device), batch.captions, batch.descriptions)
        images = batch.images
        if self.augment is not None:
            images = self.augment(images.cpu(), generator).to(self.device)  # the generator is the CPU's
        logits, equal = self.network(images, tokens), equal_texts(tokens)
        loss = contrastive_loss(logits, equal)
        self.log_dict(
            {"train/loss": loss, "train/accuracy": retrieval_accuracy(logits, equal)}, prog_bar=True, sync_dist=True
        )
        return loss

    def validation_step(self, batch: CaptionedFrames, batch_idx: int) -> None:
        for name, tokens in (("description", batch.descriptions), ("caption", batch.captions)):
            logits, equal = self.network(batch.images, tokens), equal_texts(tokens)
            values = {
                f"val/loss_{name}": contrastive_loss(logits, equal),
                f"val/accuracy_{name}": retrieval_accuracy(logits, equal),
            }
            self.log_dict(values, batch_size=len(batch.images), sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.log_dict({f"train/grad_{name}": norm for name, norm in clip_groups(optimizer, self.clip).items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build_adamw({"base": self.network.parameters()}, {"base": self.learning_rate}, self.weight_decay)
        schedule = warmup_cosine(optimizer, self.warmup_steps, self.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
