"""The card of a shipped image-text network: which facts of a ToonSV frame it notices in a description.

A frame is compared with its own description and with a description in which one fact is changed. The wording has its
own random stream, so the two texts differ only in that fact.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from storydalle.files.json_values import as_object
from storydalle.files.reading import read_object
from storydalle.files.records import git_state, sha256_of_file, versions, write_record
from storydalle.metrics.networks.clip import WEIGHTS, ImageTextNetwork, TinyCLIP
from storydalle.metrics.text_image import ClipT, EmbeddedCaptions, RPrecision
from storydalle.stories.images import to_tensor
from storydalle.stories.story import Story
from storydalle.stories.toon import (
    ACTIONS,
    GUEST,
    HATS,
    PROPS,
    SETTINGS,
    TINTS,
    UNSEEN_LOOKS,
    FrameFacts,
    Guest,
    StoryFacts,
    ToonSV,
)
from storydalle.stories.toon.captions import descriptions_of

KINDS = ("who", "where", "action", "prop", "hat", "light", "look")


def other(rng: np.random.Generator, number: int, value: int, first: int = 0) -> int:
    """One of ``first`` to ``number - 1``, but not ``value``."""
    return int(rng.choice([i for i in range(first, number) if i != value]))


def changed_frame(frame: FrameFacts, kind: str, rng: np.random.Generator) -> FrameFacts | None:
    """The frame with another character (in the same clothes), place, action, prop or hat; None if it has none."""
    if kind == "where":
        return replace(frame, setting=other(rng, len(SETTINGS), frame.setting))
    if kind == "action":
        return replace(frame, action=other(rng, len(ACTIONS), frame.action))
    if kind == "prop" and frame.prop:
        return replace(frame, prop=other(rng, len(PROPS), frame.prop, first=1))
    if kind == "hat" and any(frame.hats):
        hats = tuple(other(rng, len(HATS), hat, first=1) if hat else 0 for hat in frame.hats)
        return replace(frame, hats=hats)
    named = [character for character in frame.cast if character != GUEST]
    if kind == "who" and named:
        old, new = int(rng.choice(named)), int(rng.choice([i for i in range(GUEST) if i not in named]))
        renamed = {old: new, new: old}
        cast = tuple(renamed.get(character, character) for character in frame.cast)
        hats = tuple(frame.hats[renamed.get(character, character)] for character in range(len(frame.hats)))
        return replace(frame, cast=cast, hats=hats)
    return None


def changed_story(facts: StoryFacts, at: int, kind: str, rng: np.random.Generator) -> StoryFacts | None:
    """The story with one fact of frame ``at`` (0 is the source) changed; None if the frame has no such fact."""
    frame = facts.frames[at]
    if kind == "light":
        return replace(facts, tint=other(rng, len(TINTS), facts.tint))
    if kind == "look":
        if facts.guest is None or GUEST not in frame.cast:
            return None
        own = facts.guest.look
        looks = [look for look in UNSEEN_LOOKS if all(a != b for a, b in zip(look, own, strict=True))]
        return replace(facts, guest=Guest(facts.guest.name, *looks[int(rng.integers(len(looks)))]))
    changed = changed_frame(frame, kind, rng)
    if changed is None:
        return None
    frames = [*facts.frames[:at], changed, *facts.frames[at + 1 :]]
    return replace(facts, source=frames[0], targets=tuple(frames[1:]))


def noticed(network: ImageTextNetwork, stories: ToonSV, seed: int = 0) -> dict[str, dict[str, float]]:
    """For each kind of change, the share of frames that are nearer to their own description than to the changed one.

    Sources included; ``chance`` is one half, ``frames`` the number of frames with such a fact.
    """
    counts = {kind: [0, 0] for kind in KINDS}
    for index in range(len(stories)):
        facts, story = stories.facts(index), stories[index]
        seen = network.embed_images(frames_of(story))
        own = (seen * network.embed_captions(story.descriptions)).sum(-1)
        rng = np.random.default_rng([seed, index])
        for kind in KINDS:
            variants = [changed_story(facts, at, kind, rng) for at in range(len(facts.frames))]
            told = [(at, descriptions_of(variant)[at]) for at, variant in enumerate(variants) if variant is not None]
            if told:
                at = [frame for frame, _ in told]
                wrong = (seen[at] * network.embed_captions([text for _, text in told])).sum(-1)
                counts[kind][0] += int((own[at] > wrong).sum())
                counts[kind][1] += len(told)
    return {kind: {"accuracy": right / of, "frames": of} for kind, (right, of) in counts.items() if of}


def frames_of(story: Story) -> Tensor:
    """A story's frames in [-1, 1], the source first."""
    return to_tensor(np.concatenate([story.source[None], story.frames]))


def retrieval(network: ImageTextNetwork, stories: Sequence[Story]) -> dict[str, dict[str, float]]:
    """R-precision among a hundred and CLIP-T of real frames, with descriptions (sources too) and with captions."""
    embeddings = {story.id: network.embed_images(frames_of(story)) for story in stories}
    scores = {}
    for name, first in (("descriptions", 0), ("captions", 1)):
        texts = {story.id: story.descriptions if name == "descriptions" else story.captions for story in stories}
        captions = EmbeddedCaptions.of(texts, network.embed_captions)
        metrics = (RPrecision(captions), ClipT(captions))
        for story_id, seen in embeddings.items():
            for metric in metrics:
                metric.update(seen[None, first:], torch.ones(1, len(seen) - first, dtype=torch.bool), [story_id])
        scores[name] = metrics[0].compute() | metrics[1].compute()
    return scores


def publish_clip(
    run: Path | str, folder: Path | str, checks: Mapping[str, ToonSV], remarks: str | None = None
) -> dict[str, object]:
    """Copy a finished run's network to ``folder``, and write its ``card.json``: recipe, data and scores.

    Scores are those of the saved weights, read back on the CPU, on real frames of each of ``checks``. ``remarks`` add
    what the settings of the run do not say.
    """
    run, folder = Path(run), Path(folder)
    TinyCLIP.from_pretrained(run / "model").save_pretrained(folder)
    network = TinyCLIP.from_pretrained(folder)
    trained = read_object(run / "metrics.json")
    counts, data = as_object(trained["n"]), as_object(as_object(trained["protocol"])["data"])
    commit, dirty = git_state(Path(__file__))
    card = {
        "task": "compares ToonSV's frames with texts",
        "recipe": {
            "experiment": trained["config"],
            **counts,
            "seeds": trained["seeds"],
            "remarks": remarks,
        },
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": data["train"],
        "data_versions": {name: stories.fingerprint() for name, stories in checks.items()},
        "num_stories": {name: len(stories) for name, stories in checks.items()},
        "retrieval_among_100": {name: retrieval(network, stories[:]) for name, stories in checks.items()},
        "nearer_than_with_one_fact_changed": {name: noticed(network, stories) for name, stories in checks.items()},
        "weights_sha256": sha256_of_file(folder / WEIGHTS),
        "device": trained["device"],
        "commit": commit,
        "dirty": dirty,
        "versions": versions(),
    }
    write_record(folder / "card.json", card)
    return card
