"""Captions of a story -> one vector a caption. Each is read together with the others, after a marker.

StoryGANc's text encoder, following the description in the StoryDALL-E paper: the captions of a story are appended, and
a special token marks the one whose frame is drawn, ``caption 1 | caption 2 | [CUR] caption 3 | caption 4``. A story of
f captions is thus read f times, and a batch of stories at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple, cast

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from storydalle.configured import Configured, NetworkSettings
from storydalle.files.registry import Registry
from storydalle.models.backbones.dalle import Block
from storydalle.models.layers import attend
from storydalle.models.story_dalle.story_encoder import sinusoids
from storydalle.tokens.caption_tokenizer import CaptionTokenizer


class Pieces(NamedTuple):
    """Token ids of a story's captions, each cut to what the encoder reads of it."""

    ids: list[list[int]]
    overflow: list[tuple[int, int]]  # (index of a caption, number of tokens cut off its end)


class MarkedRow(NamedTuple):
    """A story's captions in one row, with the marker ahead of the caption that is read."""

    ids: list[int]
    marker: int  # column of the marker; the caption's own tokens follow it
    end: int  # column after them


class MarkedRows(NamedTuple):
    """Rows of several stories, padded on the right to the longest one."""

    ids: Int[Tensor, "r n"]
    present: Bool[Tensor, "r n"]
    marker: Int[Tensor, " r"]
    end: Int[Tensor, " r"]


class CaptionEncoder(Configured, nn.Module, ABC):
    """Captions to vectors of width ``dim``. ``open`` needs ``config`` and what ``save`` wrote.

    A subclass names the ids around captions: ``start`` and ``stop`` of a row, ``separator`` between two captions,
    ``marker`` ahead of the current one, ``pad_id`` after the end. The ids in captions are below ``marker``.
    """

    kind: ClassVar[str]  # its name in ``CAPTION_ENCODERS``
    dim: int
    start: tuple[int, ...] = ()
    stop: tuple[int, ...] = ()
    separator: int
    marker: int
    pad_id: int

    @property
    def config(self) -> dict[str, object]:
        return {"kind": self.kind, **super().config}

    def forward(self, captions: Sequence[Sequence[str]]) -> Float[Tensor, "b f d"]:
        """One vector a caption; stories shorter than the longest one are filled up with zeros.

        A vector depends on the captions of its own story alone. Raises ValueError for a story without captions.
        """
        for story in captions:
            if isinstance(story, str) or not story:
                raise ValueError(f"{story!r} is no story: give a list of at least one caption for each")
        return pad_sequence(self._encode(captions), batch_first=True)

    def notes(self, captions: Sequence[str]) -> list[str]:
        """A line for each of one story's captions that is not read to its end."""
        pieces = self._tokenize(captions)
        return [
            f"caption {index + 1} has {len(pieces.ids[index]) + cut} tokens; the last {cut} were cut, since the "
            f"caption encoder reads {len(pieces.ids[index])} of each in a story of {len(captions)}"
            for index, cut in pieces.overflow
        ]

    def words(self, captions: Sequence[Sequence[str]]) -> Float[Tensor, "n v"]:
        """The share of each token in each caption, as far as the caption is read; n captions of all stories."""
        pieces = [piece for story in captions for piece in self._tokenize(story).ids]
        counts = [torch.bincount(torch.tensor(piece, dtype=torch.long), minlength=self.marker) for piece in pieces]
        shares = torch.stack(counts).float()
        return shares / shares.sum(1, keepdim=True).clamp(min=1)

    @classmethod
    @abstractmethod
    def open(cls, folder: str | Path, **settings: object) -> "CaptionEncoder":
        """The encoder that ``save`` has written, with fresh weights; ``settings`` are ``config`` without its kind."""

    @abstractmethod
    def save(self, folder: str | Path) -> None:
        """Write what ``open`` needs beside ``config`` and the weights: the tokenizer's files."""

    @abstractmethod
    def _tokenize(self, captions: Sequence[str]) -> Pieces:
        """Tokens of one story's captions, each cut on its own. The marker is added later, so it is never cut off."""

    @abstractmethod
    def _read(self, rows: MarkedRows) -> Float[Tensor, "r d"]:
        """One vector a row."""

    def _encode(self, captions: Sequence[Sequence[str]]) -> list[Float[Tensor, "_ d"]]:
        """The vectors of each story, all of them read as one batch."""
        rows = [row for story in captions for row in self._rows(story)]  # f rows a story, one for each marker
        return list(self._read(self._pad(rows)).split([len(story) for story in captions]))

    def _rows(self, captions: Sequence[str]) -> list[MarkedRow]:
        pieces = self._tokenize(captions).ids
        return [self._append(pieces, current) for current in range(len(pieces))]

    def _append(self, pieces: list[list[int]], current: int) -> MarkedRow:
        ids, marker, end = list(self.start), 0, 0
        for i, piece in enumerate(pieces):
            if i > 0:
                ids.append(self.separator)
            if i == current:
                marker, end = len(ids), len(ids) + 1 + len(piece)
                ids.append(self.marker)
            ids += piece
        return MarkedRow([*ids, *self.stop], marker, end)

    def _pad(self, rows: Sequence[MarkedRow]) -> MarkedRows:
        device = next(self.parameters()).device
        ids = pad_sequence([torch.tensor(row.ids) for row in rows], batch_first=True, padding_value=self.pad_id)
        lengths = torch.tensor([len(row.ids) for row in rows])
        present = torch.arange(ids.shape[1]) < lengths[:, None]  # r n
        marker, end = (torch.tensor(columns) for columns in zip(*(row[1:] for row in rows), strict=True))
        return MarkedRows(*(part.to(device) for part in (ids, present, marker, end)))


