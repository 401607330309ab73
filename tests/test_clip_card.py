"""The shipped image-text network: its knowledge of ToonSV, and what its card tells of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import storydalle
from storydalle.metrics.networks.clip import TinyCLIP, open_image_text_network
from storydalle.metrics.networks.clip_card import KINDS, changed_story, frames_of, noticed, retrieval
from storydalle.metrics.text_image import ClipT, EmbeddedCaptions, RPrecision
from storydalle.stories.toon import ToonSV
from storydalle.stories.toon.captions import descriptions_of

SHIPPED = Path(storydalle.__file__).parent / "zoo" / "clip"


@pytest.fixture(scope="module")
def shipped() -> TinyCLIP:
    if not (SHIPPED / "config.json").is_file():
        pytest.skip("no weights ship yet")
    network = open_image_text_network(SHIPPED)
    assert isinstance(network, TinyCLIP)
    return network


def test_the_shipped_network_is_small() -> None:
    if not SHIPPED.is_dir():
        pytest.skip("no weights ship yet")
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) < 2 * 2**20


def test_the_shipped_network_finds_real_frames_descriptions_and_no_others(shipped: TinyCLIP) -> None:
    stories = ToonSV("test", 40)
    texts = {outline.id: outline.descriptions for outline in map(stories.outline, range(40))}
    captions = EmbeddedCaptions.of(texts, shipped.embed_captions)
    shown = stories[:8]
    frames = torch.stack([shipped.embed_images(frames_of(story)) for story in shown])
    right, shuffled = (RPrecision(captions), ClipT(captions)), (RPrecision(captions), ClipT(captions))
    for metrics, seen in ((right, frames), (shuffled, frames.roll(1, 0))):
        for metric in metrics:
            metric.update(seen, torch.ones(8, 5, dtype=torch.bool), [story.id for story in shown])
    assert right[0].compute()["r_precision"] > 0.9
    assert shuffled[0].compute()["r_precision"] < 0.1
    cosines = right[1].compute()
    assert cosines["clip_t"] > cosines["clip_t_chance"] + 0.3
    assert shuffled[1].compute()["clip_t"] < cosines["clip_t_chance"] + 0.15


def test_the_shipped_network_notices_a_changed_fact(shipped: TinyCLIP) -> None:
    found = noticed(shipped, ToonSV("test", 8))
    assert set(found) == set(KINDS)
    for kind in ("who", "where", "action", "prop"):
        assert found[kind]["accuracy"] > 0.85, kind


def test_the_shipped_card_tells_the_scores_of_the_shipped_weights(shipped: TinyCLIP) -> None:
    card = json.loads((SHIPPED / "card.json").read_text())
    assert card["weights_sha256"] == shipped.sha256
    assert card["parameters"] == sum(parameter.numel() for parameter in shipped.parameters())
    assert set(card["retrieval_among_100"]) == {"val", "test", "unseen"}


def test_a_changed_story_differs_in_one_fact_of_one_description() -> None:
    stories = ToonSV("val", 6)
    found = set()
    for index in range(6):
        facts = stories.facts(index)
        own = descriptions_of(facts)
        for kind in KINDS:
            for at in range(len(facts.frames)):
                changed = changed_story(facts, at, kind, np.random.default_rng(at))
                if changed is None:
                    continue
                other = descriptions_of(changed)
                found.add(kind)
                assert other[at] != own[at]
                if kind not in ("light", "look"):
                    assert other[:at] == own[:at] and other[at + 1 :] == own[at + 1 :]
                if kind == "look":
                    assert changed.guest is not None and changed.guest.name in other[at]
    assert found == set(KINDS)


def test_real_frames_retrieval_is_told_for_descriptions_and_captions(shipped: TinyCLIP) -> None:
    scores = retrieval(shipped, ToonSV("test", 36)[:])
    assert scores["descriptions"]["r_precision"] > scores["captions"]["r_precision"] > 0.2
