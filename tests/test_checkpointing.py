"""Activation checkpointing: the same losses and gradients from blocks that keep nothing but their input."""

import pytest
import torch
from torch import Tensor

from storydalle.models.backbones.dalle import Block
from storydalle.models.backbones.mega import DecoderLayer, EncoderLayer
from storydalle.models.story_dalle import sampling
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.sampling import FrameKey
from storydalle.training.story_dalle_training import StoryDALLETraining
from tests.test_memory import batch, small


def opened(kind: str) -> StoryDALLE:
    """With source attention that says something, so that its gradients are of all its weights."""
    made = small(kind, prompts=2)
    for name, parameter in made.model.source_attention.named_parameters():
        if name.endswith("proj.weight"):
            torch.nn.init.normal_(parameter, std=0.02)
    return made


def gradients(kind: str, tuning: str, recompute: bool) -> dict[str, Tensor]:
    made = opened(kind)
    text_weight = 1.0 if kind == "dalle" else 0.0
    options = {"text_weight": text_weight, "source_dropout": 0.3, "activation_checkpointing": recompute}
    system = StoryDALLETraining(made, tuning=tuning, **options)
    torch.manual_seed(1)
    system.training_step(batch(made, 2, 3), 0).backward()
    return {name: p.grad for name, p in made.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tuning", ["full", "retrofit"])
@pytest.mark.parametrize("kind", ["dalle", "mega"])
def test_gradients_are_those_without_it(kind: str, tuning: str) -> None:
    plain, again = (gradients(kind, tuning, recompute) for recompute in (False, True))
    assert set(plain) == set(again)
    assert any("source_attention" in name for name in plain)
    for name, expected in plain.items():
        torch.testing.assert_close(again[name], expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("kind", ["dalle", "mega"])
def test_every_block_is_computed_twice_in_training_and_once_otherwise(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[type] = []
    for block in (Block, DecoderLayer, EncoderLayer):
        plain = block.forward

        def counted(self, *inputs, plain=plain, block=block, **options):  # type: ignore[no-untyped-def]
            calls.append(block)
            return plain(self, *inputs, **options)

        monkeypatch.setattr(block, "forward", counted)
    made = opened(kind)
    made.model.story_encoder = None
    StoryDALLETraining(made, text_weight=0.0, activation_checkpointing=True)
    blocks = 8 if kind == "mega" else 4
    data = batch(made, 1, 2)
    made.model(data.tokens, data.codes, data.source[:, None], data.mask).image.sum().backward()
    assert len(calls) == 2 * blocks
    calls.clear()
    with torch.no_grad():
        made.model(data.tokens, data.codes, data.source[:, None], data.mask)
    assert len(calls) == blocks
    calls.clear()
    monkeypatch.setattr(sampling, "window_for", lambda *_: 1)
    made.draw(data.tokens[:, :1], data.source, [FrameKey(0, 0, 0)])
    decoder = [block for block in calls if block is not EncoderLayer]
    assert len(decoder) == 4 * made.model.backbone.image_length, "drawing computes nothing twice"
