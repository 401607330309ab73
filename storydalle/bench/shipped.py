"""The model that strips are drawn with and that trains, and its stories: the shipped one, or another of its kind."""

from pathlib import Path

from storydalle.evaluation.entries import open_story_dalle
from storydalle.mistakes import UserError, told_in_one_line
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.stories.story import Story
from storydalle.stories.toon import ToonSV

SHIPPED = "story_dalle"


def opened(folder: Path) -> StoryDALLE:
    """A model that the loop of the released program can draw with."""
    model = open_story_dalle(folder)
    if not isinstance(model.model.backbone, DALLE) or model.sentence_dim is not None:
        raise UserError(
            f"model={folder}: the loop of the released program draws with minDALL-E's transformer and a story encoder "
            "that reads captions; give such a model"
        )
    return model


def stories_for(model: StoryDALLE, split: str, number: int) -> list[Story]:
    with told_in_one_line("this model's stories cannot be drawn"):
        stories = ToonSV(split, number, resolution=model.resolution)
    return [stories[i] for i in range(number)]
