"""Put the paper's retrofit around the shipped text-to-image model, and train it with a Lightning trainer of your own.

python examples/train.py
"""

from pathlib import Path

import pytorch_lightning as pl

from storydalle import StoryDALLE
from storydalle.models.story_dalle.retrofit import retrofit
from storydalle.stories.toon import ToonSV
from storydalle.tokens.cache import StoryCodes
from storydalle.training.story_dalle_training import StoryDALLETraining


def train(out: Path = Path("trained"), num_stories: int = 2000, max_steps: int = 1000) -> None:
    """Write the trained model to ``out/model``, which opens with ``storydalle generate model=``."""
    base = StoryDALLE.from_pretrained("text_to_image")
    images, captions = base.image_tokenizer, base.caption_tokenizer
    model = StoryDALLE(images, captions, retrofit(base.model.backbone, num_story_tokens=4))

    train_stories = ToonSV("train", num_stories, resolution=model.resolution)
    val_stories = ToonSV("val", 16, resolution=model.resolution)
    data = StoryCodes(train_stories, val_stories, images, captions, folder=out / "cache", batch_size=4)
    # The story encoder learns alone first: trained jointly from the start, it learns nothing.
    system = StoryDALLETraining(model, max_steps=max_steps, story_warmup_steps=max_steps // 5)
    trainer = pl.Trainer(max_steps=max_steps, val_check_interval=100, logger=False, enable_checkpointing=False)
    trainer.fit(system, data)
    model.save_pretrained(out / "model")


if __name__ == "__main__":
    train()
