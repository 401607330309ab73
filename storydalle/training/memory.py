"""How much memory a training of StoryDALL-E needs, by counting what is kept: before it starts, and on any machine.

The peak is in the backward pass of a step whose gradients are accumulated over several batches, when there are at once

- **weights**: every number of the model, the image tokenizer included, at the precision it trains in;
- **gradients**: one number for each that trains;
- **optimizer**: two running means for each that trains, as precise as the weights with adamw, in 8 bits with adamw8bit;
- **average**: a second copy of all weights, where a running mean of them is kept;
- **activations**: what the forward pass keeps for the backward pass, and what that works with. Of each block these are
  the tensors of the residual stream, which autocast leaves in single precision, and those inside, at the precision of
  the computation; attention's scores too on a CPU, whereas a GPU's fused kernel keeps none; the source frame's keys and
  values; and copies of the weights, as autocast makes for every product. With activation checkpointing a block keeps
  its input alone, and one block at a time is as large as all of them otherwise. At the end stand the logits, rows x
  positions x vocabulary, three times in single precision: log-probabilities, their gradient, and that of the logits.
  Where drawing sample strips needs more than all that, it is what that needs.

A step without accumulation needs less: its gradients come while its activations go. What the allocator, the CUDA
context (about half a GB) and a data loader take is not counted.
"""

from typing import NamedTuple

from storydalle.models.backbones.backbone import Backbone
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, StoryEncoder
from storydalle.training.story_dalle_training import StoryDALLETraining

BYTES_OF_8_BIT_STATES = 2 + 2 * 4 / 256  # for each number that trains; every 256 of them share a scale
HALF = ("bf16-mixed", "16-mixed", "bf16-true", "16-true")


class TrainingMemory(NamedTuple):
    """Bytes, by what they are for."""

    weights: float | int
    gradients: float | int
    optimizer: float | int
    activations: float | int
    average: float | int

    @property
    def total(self) -> float | int:
        return sum(self)

    def __str__(self) -> str:
        parts = {name: value / 1e9 for name, value in self._asdict().items() if value}
        told = ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
        return f"{self.total / 1e9:.1f} GB: {told}"


class Precision(NamedTuple):
    """Bytes of a number of the weights and of the residual stream, and of one inside a block."""

    stream: int
    inside: int

    @property
    def is_mixed(self) -> bool:
        return self.stream != self.inside


class Step(NamedTuple):
    """What one batch holds, and how it is computed."""

    num_stories: int
    num_frames: int  # of a story
    precision: Precision
    keeps_scores: bool  # attention without a fused kernel, as on a CPU

    @property
    def num_rows(self) -> int:
        return self.num_stories * self.num_frames


class Block(NamedTuple):
    """What one block keeps: tensors of the width of the model, by their numbers, and bytes of the rest."""

    positions: int  # of all rows
    stream: float | int  # tensors of the residual stream
    inside: float | int  # tensors of the computation
    scores: float | int  # numbers
    copies: float | int  # weights that are copied, by autocast or to be fused
    apart: float | int  # bytes that are kept whether or not it is computed again: what it reads of source and caption
    widest: float | int  # tensors that its backward pass works with at a time

    def kept(self, dim: int, precision: Precision) -> float | int:
        wide = self.positions * dim * (self.stream * precision.stream + self.inside * precision.inside)
        return wide + (self.scores + self.copies) * precision.inside

    def worked_with(self, dim: int, precision: Precision) -> float | int:
        return self.positions * dim * (2 * precision.stream + self.widest * precision.inside)


def training_memory(
    system: StoryDALLETraining,
    num_stories: int,
    num_frames: int,
    precision: str,
    on_cpu: bool,
    has_average: bool = False,
) -> TrainingMemory:
    """Bytes that a step needs at its peak; ``precision`` is the trainer's. The weights may be on the meta device."""
    model = system.story_dalle
    stream = 2 if precision in ("bf16-true", "16-true") else 4
    step = Step(num_stories, num_frames, Precision(stream, 2 if precision in HALF else 4), on_cpu)
    weights = float(stream * sum(parameter.numel() for parameter in model.parameters()))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    states = trained * (2 * stream if system.optimizer == "adamw" else BYTES_OF_8_BIT_STATES)
    average = weights if has_average else 0.0
    return TrainingMemory(weights, stream * trained, states, activations(model, step), average)


def activations(story_dalle: StoryDALLE, step: Step) -> float | int:
    """Bytes beside weights, gradients and states when the backward pass begins, or a block's is at its largest."""
    model, precision = story_dalle.model, step.precision
    backbone, dim = model.backbone, model.backbone.dim
    attending = [str(i) in model.source_attention for i in range(backbone.depth)]
    blocks = backbone_blocks(backbone, step, num_prefix(model), attending)
    kept = sum(block.apart for block in blocks)
    working = max(block.worked_with(dim, precision) for block in blocks)
    if backbone.activation_checkpointing:
        inputs = [block.positions * dim * precision.stream for block in blocks]
        kept += sum(inputs)
        working += max(block.kept(dim, precision) - size for block, size in zip(blocks, inputs, strict=True))
    else:
        kept += sum(block.kept(dim, precision) for block in blocks)
    if isinstance(model.story_encoder, StoryEncoder):
        kept += story_bytes(model.story_encoder, backbone, step)
    return max(kept + max(working, logit_bytes(backbone, step)), drawing_bytes(story_dalle, step))


