"""Training of a character classifier: one sigmoid a character; the weights with the best frame accuracy are kept."""

from typing import Protocol, cast

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, SumMetric

from storydalle.stories.character_labels import f1_terms
from storydalle.stories.labelled_frames import LabelledPictures
from storydalle.training.optimisation import warmup_cosine


def presence_loss(logits: Float[Tensor, "n k"], characters: Int[Tensor, "n k"]) -> Float[Tensor, ""]:
    """Mean binary cross-entropy over frames and characters, in nats."""
    return F.binary_cross_entropy_with_logits(logits.float(), characters.float())


class Reader(Protocol):
    """A classifier as its training needs it."""

    def present(self, logits: Tensor) -> Tensor: ...


class CharacterClassifierTraining(pl.LightningModule):
    """Trains ``classifier(images) -> (main, auxiliary)``, logits, as the field does (StoryViz, StoryGPT-V).

    Adam on all layers, at a constant rate if ``final_rate`` is 1; otherwise the rate falls to that share of itself in
    half a cosine. When the fit ends, the classifier has the weights of the best validation, by frame accuracy: the
    share of frames in which every character is read correctly. Without a validation it keeps the last weights.
    """

    MONITOR = "val/loss"  # by which a validation judges the model

    def __init__(
        self,
        classifier: nn.Module,
        learning_rate: float = 1e-5,
        final_rate: float = 1.0,
        warmup_steps: int = 0,
        max_steps: int = 10_000,
        weight_decay: float = 0.0,
        auxiliary_weight: float = 0.4,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.learning_rate, self.final_rate, self.weight_decay = learning_rate, final_rate, weight_decay
        self.warmup_steps, self.max_steps = warmup_steps, max_steps
        self.auxiliary_weight = auxiliary_weight
        self.frame_accuracy, self.loss = MeanMetric(), MeanMetric()
        self.hits, self.claims = SumMetric(), SumMetric()
        self.best_accuracy = -1.0
        self.best_weights: dict[str, Tensor] | None = None

    def training_step(self, batch: LabelledPictures, batch_idx: int) -> Tensor:
        logits = self.classifier(batch.images)
        loss = presence_loss(logits.main, batch.characters)
        if logits.auxiliary is not None:  # Inception's second head, which only training uses
            loss = loss + self.auxiliary_weight * presence_loss(logits.auxiliary, batch.characters)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch: LabelledPictures, batch_idx: int) -> None:
        logits, true = self.classifier(batch.images).main, batch.characters
        read = cast(Reader, self.classifier).present(logits)
        self.frame_accuracy.update((read == true).all(-1).float())  # n: every character of a frame right
        hits, claims = f1_terms((read & true).sum(), read.sum(), true.sum())
        self.hits.update(hits)
        self.claims.update(claims)
        self.loss.update(presence_loss(logits, true), weight=len(true))

    def on_validation_epoch_end(self) -> None:
        accuracy = self.frame_accuracy.compute().item()
        if accuracy > self.best_accuracy and not self.trainer.sanity_checking:
            self.best_accuracy = accuracy
            # On the CPU: a second copy would take the device's memory.
            self.best_weights = {n: value.detach().cpu().clone() for n, value in self.classifier.state_dict().items()}
        values = {
            "val/frame_accuracy": accuracy,
            "val/best_frame_accuracy": self.best_accuracy,
            "val/character_micro_f1": (self.hits.compute() / self.claims.compute()).item(),
            "val/loss": self.loss.compute().item(),
        }
        self.log_dict(values, prog_bar=True, sync_dist=True)
        for metric in (self.frame_accuracy, self.loss, self.hits, self.claims):
            metric.reset()

    def on_fit_end(self) -> None:
        if self.best_weights is not None:
            self.classifier.load_state_dict(self.best_weights)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        checkpoint["best"] = {"accuracy": self.best_accuracy, "weights": self.best_weights}

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        best = checkpoint["best"]
        assert isinstance(best, dict)
        self.best_accuracy, self.best_weights = best["accuracy"], best["weights"]

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(
            self.classifier.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay, fused=True
        )
        schedule = warmup_cosine(optimizer, self.warmup_steps, self.max_steps, floor=self.final_rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
