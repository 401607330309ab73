"""The least that drawing codes reads and multiplies."""

from typing import cast

from storydalle.bench.floors import Floor
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.sampling import Prompt


def weights_a_step(model: RetrofittedDALLE, prompt: Prompt) -> int:
    """Weights that every step needs: those of the blocks, of the queries and outputs to a source, the codes' head."""
    backbone = cast(DALLE, model.backbone)
    own = sum(parameter.numel() for parameter in [*backbone.blocks.parameters(), *backbone.head_img.parameters()])
    return own + 2 * num_attending(model, prompt) * backbone.dim**2


def num_attending(model: RetrofittedDALLE, prompt: Prompt) -> int:
    """Blocks that attend to a source."""
    return 0 if prompt.source is None else len(model.source_attention)


def step_floor(
    model: RetrofittedDALLE, prompt: Prompt, num_candidates: int, bytes_a_weight: float | None = None
) -> Floor:
    """The mean step of a frame: each weight is read once, in float32, and multiplied with one column of each row.

    With ``bytes_a_weight`` the weights are read as a path keeps them, and so are the keys and values of the source and
    of the columns so far.
    """
    weights, num_rows = weights_a_step(model, prompt), len(prompt.keys) * num_candidates
    operations = 2 * weights * num_rows
    if bytes_a_weight is None:
        return Floor(4 * weights, operations)
    backbone = model.backbone
    num_prefix = 0 if prompt.story is None else prompt.story.shape[2]
    column = backbone.column_bytes
    # A frame's candidates share its prompt; half of the codes are there in the mean step.
    shared = len(prompt.keys) * (num_prefix + words_read(model, prompt))
    cache = column * (shared + num_rows * backbone.image_length / 2)
    source_numbers = 0 if prompt.source is None else 2 * prompt.source.numel() * backbone.dim
    source = 4 * source_numbers * num_attending(model, prompt)
    return Floor(bytes_a_weight * weights + cache + source, operations)


def words_read(model: RetrofittedDALLE, prompt: Prompt) -> int:
    """Columns of the captions that have to be computed: not those that are padding in every row."""
    return len(model.backbone.used_columns(prompt.tokens.flatten(0, 1)))


def story_floor(
    model: RetrofittedDALLE, prompt: Prompt, num_candidates: int, bytes_a_weight: float | None = None
) -> Floor:
    """All steps of the frames; the first one reads the prompts, once for all candidates."""
    step, length = step_floor(model, prompt, num_candidates, bytes_a_weight), model.backbone.image_length
    prompts = 2 * weights_a_step(model, prompt) * len(prompt.keys) * words_read(model, prompt)
    return Floor(step.num_bytes * length, step.operations * (length - 1) + prompts)
