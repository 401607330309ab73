"""Folders of models: the files in them, the ones that ship, and the one that a name stands for."""

from pathlib import Path

import storydalle
from storydalle.files.paths import user_path
from storydalle.files.records import sha256_of_files
from storydalle.mistakes import UserError, nearest

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
EXPERIMENTS = {  # what trained each model of the zoo
    "story_dalle": "toon/story_dalle",
    "text_to_image": "toon/text_to_image",
    "storyganc": "toon/storyganc",
}
TOKENIZERS = {"toon/image_tokenizer": "story_dalle", "toon/image_decoder": "story_dalle"}  # whose tokenizer is theirs


def zoo_folder() -> Path:
    return Path(storydalle.__file__).parent / "zoo"


def zoo_names() -> list[str]:
    return sorted(path.parent.name for path in zoo_folder().glob(f"*/{CONFIG_NAME}"))


def stand_in(experiment: str) -> str | None:
    """The shipped model that an experiment made, or that contains what it made."""
    made = {made_by: name for name, made_by in EXPERIMENTS.items()} | TOKENIZERS
    return made.get(experiment)


def find(model: str) -> Path | str:
    """The folder of a name in the zoo, or of a path; an id of the hub (``owner/name``) is returned as it is."""
    if model in zoo_names():
        return zoo_folder() / model
    folder = user_path(model)
    if folder.is_dir():
        return folder
    if is_hub_id(model) and not folder.exists() and not folder.is_absolute():
        return model
    raise UserError(f"no model {model!r} in the zoo and no such folder; {nearest(model, zoo_names())}")


def is_hub_id(model: str) -> bool:
    """True for a name of the form OWNER/NAME."""
    owner, slash, name = model.partition("/")
    return bool(slash and name) and "/" not in name and owner not in ("", ".", "..", "~")


def weight_files(folder: Path) -> list[Path]:
    """A model's weights: one file, or the parts of a large one."""
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    return sorted(folder.glob(WEIGHTS_NAME.replace(".", "-*-of-*.")))


def weights_sha256(folder: Path) -> str:
    """The sha256 of the file of weights, or of all its parts one after the other."""
    return sha256_of_files(weight_files(folder))