@dataclass(frozen=True)
class SmallEncoderSettings(NetworkSettings):
    dim: int = 256
    depth: int = 2
    num_heads: int = 4

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth={self.depth}: the small caption encoder needs at least one block")


class SmallCaptionEncoder(CaptionEncoder):
    """A bidirectional transformer, trained from scratch and read at the marker. Nothing is downloaded.

    Positions count from the marker, so that the words of the current caption have the same positions whatever precedes
    them, and stories of any length can be read.
    """

    kind = "small"
    settings: SmallEncoderSettings

    def __init__(self, tokenizer: CaptionTokenizer, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = SmallEncoderSettings.of(*values, **named)
        self.dim, self.tokenizer = settings.dim, tokenizer
        self.pad_id, self.marker, self.separator = tokenizer.pad_id, tokenizer.vocab_size, tokenizer.vocab_size + 1
        self.embedding = nn.Embedding(tokenizer.vocab_size + 2, self.dim)
        self.blocks = nn.ModuleList(Block(self.dim, settings.num_heads) for _ in range(settings.depth))
        self.ln_f = nn.LayerNorm(self.dim)
        self._init_weights()

    def _init_weights(self) -> None:
        """A zero marker, which holds only what it reads, and blocks that pass all of it on (Xavier).

        Fresh vectors of different captions must differ: with minDALL-E's N(0, 0.02) they hardly do, and a GAN's
        gradient alone does not change that.
        """
        nn.init.zeros_(self.embedding.weight.data[self.marker])
        for parameter in self.blocks.parameters():
            if parameter.dim() == 2:  # no biases, no norms
                nn.init.xavier_normal_(parameter)

    @classmethod
    def open(cls, folder: str | Path, **settings: object) -> "SmallCaptionEncoder":
        return cls(CaptionTokenizer.load(folder), **settings)

    def save(self, folder: str | Path) -> None:
        self.tokenizer.save(folder)

    def _tokenize(self, captions: Sequence[str]) -> Pieces:
        encoded = self.tokenizer.encode(captions)
        return Pieces([row[row != self.pad_id].tolist() for row in encoded.tokens], encoded.overflow)

    def _read(self, rows: MarkedRows) -> Float[Tensor, "r d"]:
        x = self.embedding(rows.ids) + self._positions(rows).to(self.embedding.weight)
        visible = repeat(rows.present, "r m -> r 1 n m", n=x.shape[1])
        for block in self.blocks[:-1]:
            x = block(x, visible)
        marker = x[torch.arange(len(x), device=x.device), rows.marker]  # r d
        return self.ln_f(read_column(cast(Block, self.blocks[-1]), marker, x, rows.present))

    def _positions(self, rows: MarkedRows) -> Float[Tensor, "r n d"]:
        """Sinusoids of each column's distance from the marker; before it the sines have the opposite sign."""
        offset = torch.arange(rows.ids.shape[1], device=rows.ids.device) - rows.marker[:, None]  # r n
        table = sinusoids(rows.ids.shape[1], self.dim).to(offset.device)
        num_sines = len(range(0, self.dim, 2))
        sign = torch.where(torch.arange(self.dim, device=offset.device) < num_sines, offset.sign()[..., None], 1)
        return table[offset.abs()] * sign


def read_column(
    block: Block, own: Float[Tensor, "r d"], x: Float[Tensor, "r n d"], present: Bool[Tensor, "r n"]
) -> Float[Tensor, "r d"]:
    """One column, ``own``, of each row of ``x`` after a block. The last block's other columns are not needed."""
    attention, heads = block.attn, "r n (h k) -> r h n k"
    query = attention.query(block.ln1(own[:, None]))  # r 1 d
    x = block.ln1(x)
    parts = (query, attention.key(x), attention.value(x))
    query, key, value = (rearrange(part, heads, h=attention.num_heads) for part in parts)
    found = attend(query, key, value, present[:, None, None])
    own = own + attention.proj(rearrange(found, "r h 1 k -> r (h k)"))
    return own + block.mlp(block.ln2(own))


def open_caption_encoder(config: Mapping[str, object], folder: str | Path) -> CaptionEncoder:
    """An encoder from ``config`` and the files of ``save``; its weights are loaded with those of the whole model."""
    found, settings = CAPTION_ENCODERS.split(config)
    return found.open(folder, **settings)


CAPTION_ENCODERS: Registry[CaptionEncoder] = Registry(
    "a caption encoder",
    {
        "small": "storydalle.models.story_gan.caption_encoder.SmallCaptionEncoder",
        "roberta": "storydalle.models.story_gan.language_models.RobertaCaptionEncoder",
        "clip": "storydalle.models.story_gan.language_models.CLIPCaptionEncoder",
    },
)
