"""Strips that are drawn every few steps while a model trains, to see its progress."""

from pathlib import Path

import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.strategies import ModelParallelStrategy

from storydalle.files.whole import save_picture
from storydalle.models.pretrained import PretrainedModel
from storydalle.reporting import strips
from storydalle.stories.images import to_images, to_tensor
from storydalle.stories.story import Stories, Story


class SampleStrips(pl.Callback):
    """Draws the first ``num_stories`` of ``stories`` with ``model`` every ``every`` steps.

    Strips are written to ``folder`` and to every logger that takes pictures. They use their own seed, so training is
    the same with or without them.
    """

    def __init__(
        self, model: PretrainedModel, stories: Stories, folder: Path, every: int = 500, num_stories: int = 2
    ) -> None:
        self.model, self.stories, self.folder = model, stories, folder
        self.every, self.num_stories = every, num_stories

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        ends_step = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if trainer.global_step % self.every or not ends_step or not trainer.is_global_zero:
            return
        if isinstance(trainer.strategy, ModelParallelStrategy):
            return  # no process has the whole model
        training = pl_module.training
        pl_module.eval()
        pictures = [self.draw(story) for story in self.stories.readable(self.num_stories)]
        pl_module.train(training)
        self.folder.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pictures):
            save_picture(picture, self.folder / f"step-{trainer.global_step:06d}-story-{i + 1}.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                for i, picture in enumerate(pictures):  # together they would have to be of one size
                    logger.log_image(f"strips/{i}", [picture], step=trainer.global_step)

    def draw(self, story: Story) -> Image.Image:
        """A strip of a story of the data; as in an evaluation, its captions may be empty."""
        drawn = self.model.draw_stories([story.captions], to_tensor(story.source[None]))
        strip = strips.Strip(story.captions, to_images(drawn[0, :, 0]), Image.fromarray(story.source))
        return strips.strip_image(strip)


def sample_strips(folder: Path, every: int, model: object, stories: Stories) -> list[SampleStrips]:
    """The callback for a model that draws stories; none for others."""
    return [SampleStrips(model, stories, folder / "strips", every)] if isinstance(model, PretrainedModel) else []
