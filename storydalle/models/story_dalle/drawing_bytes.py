"""The memory that drawing needs, computed from sizes before it starts, and how many rows a wave may have.

At its peak a wave of rows (candidates of frames) holds

- **caches**: keys and values of each prompt, shared by the candidates of a frame, and of the codes of each row;
- **source**: keys and values of the source, and of frames that are remembered, in each block that attends to them;
- **working memory**: of the prefill or of a step, whichever is more. A step's is that of one block, and the logits with
  what a code is chosen by, in double precision;

and beside them there are the **weights**, copies of them that are **packed** or joined for decoding, and the **codes**
of all waves. Pictures are decoded after that, some at a time: then there are weights, **decoding**, and all
**pictures**. Not counted are the allocator, scratch memory inside a product, and the page that is written of a story.
"""

from collections.abc import Callable
from typing import NamedTuple, cast

import torch

from storydalle.files.process_memory import free_bytes, told_bytes
from storydalle.models.packing import packed_bytes
from storydalle.models.story_dalle.look_ahead import window_for
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.source_attention import SourceCrossAttention
from storydalle.models.story_dalle.story_encoder import StoryEncoder

MOST_ROWS = 256  # of a wave: more gain no speed
SHARE = 0.5  # of the free memory that a wave may take, so that others have some


class WaveSizes(NamedTuple):
    """What is drawn together."""

    num_stories: int
    num_frames: int
    num_candidates: int
    num_columns: int  # of a prompt: its prefix, and the text columns that are computed
    source_length: int  # codes that a story's source attention reads, those of memory too; 0 without a source
    num_branches: int  # 2 with guidance
    code_bytes: int  # that a code is chosen by: its logits, and what is made of them
    in_turn: bool = False  # a wave has one frame of each story, since the next one remembers it

    @property
    def num_prompts(self) -> int:
        return self.num_stories * self.num_frames

    @property
    def num_rows(self) -> int:
        return self.num_prompts * self.num_candidates


class DrawingMemory(NamedTuple):
    """Bytes by purpose, at the peak."""

    weights: int = 0
    packed: int = 0
    caches: int = 0
    source: int = 0
    working: int = 0
    codes: int = 0
    decoding: int = 0
    pictures: int = 0

    @property
    def total(self) -> int:
        return sum(self)

    def __str__(self) -> str:
        parts = [f"{name} {told_bytes(value)}" for name, value in self._asdict().items() if value >= 5e5]
        return f"{told_bytes(self.total)} ({', '.join(parts)})"


def wave_memory(model: RetrofittedDALLE, sizes: WaveSizes) -> DrawingMemory:
    """What a wave needs beside weights and codes."""
    backbone, prompts, rows = model.backbone, sizes.num_prompts, sizes.num_rows
    columns = prompts * sizes.num_columns + rows * backbone.image_length
    context = sizes.num_stories * sizes.source_length * number_bytes(model)
    source = 2 * len(model.source_attention) * context
    caches = sizes.num_branches * columns * backbone.column_bytes
    # Of one block: the context embedded and normed, its keys and values, and keys with positions; before any cache.
    remembering = 5 * context * backbone.dim - caches if sizes.in_turn else 0
    prefill = block_bytes(model, prompts * sizes.num_columns, sizes.num_columns) + joined_bytes(model)
    # Prompts are copied for their candidates block by block.
    shared = prompts * (sizes.num_columns + backbone.image_length) * backbone.column_bytes // backbone.depth
    kept = prompts * number_bytes(model) * (2 * model.num_prefix * backbone.dim + sizes.num_columns)
    kept += 24 * rows * backbone.image_length  # uniform numbers, codes
    return DrawingMemory(
        caches=caches,
        source=sizes.num_branches * source * backbone.dim,
        working=max(
            remembering,
            kept + max(prefill, step_bytes(model, sizes), shared if sizes.num_candidates > 1 else 0),
        ),
    )


def step_bytes(model: RetrofittedDALLE, sizes: WaveSizes) -> int:
    """Working memory of one step: of a block, of its source attention, or of choosing codes."""
    backbone, rows = model.backbone, sizes.num_rows
    inputs = rows * window_for(model, rows, sizes.num_candidates)  # codes that are read
    own = block_bytes(model, inputs, sizes.num_columns + backbone.image_length, tables=3)
    source = block_bytes(model, inputs, sizes.source_length) if model.source_attention else 0
    if sizes.num_stories > 1:  # keys and values of several stories are laid out anew for each product
        source += 2 * sizes.num_stories * sizes.source_length * backbone.dim * number_bytes(model)
    return max(own, source, inputs * sizes.code_bytes)


def block_bytes(model: RetrofittedDALLE, positions: int, seen: int, tables: int = 2) -> int:
    """What a block works with: its feed-forward network, or its attention with some tables of scores."""
    backbone = model.backbone
    # The stream: before the block, before and after its hook, and normed.
    network = (4 + backbone.hidden_tensors) * backbone.dim
    attention = 8 * backbone.dim + tables * backbone.num_heads * seen
    return int(positions * max(network, attention) * number_bytes(model))


def joined_bytes(model: RetrofittedDALLE) -> int:
    """The largest joined weight: it is made anew wherever a prompt is read."""
    joined = [layers for layers in model.backbone.step_layers if len(layers) > 1]
    return max((sum(layer.weight.nbytes for layer in layers) for layers in joined), default=0)


def number_bytes(model: RetrofittedDALLE) -> int:
    return model.backbone.code_table.element_size()


def view_bytes(model: RetrofittedDALLE, packing: str) -> int:
    """Copies of weights that a view for decoding makes: those of a step's products, and joined ones of the story."""
    products = list(model.backbone.step_layers)
    for attention in model.source_attention.values():
        one = cast(SourceCrossAttention, attention)
        products += [(one.query,), (one.proj,)]
    return packed_bytes(model, products, packing)


def reading_bytes(model: RetrofittedDALLE, num_stories: int, columns: int) -> int:
    """Working memory of the story encoder, which reads all ``columns`` of a story's captions together."""
    if not isinstance(model.story_encoder, StoryEncoder):
        return 0
    columns += 0 if model.story_encoder.source is None else model.backbone.image_length
    # With a reach, each score has a number that is added, which is made of several tables.
    return block_bytes(model, num_stories * columns, columns, tables=2 if model.story_encoder.distances is None else 6)


# ------------------------------------------------------------------------------------------------ what fits


def free_on(device: torch.device) -> int:
    """Memory of a device that this process can still have."""
    if device.type != "cuda":
        return free_bytes()
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def rows_that_fit(needed: Callable[[int], int], free: int) -> int:
    """The rows of a wave: ``MOST_ROWS``, halved until the bytes that they need are at most a share of what is free.

    One row may take all of it. Halves, so that the same request has the same waves unless memory is much shorter.
    """
    rows = MOST_ROWS
    while rows > 1 and needed(rows) > SHARE * free:
        rows //= 2
    return rows
