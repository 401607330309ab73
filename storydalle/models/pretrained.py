"""The common interface of models that draw stories: open, save, publish, draw."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from storydalle.files.json_values import are_texts
from storydalle.files.reading import read_object
from storydalle.files.weights import Planned, check_finite, stored_floats, write_model
from storydalle.files.whole import write_text
from storydalle.models.drawing import (
    Candidates,
    Choice,
    Drawn,
    Judge,
    Progress,
    Reranker,
    Sampling,
    StoryRequest,
    crop_notes,
    ranked,
)
from storydalle.models.licences import part_of
from storydalle.models.zoo import CONFIG_NAME, find
from storydalle.stories.drawn_worlds import WORLDS, World
from storydalle.stories.handed_in import Captions, ManyCaptions, Source, handed_in, stories_of
from storydalle.stories.images import from_images, to_images
from storydalle.stories.story import Stories
from storydalle.stories.toonsv.vocabulary import meanings
from storydalle.tokens.known_words import NO_MEANINGS, WORDS_NAME, KnownWords
from storydalle.tokens.world_notes import WorldNotes

CARD_NAME, README_NAME, CAPTIONS_FOLDER = "card.json", "README.md", "captions"

# What is read of a card: of which kind, and type.
CARD_FORMS: dict[str, tuple[str, type | tuple[type, ...]]] = {
    **dict.fromkeys(("sampling", "data", "converted", "derived_from"), ("object", dict)),
    **dict.fromkeys(("experiment", "license"), ("text", str)),
    **{"tables": ("list", list), "story_window": ("whole number", int)},
    "reconstruction_error_p99": ("number", (int, float)),
}

MAX_FILE_BYTES = 4 << 30  # of one file of weights

Model = TypeVar("Model", bound="PretrainedModel")


class PretrainedModel(nn.Module, ABC):
    """A model that continues stories, opened from the zoo, a folder or the hub.

    Another kind of model (another decoder, a diffusion model) is a subclass. It draws in one method:

    ``draw_candidates(request)``: frames (b f k c h w) in [-1, 1] at ``resolution``, and a score for each. A candidate
    depends only on its story's captions and source, on the seed, and on its place (story, frame, candidate). What else
    is in the batch may change its rounding, nothing more, and the same request gives the same bytes. All random numbers
    are keyed by (seed, story, frame, candidate); torch's global generators are neither read nor changed.

    A subclass also needs ``open_folder`` and ``save_folder`` (a model that is saved and opened draws the same),
    ``device``, ``resolution``, which the constructor sets, and ``sampling_class``, whose fields are the entries allowed
    in ``card["sampling"]``. The rest has defaults: ``needs_source``, ``candidates_by``, ``lacks``, ``sentence_dim``,
    ``caption_notes``, ``request_notes``, ``measured``, ``ceilings``, ``summary``. ``kinds.MODELS`` names the class by
    the ``model_type`` of its ``config.json``. ``tests/conformance.py`` tests all of this.
    """

    resolution: int  # of a frame's side
    sampling_class: ClassVar[type[Sampling]]
    needs_source: ClassVar[bool] = False  # True: it cannot draw without a source
    candidates_by: ClassVar[str | None] = None  # what orders the candidates that it draws; None: nothing does
    lacks: ClassVar[str] = "this model has no such setting"  # the message for a setting that sampling_class lacks
    sentence_dim: int | None = None  # width of the sentence vectors it reads; None: it reads the captions themselves
    card: dict[str, object]
    words: KnownWords | None = None  # words of the training captions, if known: those of a converted model are not

    @classmethod
    def from_pretrained(
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

        The settings are the hub's, for a model that is downloaded. Raises ValueError if there is no such model, or if
        its files are damaged or of another kind.
        """
        folder = find(str(name_or_folder))
        if isinstance(folder, str):
            import huggingface_hub  # here, since models on disk need none of it

            folder = Path(
                huggingface_hub.snapshot_download(
                    folder,
                    revision=revision,
                    cache_dir=cache_dir,
                    token=token,
                    force_download=force_download,
                    local_files_only=local_files_only,
                )
            )
        return cls.open_folder(folder)

    @classmethod
    @abstractmethod
    def open_folder(cls: type[Model], folder: Path) -> Model:
        """The model of a folder, ready to draw; ValueError as for ``from_pretrained``."""

    @abstractmethod
    def save_folder(self, folder: str | Path) -> None:
        """Write what ``open_folder`` reads, weights in half precision."""

    def save_pretrained(
        self, save_directory: str | Path, *, push_to_hub: bool = False, repo_id: str | None = None, **settings: Any
    ) -> str | None:
        """Write the model's folder; if the model is refused, the folder stays as it was.

        With ``push_to_hub`` also publish it, by default under the folder's name, and return the address. Raises
        ValueError, naming the weight, if a weight is not finite.
        """
        folder = Path(save_directory)
        self.save_folder(folder)
        return self.push_to_hub(repo_id or folder.name, **settings) if push_to_hub else None

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Push model using huggingface_hub.",
        private: bool | None = None,
        token: str | None = None,
        branch: str | None = None,
        **settings: Any,
    ) -> str:
        """Publish the model on the hub, and return the address; other settings are those of its ``upload_folder``."""
        import huggingface_hub

        hub = huggingface_hub.HfApi(token=token)
        repo_id = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as temporary:
            folder = Path(temporary) / repo_id
            self.save_folder(folder)
            return hub.upload_folder(
                repo_id=repo_id, folder_path=folder, commit_message=commit_message, revision=branch, **settings
            )

    # ------------------------------------------------------------------------------------------------- drawing

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of its weights."""

    @abstractmethod
    def draw_candidates(self, request: StoryRequest) -> Candidates:
        """Draw every frame of the stories ``request.num_candidates`` times; the class docstring has the rules."""

    @torch.inference_mode()
    def generate(
        self,
        captions: Captions,
        source: Source = None,
        num_candidates: int = 1,
        seed: int = 0,
        temperature: float | int | None = None,
        top_k: int | None = None,
        top_p: float | int | None = None,
        guidance: float | int | None = None,
        reranker: Reranker | None = None,
        progress: Progress | None = None,
        sentences: Float[Tensor, "f e"] | None = None,
        *,
        sampling: Sampling | None = None,
        packing: str | None = None,
        announce: Callable[[str], None] | None = None,
        choose: Choice | None = None,
    ) -> Drawn:
        """Draw one frame a caption, continuing ``source`` (any size; its centre square is used).

        A single text is one caption; ``stories.handed_in.source_of`` lists the forms of a source. Without a source the
        first frame is drawn from its caption alone and becomes the source of the others, if the model can do that.
        ``sampling`` defaults to that of the model's card; settings given by name replace its fields. Candidates are
        ordered by the model's own score, or by ``reranker``; a model with memory remembers the best one, or the one
        that ``choose(frame, candidates)`` keeps: it is shown (1, k, h, w, 3) of 8 bits, the likeliest first.
        ``sentences`` are a sentence encoder's vectors of the captions, for a released story encoder; without them that
        encoder is not used, and a note says so. ``announce`` is told the memory that drawing needs, if the model knows
        it. Raises ValueError for captions, a source or settings that are missing, invalid, or not for this model.
        """
        captions, picture, said = handed_in(captions, source, num_candidates, seed)
        self._check_source(picture)
        given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance": guidance, "packing": packing}
        chosen = self.sampling(sampling, **given)
        pixels = None if picture is None else from_images([picture], self.resolution).to(self.device)
        vectors = self._sentence_vectors(sentences, len(captions))
        judge = None if reranker is None else Judge(reranker, captions)
        keep = choose or (None if judge is None else judge.choose)
        request = StoryRequest([captions], pixels, chosen, num_candidates, seed, 0, progress, vectors, announce, True)
        request = request._replace(choose=keep)
        notes = [*self.caption_notes(captions), *self.world_notes(request), *said, *crop_notes(picture)]
        drawn = self.draw_candidates(request)
        images = [to_images(row) for row in drawn.frames[0]]  # f k
        scores = drawn.score()[0].cpu() if judge is None else judge.scores_of(images)
        return ranked(images, scores, [*notes, *self.request_notes(request)])

    def _check_source(self, picture: object | None) -> None:
        if picture is None and self.needs_source:
            raise ValueError(f"{type(self).__name__} continues a picture and cannot draw without one: give a source")

    @torch.inference_mode()
    def draw_stories(
        self,
        captions: ManyCaptions,
        source: Float[Tensor, "b c h w"],
        seed: int = 0,
        first: int = 0,
        num_candidates: int = 1,
        choose: Choice | None = None,
    ) -> Float[Tensor, "b f k c h w"]:
        """Frames of many stories at once, in [-1, 1], with ``k`` candidates for each frame, not ordered by score.

        ``source`` is in [-1, 1] at the model's resolution. Stories are numbered from ``first`` on: a story's frames
        depend on the seed and its number, and not on the stories in the same batch. Frames after the end of a shorter
        story have no meaning. A model with memory draws each frame from those that ``choose`` keeps, by default those
        that it prefers itself; others do not ask. Raises ValueError for the captions of only one story, and for numbers
        out of range.
        """
        stories = stories_of(captions, num_candidates, seed)
        request = StoryRequest(stories, source.to(self.device), self.sampling(), num_candidates, seed, first)
        request = request._replace(choose=choose)
        return self.draw_candidates(request).frames

    def sampling(self, sampling: Sampling | None = None, **given: float | int | str | None) -> Sampling:
        """Return ``sampling``, by default the card's, with the fields replaced that are ``given`` (not None).

        Raises ValueError for a value out of range, and for a setting that the model lacks, unless it is 1 (neutral).
        """
        kind = self.sampling_class
        if not isinstance(sampling, kind | None):
            raise ValueError(f"sampling={sampling!r}: {type(self).__name__} takes a {kind.__name__}")
        saved: Mapping[str, Any] = part_of(self.card, "sampling")
        start = kind(**saved) if sampling is None else sampling
        known = {field.name for field in fields(kind)}
        lacking = [f"{name}={value}" for name, value in given.items() if name not in known and value not in (None, 1)]
        if lacking:
            raise ValueError(f"{', '.join(lacking)}: {self.lacks}; leave it out")
        return replace(start, **{name: given[name] for name in known & given.keys() if given[name] is not None})

    def caption_notes(self, captions: list[str]) -> list[str]:
        """A line for each caption with words that the model never read in training."""
        if self.words is None:
            return []
        return self.words.notes(captions, NO_MEANINGS if self.world is None else meanings())

    def world_notes(self, request: StoryRequest) -> list[str]:
        """Lines about what the drawn world that the model was trained on does not have."""
        if self.words is None or self.world is None:
            return []
        return WorldNotes(self.world, self.words, request.captions[0], request.source is not None).lines()

    @property
    def world(self) -> World | None:
        """The drawn world of its training stories, by the name of ``data`` in its card; None: it has another one."""
        return WORLDS.get(str(part_of(self.card, "data").get("name")))

    def request_notes(self, request: StoryRequest) -> list[str]:
        """Notes for the user about a source, or about a missing one."""
        return []

    def _sentence_vectors(
        self, sentences: Float[Tensor, "f e"] | None, num_captions: int
    ) -> Float[Tensor, "1 f e"] | None:
        if sentences is None:
            return None
        if self.sentence_dim is None:
            raise ValueError("sentences are for a released story encoder; this model reads the captions themselves")
        if len(sentences) != num_captions:
            raise ValueError(f"{len(sentences)} sentence vectors for {num_captions} captions: give one a caption")
        return sentences[None].to(self.device)

    # ------------------------------------------------------------------------------------------------- its description

    def measured(self, stories: Stories) -> dict[str, object]:
        """Entries for the card that depend on the training data."""
        return {}

    def ceilings(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Functions of true frames that give the best frames the model could draw, by the names of table rows."""
        return {}

    def summary(self) -> dict[str, str]:
        """A summary for people: what is drawn, and how large the model is."""
        return {"parameters": f"{sum(parameter.numel() for parameter in self.parameters()) / 1e6:.1f} M"}

    # ------------------------------------------------------------------------------------------------- its files

    def load_files(self, *parts: tuple[Path, str]) -> None:
        """Load the weights of all files, in single precision; a prefix selects the weights of its file by name.

        They replace the networks' own parameters, which may be on torch's meta device and take no memory until now.
        Raises ValueError if a file is damaged, or if a weight is missing, unknown, of another shape or not finite.
        """
        try:
            weights = {name: value for whole, prefix in parts for name, value in stored_floats(whole, prefix)}
            self.load_state_dict(tied_as(self, weights), assign=True)
        except (OSError, SafetensorError, RuntimeError) as error:
            message = f"{parts[0][0]} does not hold the weights of its configuration: {one_line(error)}"
            raise ValueError(message) from error

    def write_description(self, folder: Path, config: dict[str, object]) -> None:
        """Write config, card, known words and, if there is none yet, README; the folder is created."""
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / CONFIG_NAME, json.dumps(config, indent=2) + "\n")
        if self.card:
            write_text(folder / CARD_NAME, json.dumps(self.card, indent=2) + "\n")
        (folder / WORDS_NAME).unlink(missing_ok=True)
        if self.words is not None:
            self.words.save(folder)
        if not (folder / README_NAME).exists():
            from storydalle.models.cards import model_card  # imports the hub's library

            text = model_card(folder.absolute().name, type(self).__name__, self.summary(), self.card)
            write_text(folder / README_NAME, text)

    def write_weights(
        self, folder: Path, files: dict[str, dict[str, Tensor]], dtype: torch.dtype, exact: str | None = None
    ) -> None:
        """Write files of weights, by name, in ``dtype``; weights whose names begin with ``exact`` keep their precision.

        Weights of more than ``MAX_FILE_BYTES`` go into several files with an index. If a weight is not finite in its
        precision, ValueError names it, and nothing is written.
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


def tied_as(model: nn.Module, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights, with one shared parameter for names that share one in the model."""
    names: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if name in weights:
            names.setdefault(parameter, []).append(name)
    shared: dict[str, Tensor] = {}
    for parameter, tied in names.items():
        if len(tied) > 1:
            shared |= dict.fromkeys(tied, nn.Parameter(weights[tied[0]], requires_grad=parameter.requires_grad))
    return weights | shared


def read_card(folder: Path) -> dict[str, object]:
    """The card of a model's folder; ValueError, naming the file, for an entry of the wrong type."""
    path = folder / CARD_NAME
    card: dict[str, object] = {**read_object(path)} if path.is_file() else {}
    for key, (kind, form) in CARD_FORMS.items():
        if card.get(key) is not None and not isinstance(card[key], form):
            raise ValueError(f"{path} is no card: {key} is no {kind}")
    if not are_texts(card.get("tables") or []):
        raise ValueError(f"{path} is no card: tables is no list of texts")
    window = card.get("story_window")
    if isinstance(window, int) and window < 0:
        raise ValueError(f"{path} is no card: story_window={window} is below 1")
    return card


def one_line(error: Exception, limit: int = 300) -> str:
    """The message of an error without its line breaks, cut to a readable length."""
    return " ".join(str(error).split())[:limit]
