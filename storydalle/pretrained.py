"""What models that draw stories share: how they are opened, saved and published, and what a drawn story is."""

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from huggingface_hub import ModelHubMixin, snapshot_download
from jaxtyping import Float
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

ZOO = Path(__file__).parent / "zoo"
CONFIG_NAME, WEIGHTS_NAME, CARD_NAME, CAPTIONS_FOLDER = "config.json", "model.safetensors", "card.json", "captions"

Reranker = Callable[[list[Image.Image], str], Sequence[float]]
Model = TypeVar("Model", bound="PretrainedModel")


class Drawn(NamedTuple):
    """A drawn story: the best candidate of every frame, all candidates, their scores, remarks for the user."""

    frames: list[Image.Image]
    candidates: list[list[Image.Image]]
    scores: Float[Tensor, "f k"]  # higher is better: what the model itself says of each candidate, or the reranker
    notes: list[str]


class PretrainedModel(nn.Module, ModelHubMixin):
    """A folder of config, weights, card and caption tokenizer; a model of the zoo, of this disk or of the hub.

    A subclass says what is in its folder: ``open_folder`` and ``save_folder``.
    """

    card: dict[str, Any]

    @classmethod
    def from_pretrained(cls: type[Model], name_or_folder: str | Path, **kwargs: Any) -> Model:  # type: ignore[override]
        """Open a model by its name in the zoo, a folder, or a hub id; no code of the file is executed.

        Raises ValueError where there is no such model, or where its files are damaged or of another kind.
        """
        return super().from_pretrained(str(find_model(name_or_folder)), **kwargs)

    @classmethod
    def _from_pretrained(cls: type[Model], *, model_id: str, **kwargs: Any) -> Model:
        folder = Path(model_id)
        if not folder.is_dir():
            revision, cache, token = (kwargs.get(name) for name in ("revision", "cache_dir", "token"))
            folder = Path(snapshot_download(model_id, revision=revision, cache_dir=cache, token=token))
        return cls.open_folder(folder)

    @classmethod
    @abstractmethod
    def open_folder(cls: type[Model], folder: Path) -> Model:
        """The model of a folder, ready to draw; ValueError as for ``from_pretrained``."""

    @abstractmethod
    def save_folder(self, folder: str | Path) -> None:
        """Write what ``open_folder`` reads, weights in half precision."""

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save_folder(save_directory)

    def write_description(self, folder: Path, config: dict[str, Any]) -> None:
        """Write config and card; the folder is made."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")
        if self.card:
            (folder / CARD_NAME).write_text(json.dumps(self.card, indent=2) + "\n")

    def load_files(self, *parts: tuple[Path, str]) -> None:
        """Take the weights of all files together, in single precision: of each those whose names have its prefix.

        Raises ValueError where a file is damaged, or where a weight is missing, unknown or of another shape.
        """
        try:
            weights = {
                name: value.float() if value.is_floating_point() else value
                for whole, prefix in parts
                for file in files_of(whole)
                for name, value in load_file(file).items()
                if name.startswith(prefix)
            }
            self.load_state_dict(weights)
        except (OSError, SafetensorError, RuntimeError) as error:
            message = f"{parts[0][0]} does not hold the weights of its configuration: {one_line(error)}"
            raise ValueError(message) from error

    def write_files(
        self, folder: Path, config: dict[str, Any], weights: dict[str, dict[str, Tensor]], dtype: torch.dtype
    ) -> None:
        """Write config, card and, file by file, weights in a precision; the folder is made."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n")
        if self.card:
            (folder / CARD_NAME).write_text(json.dumps(self.card, indent=2) + "\n")
        for file, values in weights.items():
            kept = {name: value.detach().cpu() for name, value in values.items()}
            kept = {name: value.to(dtype if value.is_floating_point() else value.dtype) for name, value in kept.items()}
            save_file({name: value.contiguous() for name, value in kept.items()}, folder / file)


def files_of(path: Path) -> list[Path]:
    """A file of weights; or, where there is an index in its place, the files that hold its parts."""
    index = path.with_name(f"{path.name}.index.json")
    if path.is_file() or not index.is_file():
        return [path]
    try:
        return sorted({path.with_name(str(name)) for name in json.loads(index.read_text())["weight_map"].values()})
    except (ValueError, KeyError, AttributeError) as error:
        raise OSError(f"{index} is no index of weights") from error


def read_card(folder: Path) -> dict[str, Any]:
    return json.loads((folder / CARD_NAME).read_text()) if (folder / CARD_NAME).is_file() else {}


def find_model(name_or_folder: str | Path) -> str | Path:
    """The folder of a zoo name or of a path; a hub id (``owner/name``) is returned as it is."""
    if (ZOO / str(name_or_folder) / CONFIG_NAME).is_file():
        return ZOO / str(name_or_folder)
    folder = Path(name_or_folder)
    if folder.is_dir():
        return folder
    parts = str(name_or_folder).split("/")
    if len(parts) == 2 and all(parts) and not folder.is_absolute() and parts[0] not in (".", ".."):
        return str(name_or_folder)
    names = sorted(path.parent.name for path in ZOO.glob(f"*/{WEIGHTS_NAME}"))
    raise ValueError(f"model={name_or_folder} is neither in the zoo ({', '.join(names)}) nor a folder")


def one_line(error: Exception, limit: int = 300) -> str:
    """The message of an error without its line breaks, cut to a readable length."""
    return " ".join(str(error).split())[:limit]
