"""``model=``: a name in the zoo, a folder or a hub id; errors are one line."""

from pathlib import Path
from typing import TYPE_CHECKING

from storydalle.files.reading import read_object
from storydalle.files.registry import Registry
from storydalle.mistakes import UserError, nearest, told_in_one_line
from storydalle.models import zoo

if TYPE_CHECKING:
    from storydalle.models.pretrained import PretrainedModel
else:  # commands check what they are given before a model is opened, and torch imported with it
    PretrainedModel = object

RERANKERS = ("likelihood", "clip")
CLIP = "clip"  # of the zoo


def locate(model: str) -> Path:
    """The folder of a model, with a model in it; one of the hub is downloaded."""
    folder = zoo.find(model)
    if isinstance(folder, str):
        return downloaded(folder)
    missing = [] if (folder / zoo.CONFIG_NAME).is_file() else [zoo.CONFIG_NAME]
    missing += [] if zoo.weight_files(folder) else [zoo.WEIGHTS_NAME]
    if missing:
        raise UserError(
            f"model={model} holds no model: {' and '.join(missing)} missing; {nearest('', zoo.zoo_names())}"
        )
    return folder


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


def model_class(folder: Path) -> type[PretrainedModel]:
    """The class of the model in a folder, by the model_type of its config.json."""
    try:
        config = read_object(folder / zoo.CONFIG_NAME)
    except ValueError:  # the model itself says what is wrong with the file
        config = {}
    try:
        return MODELS.split(config)[0]
    except ValueError as error:
        raise ValueError(f"{folder / zoo.CONFIG_NAME}: {error}") from error


MODELS: Registry[PretrainedModel] = Registry(
    "a model",
    {
        "story_dalle": "storydalle.models.story_dalle.model.StoryDALLE",
        "storyganc": "storydalle.models.story_gan.model.StoryGANc",
    },
    unnamed="story_dalle",  # its files name none
    key="model_type",
)
