"""bench=train: both steps compute the same loss and, in float32, take the same first step but for clipping."""

import copy
import json
from pathlib import Path

import pytest
import torch

from storydalle.bench import train_speed
from storydalle.bench.released_training import ReleasedTraining
from storydalle.bench.shipped import stories_for
from storydalle.commands.main import main
from storydalle.models.story_dalle.model import StoryDALLE
from tests.tiny import tiny_story_dalle


@pytest.fixture
def model() -> StoryDALLE:
    made = tiny_story_dalle(resolution=72)
    torch.manual_seed(1)
    for parameter in made.model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.2)  # the source attention is no identity
    return made


def test_both_steps_have_equal_losses_and_gradients(model: StoryDALLE) -> None:
    batch = train_speed.encoded(model, stories_for(model, "train", 3))
    assert len({tuple(row) for row in batch.codes.flatten(0, 1).tolist()}) > 1
    assert batch.tokens.eq(model.model.backbone.pad_id or 0).any(), "there is padding to compute"
    system = train_speed.our_training(copy.deepcopy(model), seed=0)
    released = ReleasedTraining(copy.deepcopy(model.model), train_speed.TEXT_WEIGHT)
    assert train_speed.loss_of(system, batch) == pytest.approx(released.loss(batch).item(), abs=1e-5)
    with train_speed.unheard(system):
        system.training_step(batch, 0).backward()
    released.loss(batch).backward()
    for name, parameter in system.model.named_parameters():
        theirs = released.model.get_parameter(name).grad
        if parameter.grad is None or theirs is None:
            assert parameter.grad is theirs, name
        else:
            torch.testing.assert_close(parameter.grad, theirs, atol=1e-5, rtol=1e-3, msg=name)


def test_a_released_step_trains(model: StoryDALLE) -> None:
    batch = train_speed.encoded(model, stories_for(model, "train", 1))
    released = ReleasedTraining(model.model, train_speed.TEXT_WEIGHT)
    before = released.loss(batch).item()
    assert len(released.seconds_of_steps(batch, 6)) == 5
    assert released.loss(batch).item() < before


def test_the_table_has_the_released_step_ours_and_the_precision_of_auto(
    model: StoryDALLE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model.save_folder("tiny")
    assert main(["bench", "bench=train", "model=tiny", "batch_size=2", "rounds=2", "out=out"]) == 0
    record = json.loads(Path("out/metrics.json").read_text())
    values, rows = record["values"]["train"], record["rows"]["train"]
    auto = f"ours, precision auto: {values['precision']['auto']}"
    assert [row["variant"] for row in rows][:4] == [train_speed.RELEASED, train_speed.SINGLE, auto, "floor in fp32"]
    assert [row["timing"]["number"] for row in rows][:3] == [2 * 2] * 3
    assert values["loss"][train_speed.RELEASED] == pytest.approx(values["loss"][train_speed.SINGLE], abs=1e-5)
    assert "a step of 2 stories of 4 frames" in capsys.readouterr().out
