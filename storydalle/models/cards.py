"""README.md of a saved model, made from its record (``card.json``), for people and for the hub.

The front matter is for the hub: licence, tags, and a ``model-index`` if the record has scores.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from storydalle.files.whole import write_text
from storydalle.models import licences
from storydalle.models.licences import part_of

RECIPE = {"num_steps": "{} steps", "seed": "seed {}", "story_window": "{} captions a story"}  # entries of the record
TASK = "text-to-image"  # by the hub's list of tasks
TAGS = ["story-continuation", "story-visualization"]
# Of all scores, which card.json holds, those that the hub shows. Metrics declare them in a room that imports this one;
# a test compares the two.
SCORES = {
    "character_micro_f1": "character F1",
    "frame_accuracy": "frame accuracy",
    "fid": "FID",
    "fsd": "story FD",
    "toon_fd": "toon-FD",
    "clip_t": "CLIP-T",
    "r_precision": "R-precision",
}
FRONT = ["license", "library_name", "pipeline_tag", "tags"]
TEMPLATE = """---
{{ card_data }}
---
# {{ name }}

{{ purpose }}

| | |
| --- | --- |
{% for fact, value in facts.items() -%}
| {{ fact }} | {{ value }} |
{% endfor %}
{% if kind -%}
```python
from storydalle import {{ kind }}

drawn = {{ kind }}.from_pretrained("FOLDER or OWNER/NAME").generate(["The first caption.", "The second."], source)
drawn.frames[0].show()
```

`card.json` holds every setting that it was made with and, where it was scored, the scores with their protocol.
{% endif -%}
"""


def model_card(name: str, kind: str, summary: Mapping[str, str], card: Mapping[str, object]) -> str:
    """The README of a model that draws stories.

    ``kind`` is the class that opens it, ``summary`` describes the network, and ``card`` how it was made. ``name`` is
    used if the card names neither an experiment nor a released format.
    """
    purpose = "Continues a story: a source frame and captions in, one frame a caption out."
    results = list(results_of(name, card))
    data = ModelCardData(
        license=licence_of(card),
        library_name="storydalle",
        pipeline_tag=TASK,
        tags=TAGS,
        eval_results=results or None,
        model_name=name if results else None,  # a folder may yet be renamed: its name is told beside scores alone
    )
    return rendered(data, purpose, name, summary, card, kind)


def tokenizer_card(name: str, summary: Mapping[str, str], card: Mapping[str, object]) -> str:
    """The README of an image tokenizer, which draws nothing by itself."""
    data = ModelCardData(license=licence_of(card), library_name="storydalle", tags=["image-tokenizer"])
    return rendered(data, "An image tokenizer: pictures to codes and back.", name, summary, card)


def rendered(
    data: ModelCardData, purpose: str, name: str, summary: Mapping[str, str], card: Mapping[str, object], kind: str = ""
) -> str:
    data.to_yaml(original_order=FRONT)  # which reorders the data themselves: the licence stands first
    name = str(card.get("experiment") or part_of(card, licences.CONVERTED).get("format") or name)
    facts = {**summary, **origin(card)}
    made = ModelCard.from_template(data, template_str=TEMPLATE, name=name, purpose=purpose, facts=facts, kind=kind)
    return f"{str(made).rstrip()}\n"


def add_results(readme: Path, name: str, card: Mapping[str, object]) -> None:
    """Put the scores of a record into the front matter of a README; its text stays."""
    made = ModelCard.load(readme)
    made.data.model_name, made.data.eval_results = name, list(results_of(name, card)) or None
    write_text(readme, str(made))


def results_of(name: str, card: Mapping[str, object]) -> Iterator[EvalResult]:
    """The scores to show, from the model's row (``name``, or a path that ends in it) of each split."""
    dataset = str(part_of(card, "data").get("name"))
    for split, row, scores in rows_of(card.get("scores")):
        for score, words in SCORES.items() if Path(row).name == name else ():
            value = scores.get(score)
            if isinstance(value, int | float) and math.isfinite(value):
                yield EvalResult(
                    task_type=TASK,
                    task_name="story continuation",
                    dataset_type=dataset,
                    dataset_name=dataset,
                    dataset_split=split,
                    metric_type=score,
                    metric_name=words,
                    metric_value=round(value, 4),
                )


def rows_of(scores: object) -> Iterator[tuple[str, str, Mapping[str, object]]]:
    """Split, row and scores of each row of a card; entries of another form are skipped."""
    for split, rows in scores.items() if isinstance(scores, Mapping) else ():
        for row, found in rows.items() if isinstance(rows, Mapping) else ():
            if isinstance(found, Mapping):
                yield split, row, found


def licence_of(card: Mapping[str, object]) -> str | None:
    licence = card.get("license")
    return None if licence is None else str(licence)


def files_of(made: Mapping[str, object]) -> list[str]:
    """The files that a model was converted from."""
    files = made.get("files")
    return [str(file) for file in files] if isinstance(files, list) else []


def origin(card: Mapping[str, object]) -> dict[str, str]:
    """Facts about how a model was made, as far as its record says."""
    data, made, base = (part_of(card, key) for key in ("data", licences.CONVERTED, licences.DERIVED))
    told = {
        "recipe": [f"`storydalle train experiment={card.get('experiment')}`" * ("experiment" in card)],
        "data": [str(data.get("name", ""))],
        "converted": [f"`storydalle convert format={made.get('format')}`" * bool(made), *files_of(made)],
        "derived from": [f"weights of format={base.get('format')}" * bool(base), *files_of(base)],
        "licences": [licences.told(card)],
        "commit": [f"{card.get('commit') or ''}{' and changes on it' if card.get('dirty') else ''}"],
    }
    told["recipe"] += [text.format(card[key]) for key, text in RECIPE.items() if key in card]
    number = part_of(data, "train").get("num_stories")
    told["data"] += [f"{number} training stories"] * bool(number)
    return {fact: text for fact, parts in told.items() if (text := ", ".join(filter(None, parts)))}
