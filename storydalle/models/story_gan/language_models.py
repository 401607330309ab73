"""Pretrained language models as caption encoders, opened from folders and never downloaded.

RoBERTa is read at the marker. CLIP's text tower is causal, so that a vector at the marker cannot see the caption behind
it: there the vectors of the caption's own tokens are averaged. Neither uses the library's pooled vector, which for
OpenAI's configurations is the one at the largest token id: an added marker would take its place.
"""

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any  # transformers has no types

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn

from storydalle.configured import NetworkSettings
from storydalle.models.story_gan.caption_encoder import CaptionEncoder, MarkedRows, Pieces

TUNINGS = ("frozen", "marker", "full")
# Of every file that transformers opens: nothing is downloaded, and nothing that a folder brings as code is run or asked
# about. Left out, the library would ask on the terminal, and run it after a "y".
LOCAL = MappingProxyType({"local_files_only": True, "trust_remote_code": False})


class MarkedEmbedding(nn.Module):
    """A table of embeddings with one more row, the marker's: it can be trained while the table is frozen.

    Resizing the table itself would put the row into a parameter that is frozen with all others.
    """

    def __init__(self, table: nn.Embedding, known: int) -> None:
        """The marker starts as a copy of the table's row ``known`` and has the id after the table's last."""
        super().__init__()
        self.table = table
        self.marker = nn.Parameter(table.weight[known].detach().clone())

    def forward(self, ids: Int[Tensor, "r n"]) -> Float[Tensor, "r n d"]:
        is_marker = ids == self.table.num_embeddings
        # The table has no row for the marker: row 0 is looked up in its place, and replaced.
        return torch.where(is_marker[..., None], self.marker, self.table(ids.masked_fill(is_marker, 0)))


