"""README.md of a saved model, from its record: what a person reads first in a folder or on the hub."""

from collections.abc import Mapping
from typing import Any

from storydalle.models import licences

RECIPE = {"num_steps": "{} steps", "seed": "seed {}", "story_window": "{} captions a story"}  # entries of the record
TEMPLATE = """---
{license}library_name: storydalle
pipeline_tag: text-to-image
---
# {name}

{what}

| | |
| --- | --- |
{rows}
"""
USE = """
```python
from storydalle import {kind}

drawn = {kind}.from_pretrained("FOLDER or OWNER/NAME").generate(["The first caption.", "The second."], source)
drawn.frames[0].show()
```

`card.json` holds every setting that it was made with and, where it was scored, the scores with their protocol.
"""


def model_card(name: str, kind: str, summary: Mapping[str, str], card: Mapping[str, Any]) -> str:
    """The text: what ``summary`` tells of the network and ``card`` of how it was made.

    ``kind`` is the class that opens it. ``name`` is for a model that neither an experiment nor a released format names.
    """
    return front("Continues a story: a source frame and captions in, one frame a caption out.", name, summary, card) + (
        USE.format(kind=kind)
    )


def front(what: str, name: str, summary: Mapping[str, str], card: Mapping[str, Any]) -> str:
    """The beginning of any README, that of an image tokenizer's folder too: ``what`` it does, and its facts."""
    name = card.get("experiment") or card.get(licences.CONVERTED, {}).get("format") or name
    rows = "\n".join(f"| {fact} | {value} |" for fact, value in {**summary, **origin(card)}.items())
    named = f"license: {card['license']}\n" if "license" in card else ""
    return TEMPLATE.format(license=named, name=name, what=what, rows=rows)


def origin(card: Mapping[str, Any]) -> dict[str, str]:
    """How a model came about, as far as its record tells."""
    data, made = card.get("data", {}), card.get(licences.CONVERTED, {})
    base = card.get(licences.DERIVED, {})
    told = {
        "recipe": [f"`storydalle train experiment={card.get('experiment')}`" * ("experiment" in card)],
        "data": [data.get("name", "")],
        "converted": [f"`storydalle convert format={made.get('format')}`" * bool(made), *made.get("files", [])],
        "derived from": [f"weights of format={base.get('format')}" * bool(base), *base.get("files", [])],
        "licences": [licences.told(card)],
        "commit": [f"{card.get('commit') or ''}{' and changes on it' if card.get('dirty') else ''}"],
    }
    told["recipe"] += [text.format(card[key]) for key, text in RECIPE.items() if key in card]
    number = data.get("train", {}).get("num_stories")
    told["data"] += [f"{number} training stories"] * bool(number)
    return {fact: text for fact, parts in told.items() if (text := ", ".join(filter(None, parts)))}
