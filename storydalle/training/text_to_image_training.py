"""Training of the pretrained DALL-E: single frames from full descriptions of them."""

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.tokens.encoded_stories import EncodedStories
from storydalle.training.optimisation import (
    FrameLosses,
    build_adamw,
    check_text_weight,
    clip_groups,
    frame_losses,
    warmup_cosine,
)


class TextToImageTraining(pl.LightningModule):
    """Trains the backbone of ``story_dalle`` on frames of stories with their full descriptions.

    Each step uses ``frames_per_story`` frames of each story, in turn.
    """

    MONITOR = "val/loss_image"  # by which a validation judges the model
    texts = "descriptions"  # the texts of a story that are tokenized

    def __init__(
        self,
        story_dalle: StoryDALLE,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        warmup_steps: int = 100,
        max_steps: int = 10_000,
        text_weight: float | int = 0.1,
        clip: float = 1.0,
        frames_per_story: int = 1,
    ) -> None:
        super().__init__()
        check_text_weight(story_dalle.model.backbone, text_weight)
        self.story_dalle = story_dalle
        self.story_dalle.image_tokenizer.requires_grad_(False)
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.warmup_steps, self.max_steps = warmup_steps, max_steps
        self.text_weight, self.clip, self.frames_per_story = text_weight, clip, frames_per_story

    def training_step(self, batch: EncodedStories, batch_idx: int) -> Tensor:
        tokens, codes = self._frames(batch, self.global_step)
        losses = self._losses(tokens, codes)
        self.log_dict(losses.named("train"), prog_bar=True, sync_dist=True)
        return losses.total(self.text_weight)

    def validation_step(self, batch: EncodedStories, batch_idx: int) -> None:
        losses = self._losses(*self._frames(batch, 0))
        self.log_dict(losses.named("val"), batch_size=len(batch.codes), sync_dist=True)

    def _frames(self, batch: EncodedStories, step: int) -> tuple[Tensor, Tensor]:
        """Descriptions and codes of some frames of each story, source included; which ones depends on the step."""
        if not batch.descriptions.shape[1]:
            raise ValueError("text-to-image training needs descriptions of the frames; this data set has none")
        codes = torch.cat([batch.source[:, None], batch.codes], 1)  # b g l; g = f + 1
        num_frames = 1 + batch.mask.sum(1, keepdim=True)  # b 1, without padding
        turns = step * self.frames_per_story + torch.arange(self.frames_per_story, device=num_frames.device)
        stories, chosen = torch.arange(len(codes), device=num_frames.device)[:, None], turns % num_frames
        return batch.descriptions[stories, chosen].flatten(0, 1), codes[stories, chosen].flatten(0, 1)  # (b k) t or l

    def _losses(self, tokens: Tensor, codes: Tensor) -> FrameLosses:
        backbone = self.story_dalle.model.backbone
        return frame_losses(backbone(tokens, codes), codes, backbone.pad_id)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.log_dict({f"train/grad_{name}": norm for name, norm in clip_groups(optimizer, self.clip).items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = {"base": self.story_dalle.model.backbone.parameters()}
        optimizer = build_adamw(groups, {"base": self.learning_rate}, self.weight_decay)
        schedule = warmup_cosine(optimizer, self.warmup_steps, self.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