class VectorCache:
    """Vectors of stories by their captions, in main memory; the least recently read go first when it is full."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.num_bytes = max_bytes, 0
        self._vectors: OrderedDict[tuple[str, ...], Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._vectors)

    def get(self, captions: tuple[str, ...]) -> Tensor | None:
        if captions in self._vectors:
            self._vectors.move_to_end(captions)
        return self._vectors.get(captions)

    def put(self, captions: tuple[str, ...], vectors: Tensor) -> None:
        self._vectors[captions] = vectors
        self.num_bytes += vectors.nbytes
        while self.num_bytes > self.max_bytes:
            self.num_bytes -= self._vectors.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        self._vectors.clear()
        self.num_bytes = 0


@dataclass(frozen=True)
class LanguageModelSettings(NetworkSettings):
    """``tuning`` names what is trained: nothing ("frozen"; the marker is then the copy of a row that is known, and
    vectors are computed once a story and kept, up to ``cache_mib`` MiB), the marker's row alone ("marker"), or
    everything ("full"). A model that is not tuned stays in evaluation mode: its dropout would be noise.
    """

    tuning: str = "frozen"
    cache_mib: int = 256

    def __post_init__(self) -> None:
        if self.tuning not in TUNINGS:
            raise ValueError(f"tuning={self.tuning!r}: a language model is tuned as one of {', '.join(TUNINGS)}")


class LanguageModelEncoder(CaptionEncoder):
    """A language model with a marker among its tokens; ``dim`` is the model's width."""

    settings: LanguageModelSettings

    model_types: tuple[str, ...]
    model_class: str
    model_options: Mapping[str, object] = MappingProxyType({})

    def __init__(self, model: Any, tokenizer: Any, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = LanguageModelSettings.of(*values, **named)
        self.model, self.tokenizer, self.tuning = model, tokenizer, settings.tuning
        self.cache = VectorCache(settings.cache_mib * 2**20)
        table: nn.Embedding = model.get_input_embeddings()
        self.dim, self.marker, self.pad_id = table.embedding_dim, table.num_embeddings, tokenizer.pad_token_id
        marked = MarkedEmbedding(table, self._known_marker())
        model.set_input_embeddings(marked)
        model.requires_grad_(self.tuning == "full")
        marked.marker.requires_grad_(self.tuning != "frozen")
        self.train(self.training)

    @classmethod
    def from_pretrained(
        cls, name_or_folder: str | Path, tuning: str = "frozen", cache_mib: int = 256
    ) -> "LanguageModelEncoder":
        """Open a model and its tokenizer from a folder, or from what the hub's cache on this disk already holds.

        Raises ValueError where they are not there whole, or of another kind.
        """
        library = import_transformers()
        try:
            found = library.AutoConfig.from_pretrained(name_or_folder, **LOCAL).model_type
            if found not in cls.model_types:
                raise ValueError(f"it holds a model of type {found}")
            tokenizer = library.AutoTokenizer.from_pretrained(name_or_folder, **LOCAL)
            options = {**cls.model_options, "output_loading_info": True, "dtype": torch.float32}
            model_class = getattr(library, cls.model_class)
            model, report = model_class.from_pretrained(name_or_folder, **LOCAL, **options)
            if report["missing_keys"]:
                raise ValueError(f"its weights lack {len(report['missing_keys'])} of the model's parameters")
        except Exception as error:  # another library raises what it likes on files of strangers
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ValueError(
                f"no {cls.kind} language model could be opened from {name_or_folder} ({reason}): "
                f"put its files there first, or take the small caption encoder, which needs none"
            ) from error
        return cls(model, tokenizer, tuning, cache_mib)

    @classmethod
    def open(cls, folder: str | Path, **settings: object) -> "LanguageModelEncoder":
        """The encoder that ``save`` has written, with fresh weights: they are loaded with those of the whole model."""
        library = import_transformers()
        model_class = getattr(library, cls.model_class)
        try:
            config = model_class.config_class.from_pretrained(folder, **LOCAL)
            tokenizer = library.AutoTokenizer.from_pretrained(folder, **LOCAL)
            return cls(model_class(config, **cls.model_options), tokenizer, **settings)
        except Exception as error:
            raise ValueError(f"{folder} holds no tokenizer of a {cls.kind} caption encoder: {error}") from error

    def save(self, folder: str | Path) -> None:
        self.tokenizer.save_pretrained(folder)
        self.model.config.save_pretrained(folder)

    def train(self, mode: bool = True) -> "LanguageModelEncoder":
        super().train(mode)
        if self.tuning != "full":
            self.model.eval()
        return self

    @abstractmethod
    def _known_marker(self) -> int:
        """The row that the marker starts from."""

    @property
    @abstractmethod
    def limit(self) -> int:
        """How many positions the model has."""

    def _hidden(self, rows: MarkedRows) -> Float[Tensor, "r n d"]:
        return self.model(input_ids=rows.ids, attention_mask=rows.present.long()).last_hidden_state

    def _tokenize(self, captions: Sequence[str]) -> Pieces:
        size = self._tokens_a_caption(len(captions))
        # RoBERTa has other tokens for words without a space before them.
        whole = self.tokenizer([f" {caption}".rstrip() for caption in captions], add_special_tokens=False)["input_ids"]
        overflow = [(i, len(piece) - size) for i, piece in enumerate(whole) if len(piece) > size]
        return Pieces([piece[:size] for piece in whole], overflow)

    def _tokens_a_caption(self, num_captions: int) -> int:
        """An equal share for each caption of what start, stop, marker and separators leave."""
        around = len(self.start) + len(self.stop)
        size = (self.limit - around - num_captions) // num_captions
        if size < 1:
            raise ValueError(
                f"a story of {num_captions} captions is too long for a {self.kind} caption encoder: its {self.limit} "
                f"positions have room for {(self.limit - around) // 2}; the small caption encoder has no limit"
            )
        return size

    # ------------------------------------------------------------------------------------------------- cached vectors

    def _encode(self, captions: Sequence[Sequence[str]]) -> list[Float[Tensor, "_ d"]]:
        if self.tuning != "frozen":
            return super()._encode(captions)
        device = next(self.parameters()).device
        return [self._cached(tuple(story)).to(device) for story in captions]

    def _cached(self, captions: tuple[str, ...]) -> Float[Tensor, "f d"]:
        """A story is read alone, so that its vectors, to the last digit, do not hang on who was in its batch."""
        vectors = self.cache.get(captions)
        if vectors is None:
            with torch.no_grad():
                vectors = super()._encode([captions])[0].cpu()
            self.cache.put(captions, vectors)
        return vectors

    def _apply(self, *args: object, **kwargs: object) -> "LanguageModelEncoder":
        self.cache.clear()  # another precision
        return super()._apply(*args, **kwargs)

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        self.cache.clear()  # other weights
        super()._load_from_state_dict(*args, **kwargs)


class RobertaCaptionEncoder(LanguageModelEncoder):
    """RoBERTa (Liu et al. 2019), read at the marker, which starts as the mask that the model was trained to fill."""

    kind, model_types, model_class = "roberta", ("roberta",), "RobertaModel"
    model_options = MappingProxyType({"add_pooling_layer": False})

    def __init__(self, model: Any, tokenizer: Any, *values: object, **named: object) -> None:
        super().__init__(model, tokenizer, *values, **named)
        self.start, self.stop = (tokenizer.cls_token_id,), (tokenizer.sep_token_id,)
        self.separator = tokenizer.sep_token_id

    def _known_marker(self) -> int:
        return self.tokenizer.mask_token_id

    @property
    def limit(self) -> int:
        """Positions are counted from the one after padding's."""
        return self.model.config.max_position_embeddings - self.pad_id - 1

    def _read(self, rows: MarkedRows) -> Float[Tensor, "r d"]:
        hidden = self._hidden(rows)
        return hidden[torch.arange(len(hidden), device=hidden.device), rows.marker]


class CLIPCaptionEncoder(LanguageModelEncoder):
    """CLIP's text tower (Radford et al. 2021), averaged over the current caption's tokens.

    A vector sees the marker and the captions up to its own, never the later ones. An empty caption is read at the
    marker. Of 77 positions a story of four captions has 17 for each.
    """

    kind, model_types, model_class = "clip", ("clip", "clip_text_model"), "CLIPTextModel"

    def __init__(self, model: Any, tokenizer: Any, *values: object, **named: object) -> None:
        super().__init__(model, tokenizer, *values, **named)
        self.start, self.stop = (tokenizer.bos_token_id,), (tokenizer.eos_token_id,)
        self.separator = self._id_of(";")

    def _known_marker(self) -> int:
        return self._id_of(">")

    def _id_of(self, sign: str) -> int:
        return self.tokenizer(sign, add_special_tokens=False)["input_ids"][0]

    @property
    def limit(self) -> int:
        return self.model.config.max_position_embeddings

    def _read(self, rows: MarkedRows) -> Float[Tensor, "r d"]:
        hidden = self._hidden(rows)
        marker, end = rows.marker[:, None], rows.end[:, None]
        first = torch.minimum(marker + 1, end - 1)
        column = torch.arange(hidden.shape[1], device=hidden.device)
        own = ((column >= first) & (column < end)).to(hidden)  # r n: the current caption's columns
        return einsum(hidden, own / own.sum(1, keepdim=True), "r n d, r n -> r d")


def import_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(
            'RoBERTa and CLIP need the package transformers: pip install "storydalle[text]", or take the small '
            "caption encoder, which needs none"
        ) from error
    return transformers
