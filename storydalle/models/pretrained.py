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
from torch import Tensor, nn

from storydalle.files.paths import user_path
from storydalle.files.reading import read_object
from storydalle.files.weights import Planned, check_finite, stored_floats, write_model
from storydalle.files.whole import write_text
from storydalle.models.cards import model_card
from storydalle.tokens.known_words import WORDS_NAME, KnownWords

ZOO = Path(__file__).parents[1] / "zoo"
CONFIG_NAME, WEIGHTS_NAME, CARD_NAME, CAPTIONS_FOLDER = "config.json", "model.safetensors", "card.json", "captions"
README_NAME = "README.md"

# What is read of a card: of which kind, and type.
CARD_FORMS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("sampling", "data", "converted", "derived_from"), ("object", dict)),
    **dict.fromkeys(("experiment", "license"), ("text", str)),
    **{"tables": ("list", list), "story_window": ("whole number", int)},
    "reconstruction_error_p99": ("number", (int, float)),
}

MAX_FILE_BYTES = 4 << 30  # of one file of weights

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
    words: KnownWords | None = None  # those read in training, where they are known: a converted model has read others

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls: type[Model],
        name_or_folder: str | Path,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        token: str | bool | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Model:
        """Open a model by its name in the zoo, a folder, or a hub id; no code of the file is executed.

        The settings are the hub's, for a model that is downloaded. Raises ValueError where there is no such model, or
        where its files are damaged or of another kind.
        """
        return super().from_pretrained(
            str(find_model(name_or_folder)),
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            force_download=force_download,
            local_files_only=local_files_only,
        )

    @classmethod
    def _from_pretrained(cls: type[Model], *, model_id: str, **more: Any) -> Model:
        folder = Path(model_id)
        if not folder.is_dir():  # more holds what the folder's config says, too
            of_hub = ("revision", "cache_dir", "token", "force_download", "local_files_only")
            folder = Path(snapshot_download(model_id, **{name: more[name] for name in of_hub}))
        return cls.open_folder(folder)

    @classmethod
    @abstractmethod
    def open_folder(cls: type[Model], folder: Path) -> Model:
        """The model of a folder, ready to draw; ValueError as for ``from_pretrained``."""

    @abstractmethod
    def save_folder(self, folder: str | Path) -> None:
        """Write what ``open_folder`` reads, weights in half precision."""

    def save_pretrained(self, save_directory: str | Path, *, push_to_hub: bool = False, **kwargs: Any) -> str | None:
        """Write the model's folder, and with ``push_to_hub`` publish it; a refused model leaves the folder as it was.

        Raises ValueError, naming it, where a weight is not finite.
        """
        self.save_folder(save_directory)  # before the hub's own, which begins by removing the configuration
        return super().save_pretrained(save_directory, push_to_hub=True, **kwargs) if push_to_hub else None

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save_folder(save_directory)

    def load_files(self, *parts: tuple[Path, str]) -> None:
        """Take the weights of all files together, in single precision: of each those whose names have its prefix.

        They replace what the networks were built with, which may be nothing: on torch's meta device a network takes no
        memory until now, and then that of its weights. Raises ValueError where a file is damaged, or where a weight is
        missing, unknown, of another shape or not finite.
        """
        try:
            weights = {name: value for whole, prefix in parts for name, value in stored_floats(whole, prefix)}
            self.load_state_dict(tied_as(self, weights), assign=True)
        except (OSError, SafetensorError, RuntimeError) as error:
            message = f"{parts[0][0]} does not hold the weights of its configuration: {one_line(error)}"
            raise ValueError(message) from error

    def write_description(self, folder: Path, config: dict[str, Any]) -> None:
        """Write config, card, known words and README, all but the last in place of older ones; the folder is made."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / CONFIG_NAME, json.dumps(config, indent=2) + "\n")
        if self.card:
            write_text(folder / CARD_NAME, json.dumps(self.card, indent=2) + "\n")
        (folder / WORDS_NAME).unlink(missing_ok=True)
        if self.words is not None:
            self.words.save(folder)
        if not (folder / README_NAME).exists():
            text = model_card(folder.absolute().name, type(self).__name__, self.summary(), self.card)
            write_text(folder / README_NAME, text)

    def write_weights(
        self, folder: Path, files: dict[str, dict[str, Tensor]], dtype: torch.dtype, exact: str | None = None
    ) -> None:
        """Write files of weights by name in a precision, but for weights that begin with ``exact``, which keep theirs.

        Weights of more than ``MAX_FILE_BYTES`` go into several files with an index. Raises ValueError, naming it, where
        a weight is not finite in its precision; nothing is written then.
        """
        weights = {name: value for values in files.values() for name, value in values.items()}

        def kept(name: str) -> torch.dtype:
            is_kept = not weights[name].is_floating_point() or (exact is not None and name.startswith(exact))
            return weights[name].dtype if is_kept else dtype

        def read(name: str) -> Tensor:
            return weights[name].detach().cpu().to(kept(name))

        check_finite(weights.items(), f"{folder} is not written", kept)
        folder.mkdir(parents=True, exist_ok=True)
        for file, values in files.items():
            planned = [Planned(name, kept(name), tuple(value.shape)) for name, value in values.items()]
            write_model(folder, planned, read, file, MAX_FILE_BYTES)

    def word_notes(self, captions: Sequence[str]) -> list[str]:
        """A line for each caption with words that the model never read in training."""
        return [] if self.words is None else self.words.notes(captions)

    def summary(self) -> dict[str, str]:
        """For people: what is drawn, and by how large a model."""
        return {"parameters": f"{sum(parameter.numel() for parameter in self.parameters()) / 1e6:.1f} M"}


def tied_as(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, with one parameter for names that stand for one in the model."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in weights:
            names.setdefault(parameter, []).append(name)
    shared: dict[str, Tensor] = {}
    for parameter, tied in names.items():
        if len(tied) > 1:
            shared |= dict.fromkeys(tied, nn.Parameter(weights[tied[0]], requires_grad=parameter.requires_grad))
    return weights | shared


def read_card(folder: Path) -> dict[str, Any]:
    """What a model's folder says of it; ValueError, naming the file, where it is none of what a model reads there."""
    path = folder / CARD_NAME
    card = read_object(path) if path.is_file() else {}
    for key, (kind, form) in CARD_FORMS.items():
        if card.get(key) is not None and not isinstance(card[key], form):
            raise ValueError(f"{path} is no card: {key} is no {kind}")
    if not all(isinstance(table, str) for table in card.get("tables") or ()):
        raise ValueError(f"{path} is no card: tables is no list of texts")
    if (card.get("story_window") or 1) < 1:
        raise ValueError(f"{path} is no card: story_window={card['story_window']} is below 1")
    return card


def find_model(name_or_folder: str | Path) -> str | Path:
    """The folder of a zoo name or of a path; a hub id (``owner/name``) is returned as it is."""
    if (ZOO / str(name_or_folder) / CONFIG_NAME).is_file():
        return ZOO / str(name_or_folder)
    folder = user_path(name_or_folder)
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
