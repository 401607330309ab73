"""Translate names in configs of earlier runs: modules that have moved, classes that have other names."""

from typing import Any

PACKAGE = "storydalle."
NAMES = {  # of modules, and of classes that are called otherwise, too
    "commands.building": "training.building",
    "metrics.character_classifier": "metrics.networks.character_classifier",
    "metrics.clip": "metrics.networks.clip",
    "metrics.label_reader_training": "metrics.networks.label_reader_training",
    "stories.arldm": "stories.sets.arldm",
    "stories.clevr": "stories.sets.clevr",
    "stories.didemo": "stories.sets.didemo",
    "stories.flintstones": "stories.sets.flintstones",
    "stories.folder": "stories.sets.folder",
    "stories.longstory": "stories.sets.longstory",
    "stories.openstory": "stories.sets.openstory",
    "stories.pororo": "stories.sets.pororo",
    "stories.vist": "stories.sets.vist",
    "systems.character_classifier": "training.classifier_training",
    "systems.clip": "training.clip_training",
    "systems.image_tokenizer.ImageTokenizer": "training.tokenizer_training.ImageTokenizerTraining",
    "systems.sharding": "training.sharding",
    "systems.story_dalle": "training.story_dalle_training",
    "systems.story_gan": "training.story_gan_training",
    "systems.text_to_image.TextToImage": "training.text_to_image_training.TextToImageTraining",
}


def with_names_of_today(tree: Any) -> Any:
    """Return the config with today's name for every name of this package, in ``_target_`` and in other values."""
    if isinstance(tree, list):
        return [with_names_of_today(each) for each in tree]
    if isinstance(tree, dict):
        return {key: with_names_of_today(value) for key, value in tree.items()}
    if not isinstance(tree, str) or not tree.startswith(PACKAGE):
        return tree
    name = tree.removeprefix(PACKAGE)
    module, dot, last = name.rpartition(".")
    return PACKAGE + (NAMES.get(name) or f"{NAMES.get(module, module)}{dot}{last}")
