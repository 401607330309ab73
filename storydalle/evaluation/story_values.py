"""The scores of single stories, in ``stories.safetensors`` beside an evaluation's ``metrics.json``.

One table (scores, stories) for each row of the evaluation, and the names of the scores. A report combines several seeds
with them, and tests differences story by story.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from storydalle.files.json_values import are_texts
from storydalle.files.text import parsed
from storydalle.files.whole import replaced_when_whole

STORIES = "stories.safetensors"
StoryValues = Mapping[str, Float[np.ndarray, " b"]]  # by score


def write_story_values(path: Path, rows: Mapping[str, StoryValues]) -> None:
    """Write the values of each row; stories are in the same order in all of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tables = {row: np.stack(list(values.values())).astype(np.float32) for row, values in rows.items() if values}
    names = {row: json.dumps(list(values)) for row, values in rows.items() if values}
    with replaced_when_whole(path) as file:
        file.write(save(tables, names))


def read_story_values(path: Path) -> dict[str, dict[str, Float[np.ndarray, " b"]]]:
    """The values of each row, by score; ValueError, naming the file, if it holds anything else."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = {row: parsed(text) for row, text in (file.metadata() or {}).items()}
            tables = {row: file.get_tensor(row) for row in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    found = {}
    for row, table in tables.items():
        scores = names.get(row)
        if not are_texts(scores) or table.ndim != 2 or len(table) != len(scores) or table.dtype != np.float32:
            raise ValueError(f"{path} holds no table of scores and stories for {row!r}")
        found[row] = dict(zip(scores, table.astype(np.float64), strict=True))
    return found
