"""Strips drawn while a model trains: what the numbers do not say, every few steps, as pictures."""

from pathlib import Path

import pytorch_lightning as pl
from PIL import Image

from storydalle import strips
from storydalle.stories.story import Stories, Story
from storydalle.story_dalle import StoryDALLE


class SampleStrips(pl.Callback):
    """Draws the first ``num_stories`` of ``stories`` every ``every`` steps.

    Written to ``folder`` and to every logger that takes pictures. Draws are keyed by a seed of their own, so training
    goes on as if they had not been made.
    """

    def __init__(self, stories: Stories, folder: Path, every: int = 500, num_stories: int = 2) -> None:
        self.stories, self.folder, self.every, self.num_stories = stories, folder, every, num_stories

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        model = getattr(pl_module, "story_dalle", None)
        if trainer.global_step % self.every or not isinstance(model, StoryDALLE) or not trainer.is_global_zero:
            return
        training = model.training
        model.eval()
        pictures = [self.draw(model, story) for story in self.stories.readable(self.num_stories)]
        model.train(training)
        self.folder.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pictures):
            picture.save(self.folder / f"step-{trainer.global_step:06d}-story-{i + 1}.png")
        for logger in trainer.loggers:
            if hasattr(logger, "log_image"):
                logger.log_image("strips", pictures, step=trainer.global_step)

    def draw(self, model: StoryDALLE, story: Story) -> Image.Image:
        source = Image.fromarray(story.source)
        return strips.strip_image(strips.Strip(story.captions, model.generate(story.captions, source).frames, source))
