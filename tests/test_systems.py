"""Training: losses by hand, what moves and what does not, the schedule, probes, and learning itself."""

import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.reporting.sample_strips import SampleStrips
from storydalle.stories.data import BatchDataset
from storydalle.tokens.encoded_stories import EncodedStories
from storydalle.training.optimisation import (
    build_adamw,
    clip_groups,
    code_loss,
    text_loss,
    warmup_constant,
    warmup_cosine,
)
from storydalle.training.story_dalle_training import StoryDALLETraining
from storydalle.training.text_to_image_training import TextToImageTraining
from tests.tiny import CODEBOOK, TinyData, TinyStories, felt, tiny_batch, tiny_story_dalle, trainer

ALL_PARTS = {"num_prompt_tokens": 2, "num_story_tokens": 2}


def fit(system: torch.nn.Module, steps: int, tmp_path, **options) -> None:
    trainer(tmp_path, steps, **options).fit(system, TinyData(system.story_dalle))


def snapshot(story_dalle: StoryDALLE) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in story_dalle.named_parameters()}


def moved(story_dalle: StoryDALLE, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in story_dalle.named_parameters() if not torch.equal(value, before[name])}


def test_code_loss_of_two_codes_is_the_weighted_mean_counted_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [math.log(3.0), 0.0]]])
    codes = torch.tensor([[1, 0]])
    nats = [math.log(2.0), math.log(4 / 3)]
    assert code_loss(logits, codes).item() == pytest.approx(sum(nats) / 2)
    weighted = code_loss(logits, codes, torch.tensor([[3.0, 1.0]])).item()
    assert weighted == pytest.approx((3 * nats[0] + nats[1]) / 4)


