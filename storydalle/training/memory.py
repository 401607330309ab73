"""The memory that a training of StoryDALL-E needs, computed from sizes before it starts, on any machine.

The peak is in the backward pass of a step with gradients accumulated over several batches. Then there are

- **weights**: all parameters of the model, including the image tokenizer, at the precision of the training;
- **gradients**: one number for each trained parameter;
- **optimizer**: two running means for each trained parameter, as precise as the weights with adamw, 8 bits with
adamw8bit;
- **average**: a second copy of all weights, if a running mean of them is kept;
- **activations**: what the forward pass keeps for the backward pass, and the working memory of that. For each block:
  the tensors of the residual stream, which autocast leaves in single precision; the tensors inside the block, at the
  precision of the computation; the scores of attention, only on a CPU, since the fused kernel of a GPU keeps none; keys
  and values of the source frame, and of the frames that each frame remembers; and the copies of weights that autocast
  makes for every product. With activation checkpointing a block keeps only its input, and only one block at a time
  needs the rest. Then the logits (rows x positions x vocabulary) three times in single precision: log-probabilities,
  their gradient, and the logits' gradient.
  If drawing sample strips needs more than all this, its memory counts instead. Columns of captions count that have a
  token in some caption; the rest is dropped before it is computed.

A step without accumulation needs less: gradients appear while activations are freed. Not counted are the allocator, the
CUDA context (about half a GB) and the data loader.
"""

import sys
from typing import NamedTuple, cast

from storydalle.models.backbones.backbone import Backbone
from storydalle.models.backbones.dalle import Block
from storydalle.models.kept import KeptByBlock, NumberBytes, StepSizes
from storydalle.models.story_dalle.drawing_bytes import WaveSizes, view_bytes
from storydalle.models.story_dalle.drawing_plan import DrawingPlan
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.sampling import CodeSampling
from storydalle.models.story_dalle.source_attention import SourceCrossAttention
from storydalle.models.story_dalle.story_encoder import StoryEncoder
from storydalle.training.story_dalle_training import StoryDALLETraining

BYTES_OF_8_BIT_STATES = 2 + 2 * 4 / 256  # for each number that trains; every 256 of them share a scale
HALF = ("bf16-mixed", "16-mixed", "bf16-true", "16-true")


class TrainingMemory(NamedTuple):
    """Bytes by purpose."""

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


def training_memory(
    system: StoryDALLETraining,
    num_stories: int,
    num_frames: int,
    precision: str,
    on_cpu: bool,
    has_average: bool = False,
    text_columns: int | None = None,
) -> TrainingMemory:
    """Bytes that a step needs at its peak; ``precision`` is the trainer's. The weights may be on the meta device.

    ``text_columns`` is the number of columns that the longest captions have tokens in, by default all of them.
    """
    model = system.story_dalle
    columns = model.model.backbone.text_length if text_columns is None else text_columns
    stream = 2 if precision in ("bf16-true", "16-true") else 4
    step = StepSizes(num_stories, num_frames, NumberBytes(stream, 2 if precision in HALF else 4), on_cpu, columns)
    weights = float(stream * sum(parameter.numel() for parameter in model.parameters()))
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    states = trained * (2 * stream if system.optimizer == "adamw" else BYTES_OF_8_BIT_STATES)
    average = weights if has_average else 0.0
    drawn = min(num_frames, system.drawn_frames or num_frames)
    return TrainingMemory(weights, stream * trained, states, activations(model, step, drawn), average)


def activations(story_dalle: StoryDALLE, step: StepSizes, drawn_frames: int) -> float | int:
    """Bytes beside weights, gradients and optimizer, at the largest point of the backward pass."""
    model, precision = story_dalle.model, step.precision
    backbone, dim = model.backbone, model.backbone.dim
    drawn = step._replace(num_frames=drawn_frames)
    blocks = kept_blocks(model, drawn)
    kept = sum(block.apart for block in blocks)
    working = max(block.worked_with(dim, precision) for block in blocks)
    if backbone.activation_checkpointing:
        inputs = [block.positions * dim * precision.stream for block in blocks]
        kept += sum(inputs)
        working += max(block.num_bytes(dim, precision) - size for block, size in zip(blocks, inputs, strict=True))
    else:
        kept += sum(block.num_bytes(dim, precision) for block in blocks)
    if isinstance(model.story_encoder, StoryEncoder):
        kept += story_bytes(model.story_encoder, backbone, step)
    return max(kept + max(working, logit_bytes(backbone, drawn)), drawing_bytes(story_dalle, step))


def kept_blocks(model: RetrofittedDALLE, step: StepSizes) -> list[KeptByBlock]:
    """The memory of each block, with its source attention where it has one."""
    backbone = model.backbone
    blocks = backbone.kept(step, model.num_prefix)
    first = len(blocks) - backbone.depth  # behind an encoder's, which call no hook
    for name, attention in model.source_attention.items():
        beside = cast(SourceCrossAttention, attention).kept_beside
        blocks[first + int(name)] = beside(blocks[first + int(name)], backbone.image_length, step)
    return blocks


def drawing_bytes(story_dalle: StoryDALLE, step: StepSizes) -> float | int:
    """Bytes to draw the sample strips between two steps, one story at a time, beside the weights."""
    model, backbone = story_dalle.model, story_dalle.model.backbone
    remembered = min(model.num_remembered, step.num_frames - 1)
    strip = WaveSizes(
        num_stories=1,
        num_frames=step.num_frames,
        num_candidates=1,
        num_columns=model.num_prefix + step.text_columns,
        source_length=(1 + remembered) * backbone.image_length,
        num_branches=1,
        code_bytes=CodeSampling().code_bytes(backbone.num_codes),
        in_turn=model.num_remembered > 0,
    )
    packed = view_bytes(model, "plain")
    needed = DrawingPlan(story_dalle.image_tokenizer, model, strip, packed, as_pixels=False, free=sys.maxsize).memory
    return needed.total - needed.weights


def logit_bytes(backbone: Backbone, step: StepSizes) -> float | int:
    """Bytes of logits: three numbers for each image logit and one for each text logit, or the gradient of the head."""
    image = step.num_rows * backbone.image_length * backbone.num_codes
    text = step.num_rows * (step.text_columns - 1) * backbone.text_vocab_size if backbone.predicts_text else 0
    head = backbone.num_codes * backbone.dim * (step.precision.stream + step.precision.inside)
    return max(12 * image + 4 * text, 4 * text + image * step.precision.inside + head, 12 * text + 4 * image)


def story_bytes(encoder: StoryEncoder, backbone: Backbone, step: StepSizes) -> float | int:
    """Bytes that the story encoder keeps: its blocks over all tokens of a story, and three tensors before and after."""
    dim, precision = backbone.dim, step.precision
    columns = step.num_frames * step.text_columns + (0 if encoder.source is None else backbone.image_length)
    blocks = [cast(Block, block).kept(step.num_stories, columns, step) for block in encoder.blocks]
    ends = 6 * step.num_stories * columns * dim * precision.stream
    # What a reach adds to the scores: the numbers, the places that they are read from, and a mask.
    near = 0 if encoder.distances is None else step.num_stories * columns**2 * (4 * backbone.num_heads + 8 + 1)
    return sum(block.num_bytes(dim, precision) for block in blocks) + ends + near
