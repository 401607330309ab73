"""Licences of released weights, as their authors state them, and how models that are made from them keep them.

From the licence files and model cards of the programs, November 2026.
"""

from collections.abc import Mapping, Sequence

UNSTATED = "not stated by its authors"
TAMING = f"{UNSTATED} (its program is under MIT)"
STAGE2 = "CC-BY-NC-SA 4.0 (not for commercial use; what is built on it must be shared under the same licence)"
# Of every format the licence of each part.
TERMS: Mapping[str, Mapping[str, str]] = {
    "mindalle": {
        "minDALL-E, stage 1": f"{UNSTATED} (its program is under Apache 2.0)",
        "minDALL-E, stage 2": STAGE2,
    },
    "storydalle": {
        "released StoryDALL-E": f"{UNSTATED} (its program is under MIT)",
        "minDALL-E, stage 2, which it was tuned from": STAGE2,
    },
    "dalle-mega": {"DALL-E Mega": "Apache 2.0", "its detokenizer": UNSTATED, "taming's VQGAN": TAMING},
    "dalle-mini": {"DALL-E mini": "Apache 2.0", "its detokenizer": UNSTATED, "taming's VQGAN": TAMING},
    "taming-vqgan": {"taming's VQGAN": TAMING},
    "openai-dvae": {"OpenAI's dVAE": "a modified MIT licence"},
}
FLAVA = {"FLAVA's image codebook": "BSD 3-Clause"}  # an encoder in place of OpenAI's
# What the hub calls the licence of the whole, by its own list; "other" for one that is not on it, or not stated.
HUB = {"mindalle": "cc-by-nc-sa-4.0"}
CONVERTED, DERIVED = "converted", "derived_from"  # entries of a card


def part_of(card: Mapping[str, object], key: str) -> Mapping[str, object]:
    """Return a part of a card that holds entries of its own; it is empty where the card has no such part."""
    part = card.get(key)
    return part if isinstance(part, Mapping) else {}


def converted(format: str, files: Sequence[str], is_flava: bool = False) -> dict[str, object]:
    """The entries of a card about a conversion: the format, the files, and the licences of the parts."""
    licences = {**TERMS[format], **(FLAVA if is_flava else {})}
    return {
        "license": HUB.get(format, "other"),
        CONVERTED: {"format": format, "files": list(files), "licences": licences},
    }


def inherited(card: Mapping[str, object]) -> dict[str, object]:
    """Entries that a model takes from the card of its base; none if the base was trained from scratch."""
    made = card.get(DERIVED) or card.get(CONVERTED)
    if not isinstance(made, Mapping):
        return {}
    format, kept = str(made.get("format")), made.get("licences")
    licences = kept if isinstance(kept, Mapping) and kept else TERMS.get(format, {})
    return {
        "license": card.get("license") or HUB.get(format, "other"),
        DERIVED: {**made, "licences": dict(licences)},
    }


def told(card: Mapping[str, object]) -> str:
    """The licences of a converted model, or of the base of a trained one, in one line; empty if there are none.

    For older cards without licences, those of their format.
    """
    licences = part_of(part_of(inherited(card), DERIVED), "licences")
    return "; ".join(f"{part}: {licence}" for part, licence in licences.items())
