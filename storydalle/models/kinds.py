"""``model=``: a name in the zoo, a folder or a hub id; errors are one line."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import storydalle
from storydalle.files.paths import user_path
from storydalle.files.reading import read_object
from storydalle.files.records import sha256_of_files
from storydalle.files.registry import Registry
from storydalle.mistakes import UserError, nearest, told_in_one_line

if TYPE_CHECKING:
    from storydalle.models.pretrained import PretrainedModel
else:  # commands check what they are given before a model is opened, and torch imported with it
    PretrainedModel = Any

RERANKERS = ("likelihood", "clip")
CLIP = "clip"  # of the zoo

EXPERIMENTS = {  # what trained each model of the zoo
    "story_dalle": "toon/story_dalle",
    "text_to_image": "toon/text_to_image",
    "storyganc": "toon/storyganc",
}
TOKENIZERS = {"toon/image_tokenizer": "story_dalle", "toon/image_decoder": "story_dalle"}  # whose tokenizer is theirs

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def zoo_folder() -> Path:
    return Path(storydalle.__file__).parent / "zoo"


def zoo_names() -> list[str]:
    return sorted(path.parent.name for path in zoo_folder().glob(f"*/{CONFIG}"))


def stand_in(experiment: str) -> str | None:
    """The shipped model that an experiment made, or that contains what it made."""
    made = {made_by: name for name, made_by in EXPERIMENTS.items()} | TOKENIZERS
    return made.get(experiment)


def is_hub_id(model: str) -> bool:
    """True for a name of the form OWNER/NAME."""
    owner, slash, name = model.partition("/")
    return bool(slash and name) and "/" not in name and owner not in ("", ".", "..", "~")


def locate(model: str) -> Path:
    """The folder of a model; a model of the hub is downloaded first."""
    if model in zoo_names():
        return zoo_folder() / model
    folder = user_path(model)
    if folder.is_dir():
        missing = [] if (folder / CONFIG).is_file() else [CONFIG]
        missing += [] if weight_files(folder) else [WEIGHTS]
        if missing:
            raise UserError(
                f"model={model} holds no model: {' and '.join(missing)} missing; {nearest('', zoo_names())}"
            )
        return folder
    if folder.exists() or not is_hub_id(model):
        raise UserError(f"no model {model!r} in the zoo and no such folder; {nearest(model, zoo_names())}")
    return downloaded(model)


def downloaded(model: str) -> Path:
    """The folder of a hub model, from the local cache if it is there."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    unknown = f"no model {model!r}: it is not a folder, and the hub does not have it"
    with told_in_one_line(unknown, OSError, ValueError, HfHubHTTPError):
        return Path(huggingface_hub.snapshot_download(model))


def open_model(folder: Path) -> PretrainedModel:
    """The model in a folder; a truncated or foreign one is a user's mistake."""
    with told_in_one_line(f"cannot open model {folder}", ValueError, OSError):
        return model_class(folder).from_pretrained(folder)


def model_class(folder: Path) -> type[Any]:
    """The class of the model in a folder, by the model_type of its config.json."""
    try:
        config = read_object(folder / CONFIG)
    except ValueError:  # the model itself says what is wrong with the file
        config = {}
    try:
        return MODELS.split(config)[0]
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error


MODELS: Registry[Any] = Registry(
    "a model",
    {
        "story_dalle": "storydalle.models.story_dalle.model.StoryDALLE",
        "storyganc": "storydalle.models.story_gan.model.StoryGANc",
    },
    unnamed="story_dalle",  # its files name none
    key="model_type",
)


def weights_sha256(folder: Path) -> str:
    """The sha256 of the file of weights, or of all its parts one after the other."""
    return sha256_of_files(weight_files(folder))


def weight_files(folder: Path) -> list[Path]:
    """A model's weights: one file, or the parts of a large one."""
    if (folder / WEIGHTS).is_file():
        return [folder / WEIGHTS]
    return sorted(folder.glob(WEIGHTS.replace(".", "-*-of-*.")))