def test_text_loss_counted_by_hand_ignores_padding():
    """The released loss counts padding (facts: M5)."""
    logits = torch.tensor([[[0.0, 0.0, 0.0], [9.0, 0.0, 0.0]]])
    targets = torch.tensor([[1, 2]])
    assert text_loss(logits, targets, pad_id=2).item() == pytest.approx(math.log(3.0))
    assert text_loss(logits, torch.tensor([[2, 2]]), pad_id=2).item() == 0


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    """The released warm-up is inverted (facts: T1)."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warmup_cosine(optimizer, warmup_steps=10, max_steps=100, floor=0.02)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == 1.0
    assert all(later < earlier for earlier, later in pairwise(rates[10:]))
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02)


def test_groups_are_clipped_each_on_its_own():
    small, large = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = torch.optim.SGD([{"params": [small], "name": "story"}, {"params": [large], "name": "base"}], lr=1.0)
    small.grad, large.grad = torch.tensor([0.3, 0.4]), torch.tensor([300.0, 400.0])
    norms = clip_groups(optimizer, 1.0)
    assert {name: round(norm.item(), 3) for name, norm in norms.items()} == {"story": 0.5, "base": 500.0}
    assert small.grad.norm().item() == pytest.approx(0.5)
    assert large.grad.norm().item() == pytest.approx(1.0, rel=1e-4)


def test_a_constant_rate_rises_and_stays():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    for warmup_steps, expected in ((0, [1.0] * 4), (2, [0.5, 1.0, 1.0, 1.0])):
        schedule = warmup_constant(optimizer, warmup_steps, max_steps=3)
        rates = []
        for _ in range(4):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert rates == pytest.approx(expected)
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def test_without_a_limit_gradients_stay_and_their_norm_is_told():
    parameter = torch.nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([300.0, 400.0])
    optimizer = torch.optim.SGD([{"params": [parameter], "name": "base"}], lr=1.0)
    assert clip_groups(optimizer, None)["base"].item() == pytest.approx(500.0)
    assert torch.equal(parameter.grad, torch.tensor([300.0, 400.0]))


def test_the_optimizer_has_the_rates_decay_and_betas_of_each_group():
    matrix, vector, names = (torch.nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (2,), (3, 2)))
    groups = {"base": [matrix, vector], "names": [names]}
    made = build_adamw(groups, {"base": 1e-3, "names": 2e-3}, 0.1, betas=(0.9, 0.99), undecayed=("names",))
    told = [(group["name"], group["lr"], group["weight_decay"], group["betas"]) for group in made.param_groups]
    betas = (0.9, 0.99)
    assert told == [("base", 1e-3, 0.1, betas), ("base", 1e-3, 0.0, betas), ("names", 2e-3, 0.0, betas)]


def test_settings_that_do_not_exist_or_need_a_library_are_refused_in_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    for setting, told in (
        ({"optimizer": "lion"}, "optimizer=lion is unknown; choose one of adamw, adamw8bit"),
        ({"optimizer": "adamw8bit"}, r'needs the package bitsandbytes: pip install "storydalle\[8bit\]"'),
        ({"schedule": "linear"}, "schedule=linear is unknown; choose one of cosine, constant"),
    ):
        with pytest.raises(ValueError, match=told):
            StoryDALLETraining(tiny_story_dalle(), **setting)


def test_without_its_losses_the_story_encoder_has_no_head_of_its_own():
    system = StoryDALLETraining(tiny_story_dalle(), bag_weight=0.0)
    assert system.bag_head is None
    system.training_step(tiny_batch(system.story_dalle, [0]), 0).backward()
    assert system.model.story_encoder.queries.grad.any()


def test_every_trainable_parameter_moves_and_is_saved(tmp_path):
    """The released retrofit is neither trained nor saved (facts: M1)."""
    made = tiny_story_dalle(**ALL_PARTS)
    system = StoryDALLETraining(made, max_steps=3, warmup_steps=1)
    before = snapshot(made)
    fit(system, 3, tmp_path, val_check_interval=1, limit_val_batches=1, num_sanity_val_steps=1)
    names = {name for name in before if name.startswith("model.")}
    assert felt(names) <= moved(made, before) <= names
    assert {f"story_dalle.{name}" for name in names} <= set(system.state_dict())
    made.save_pretrained(tmp_path / "saved")
    again = StoryDALLE.from_pretrained(tmp_path / "saved")
    for name, value in again.named_parameters():
        torch.testing.assert_close(value, made.get_parameter(name), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("tuning", ["retrofit", "prompt"])
def test_tuning_modes_leave_the_rest_of_the_backbone_frozen(tuning, tmp_path):
    made = tiny_story_dalle(**ALL_PARTS)
    before = snapshot(made)
    system = StoryDALLETraining(made, tuning=tuning, max_steps=3, warmup_steps=1)
    fit(system, 3, tmp_path)
    changed = moved(made, before)
    backbone = {name for name in changed if name.startswith("model.backbone.")}
    assert all("emb_" in name for name in backbone)
    assert bool(backbone) == (tuning == "prompt")
    assert felt(name for name in before if name.startswith("model.") and ".backbone." not in name) <= changed
    optimized = sum(len(group["params"]) for group in system.optimizers(use_pl_optimizer=False).param_groups)
    assert optimized == sum(p.requires_grad for p in system.parameters())


def test_warm_up_trains_the_story_encoder_alone(tmp_path):
    made = tiny_story_dalle()
    before = snapshot(made)
    fit(StoryDALLETraining(made, max_steps=9, story_warmup_steps=5), 3, tmp_path)
    changed = moved(made, before)
    assert any(name.startswith("model.story_encoder.") for name in changed)
    assert not any(name.startswith("model.source_attention.") for name in changed)
    assert all(name == "model.backbone.tok_emb_txt.weight" for name in changed if ".backbone." in name)


def test_codes_that_differ_from_the_source_weigh_more():
    made = tiny_story_dalle()
    system = StoryDALLETraining(made, changed_weight=3.0)
    batch = tiny_batch(made, [0, 1])
    logits = made.model(batch.tokens, batch.codes, batch.source[:, None], batch.mask)
    nats = -logits.image.log_softmax(-1).gather(-1, batch.codes.flatten(0, 1)[..., None]).squeeze(-1)
    weights = 1.0 + 2.0 * (batch.codes != batch.source[:, None]).flatten(0, 1)
    expected = (nats * weights).sum() / weights.sum()
    torch.testing.assert_close(system.losses(logits, batch)[0], expected)


def test_bag_loss_counts_only_codes_that_differ_from_the_source():
    made = tiny_story_dalle()
    system = StoryDALLETraining(made)
    batch = tiny_batch(made, [0, 1])
    story = made.model.encode_story(batch.tokens, batch.mask)
    same = batch._replace(codes=batch.source[:, None].expand_as(batch.codes))
    assert system.bag_loss(same, story).item() == 0
    assert system.bag_loss(batch, story).item() == pytest.approx(math.log(CODEBOOK), abs=0.5)


def test_dropped_conditions_are_a_function_of_the_step_and_of_the_right_share():
    made = tiny_story_dalle()
    system = StoryDALLETraining(made, source_dropout=0.5, caption_dropout=0.25)
    batch = tiny_batch(made, list(range(200)))
    first, second = system.drop_conditions(batch), system.drop_conditions(batch)
    assert torch.equal(first[0].tokens, second[0].tokens)
    assert torch.equal(first[1], second[1])
    empty = (first[0].tokens == made.caption_tokenizer.pad_id).flatten(1).all(1)
    assert 0.15 < empty.float().mean() < 0.35
    assert 0.4 < first[1].float().mean() < 0.6


def test_batches_of_one_step_have_draws_of_their_own(tmp_path):
    system = StoryDALLETraining(tiny_story_dalle(), source_dropout=0.5)
    trainer(tmp_path, 2, accumulate_grad_batches=4).fit(system, TinyData(system.story_dalle))
    batch = tiny_batch(system.story_dalle, list(range(32)))
    kept = [system.drop_conditions(batch, batch_idx)[1].tolist() for batch_idx in range(8)]
    assert len({tuple(row) for row in kept[:4]}) == 4
    assert kept[:4] == kept[4:], "a function of the step and of the batch's place in it"


def test_validation_logs_a_probe_of_source_and_captions_that_reading_them_moves(tmp_path):
    made = tiny_story_dalle()
    moods = {"probes": {"mood": ("mood", 1)}, "source_probes": {"other": ("mood", 1)}}
    system = StoryDALLETraining(made, max_steps=3, **moods)
    run = trainer(tmp_path, 3, limit_val_batches=2)
    found = run.validate(system, TinyData(made), verbose=False)[0]
    names = {"val/nats", "val/probe_source", "val/probe_captions", "val/nats_mood", "val/probe_captions_mood"}
    assert names <= set(found)
    assert found["val/probe_source"] == found["val/probe_source_other"] == 0  # a fresh retrofit reads no source
    for attention in made.model.source_attention.values():
        torch.nn.init.normal_(attention.proj.weight)
    found = run.validate(system, TinyData(made), verbose=False)[0]
    assert found["val/probe_source"] != 0 != found["val/probe_source_other"]
    assert found["val/probe_captions"] != 0


def crossed_stories(story_dalle: StoryDALLE) -> BatchDataset:
    """Two stories' captions with each of two sources, in four stories of codes: one alone does not tell which."""
    whole = tiny_batch(story_dalle, [0, 1, 2, 3])
    told, shown = torch.tensor([0, 1, 0, 1]), torch.tensor([0, 1, 1, 0])
    whole = whole._replace(tokens=whole.tokens[told], descriptions=whole.descriptions[told], source=whole.source[shown])
    return BatchDataset(lambda indices, _: rows_of(whole, indices), np.ones(4))