def drawing_bytes(story_dalle: StoryDALLE, step: Step) -> float | int:
    """What it takes to draw the sample strips, a story at a time, between two steps."""
    model, backbone = story_dalle.model, story_dalle.model.backbone
    caches = step.num_frames * backbone.cache_bytes(num_prefix(model))
    sources = 2 * len(model.source_attention) * backbone.image_length * backbone.dim * step.precision.stream
    fused = 3 * backbone.depth * backbone.dim**2 * step.precision.stream if isinstance(backbone, DALLE) else 0
    return caches + sources + fused


def num_prefix(model: RetrofittedDALLE) -> int:
    story = 0 if model.story_encoder is None else model.story_encoder.num_story_tokens
    return story + (0 if model.prompt_tokens is None else model.prompt_tokens.embedding.num_embeddings)


def logit_bytes(backbone: Backbone, step: Step) -> float | int:
    """Three of each logit of the image, and one of the text's, in single precision; or the gradient of the head."""
    image = step.num_rows * backbone.image_length * backbone.num_codes
    text = step.num_rows * (backbone.text_length - 1) * backbone.text_vocab_size if backbone.predicts_text else 0
    head = backbone.num_codes * backbone.dim * (step.precision.stream + step.precision.inside)
    return max(12 * image + 4 * text, 4 * text + image * step.precision.inside + head, 12 * text + 4 * image)


def story_bytes(encoder: StoryEncoder, backbone: Backbone, step: Step) -> float | int:
    """What the story encoder keeps: its blocks over all tokens of a story, and three tensors before and behind."""
    dim, precision = backbone.dim, step.precision
    columns = step.num_frames * backbone.text_length
    block = dalle_block(step.num_stories, columns, backbone, step, is_trained=True)
    ends = 6 * step.num_stories * columns * dim * precision.stream
    return len(encoder.blocks) * block.kept(dim, precision) + ends


def backbone_blocks(backbone: Backbone, step: Step, num_prefix: int, attending: list[bool]) -> list[Block]:
    """All blocks, those of an encoder first."""
    text = num_prefix + backbone.text_length
    if isinstance(backbone, DALLE):
        is_trained = any(parameter.requires_grad for parameter in backbone.blocks.parameters())
        columns = text + backbone.image_length - 1
        block = dalle_block(step.num_rows, columns, backbone, step, is_trained)
        return [with_source(block, backbone, step) if attends else block for attends in attending]
    assert isinstance(backbone, MegaDALLE)
    encoder, decoder = mega_blocks(backbone, step, text)
    read = [with_source(decoder, backbone, step) if attends else decoder for attends in attending]
    return [encoder] * len(backbone.encoder.layers) + read


def dalle_block(num_rows: int, columns: int, backbone: Backbone, step: Step, is_trained: bool) -> Block:
    """Kept inside: queries, keys, values (3) and the hidden layer (4); to train weights also what each product reads
    (7). Query, key and value weights are copied to be one."""
    square = backbone.dim**2
    return Block(
        positions=num_rows * columns,
        stream=2,
        inside=14 if is_trained else 7,
        scores=num_rows * backbone.num_heads * columns**2 if step.keeps_scores else 0,
        copies=12 * square if step.precision.is_mixed else 3 * square,
        apart=0,
        widest=4 if is_trained else 8,
    )


def mega_blocks(backbone: MegaDALLE, step: Step, text: int) -> tuple[Block, Block]:
    """A layer of the encoder and one of the decoder; ``text`` counts the columns of the encoder.

    Kept inside: queries, keys, values (3), what attention says (1), and of the gated network four tensors of its own
    width; to train weights also what each product reads, which autocast copies for each anew.
    """
    dim, glu, rows = backbone.dim, backbone.config["glu_dim"], step.num_rows
    ratio, mixed, precision = glu / dim, step.precision.is_mixed, step.precision
    is_trained = any(parameter.requires_grad for parameter in backbone.decoder.layers.parameters())
    read = (3 + 1 + 2 + ratio if mixed else 1 + 1 + 1 + ratio) if is_trained else 0
    squares = (4 * dim**2 + 3 * dim * glu) if mixed else 0
    scores = rows * backbone.num_heads if step.keeps_scores else 0
    encoder = Block(rows * text, 2, 4 + 4 * ratio + read, scores * text**2, squares, 0, 2 * ratio)
    codes = backbone.image_length
    memory = rows * text * dim * (2 + (2 if mixed else 0)) * precision.inside
    return encoder, Block(
        positions=rows * codes,
        stream=3,
        inside=6 + 4 * ratio + read + (2 if is_trained else 0),
        scores=scores * (codes**2 + codes * text),
        copies=squares + (2 * dim**2 if mixed else 0),
        apart=memory + (2 * dim**2 * precision.inside if mixed else 0),
        widest=2 * ratio,
    )


def with_source(block: Block, backbone: Backbone, step: Step) -> Block:
    """The block with source attention, which trains in every mode: what its products read and say of the positions
    that predict a code, and the keys and values of the source."""
    codes, dim = backbone.image_length, backbone.dim
    share = step.num_rows * codes / block.positions
    memory = 3 * step.num_stories * codes * dim * step.precision.inside
    copies = 2 * dim**2 if step.precision.is_mixed else 0
    return block._replace(
        stream=block.stream + 1,
        inside=block.inside + 3 * share,
        scores=block.scores + (step.num_rows * backbone.num_heads * codes**2 if step.keeps_scores else 0),
        copies=block.copies + copies,
        apart=block.apart + memory + copies * step.precision.inside,
    )