def rows_of(batch: EncodedStories, rows: list[int]) -> EncodedStories:
    return EncodedStories(
        *(
            {name: each[rows] for name, each in value.items()} if isinstance(value, dict) else value[rows]
            for value in batch
        )
    )


def test_the_model_overfits_a_few_stories_and_then_needs_source_and_story(tmp_path):
    made = tiny_story_dalle()
    rates = {"learning_rate": 3e-3, "source_learning_rate": 3e-3, "story_learning_rate": 3e-3}
    system = StoryDALLETraining(made, max_steps=150, warmup_steps=5, **rates)
    data = TinyData(made, batch_size=4, num_items=4)
    data.dataset = crossed_stories(made)
    trainer(tmp_path, 150).fit(system, data)
    found = trainer(tmp_path, 1, limit_val_batches=1).validate(system, data, verbose=False)[0]
    assert found["val/nats"] < 2
    assert found["val/probe_source"] > 1
    assert found["val/probe_captions"] > 1


def test_text_to_image_learns_and_leaves_the_tokenizer_alone(tmp_path):
    made = tiny_story_dalle(source_blocks="none", story_depth=0)
    before = snapshot(made)
    system = TextToImageTraining(made, learning_rate=3e-3, warmup_steps=5, max_steps=60)
    data = TinyData(made, batch_size=2, num_items=2)
    first = trainer(tmp_path, 1, limit_val_batches=1).validate(system, data, verbose=False)[0]["val/loss_image"]
    trainer(tmp_path, 60).fit(system, data)
    last = trainer(tmp_path, 1, limit_val_batches=1).validate(system, data, verbose=False)[0]["val/loss_image"]
    assert first == pytest.approx(math.log(CODEBOOK), abs=0.2)
    assert last < first - 1
    assert not any(name.startswith("image_tokenizer.") for name in moved(made, before))


def test_sample_strips_are_drawn_once_a_step_however_many_batches_it_has(tmp_path: Path) -> None:
    made = tiny_story_dalle()
    strips = SampleStrips(made, TinyStories(2), tmp_path / "strips", every=2, num_stories=1)
    drawn = []
    strips.draw = lambda story: drawn.append(story.id) or Image.new("RGB", (4, 4))  # type: ignore[method-assign]
    fit = trainer(tmp_path, 4, [strips], accumulate_grad_batches=3)
    fit.fit(StoryDALLETraining(made, max_steps=4), TinyData(made))
    assert sorted(path.name for path in (tmp_path / "strips").iterdir()) == [
        "step-000002-story-1.png",
        "step-000004-story-1.png",
    ]
    assert len(drawn) == 2
