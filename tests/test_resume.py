"""A killed run, resumed, equals the run that was never killed: weights, averages, optimizer, order and draws."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from storydalle.stories.data import StepSampler
from storydalle.training.callbacks import RunningMean
from storydalle.training.state import load_state, save_state
from storydalle.training.story_dalle_training import StoryDALLETraining
from tests.tiny import TinyData, tiny_story_dalle, trainer


def run(folder: Path, steps: int, resume: bool = False) -> StoryDALLETraining:
    made = tiny_story_dalle()
    system = StoryDALLETraining(
        made, max_steps=12, warmup_steps=2, story_warmup_steps=2, source_dropout=0.3, caption_dropout=0.3
    )
    saving = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, save_top_k=0)
    fitting = trainer(folder, steps, [saving, RunningMean(decay=0.9)])
    last = folder / "last.ckpt"
    fitting.fit(system, TinyData(made, num_items=7), ckpt_path=last if resume else None, weights_only=True)
    return system


def leaves(tree: object, path: str = "") -> dict[str, object]:
    if isinstance(tree, dict):
        items = tree.items()
    elif isinstance(tree, list | tuple):
        items = enumerate(tree)
    else:
        return {path: tree}
    return {name: leaf for key, value in items for name, leaf in leaves(value, f"{path}/{key}").items()}


@pytest.mark.parametrize("killed_after", [1, 5, 9])
def test_a_resumed_run_equals_the_uninterrupted_one(killed_after: int, tmp_path: Path):
    whole = run(tmp_path / "whole", 9)
    run(tmp_path / "cut", killed_after)
    resumed = run(tmp_path / "cut", 9, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    first, second = (leaves(load_state(tmp_path / name / "last.ckpt")) for name in ("whole", "cut"))
    compared = [name for name, leaf in first.items() if isinstance(leaf, torch.Tensor)]
    assert sum("optimizer" in name for name in compared) > 50
    assert sum("average" in name or "current_model" in name for name in compared) > 50
    for name in compared:
        assert torch.equal(first[name], second[name]), name


def test_a_run_that_accumulates_batches_resumes_at_the_right_one(tmp_path: Path):
    """A step is several batches: the position in the data is counted in those."""

    def read(folder: Path, steps: int, resume: bool = False) -> list[list[int]]:
        made = tiny_story_dalle()
        data, seen = TinyData(made, num_items=31), []
        plain = data.dataset.read
        data.dataset.read = lambda indices, step: seen.append(indices) or plain(indices, step)
        saving = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, save_top_k=0)
        fitting = trainer(folder, steps, [saving], accumulate_grad_batches=3)
        last = folder / "last.ckpt"
        fitting.fit(StoryDALLETraining(made), data, ckpt_path=last if resume else None, weights_only=True)
        return seen[: 3 * steps]

    whole = read(tmp_path / "whole", 4)
    first = read(tmp_path / "cut", 2)
    rest = read(tmp_path / "cut", 4, resume=True)
    assert [*first, *rest][:12] == whole and len(whole) == 12


def test_the_order_of_a_resumed_run_goes_on_where_it_was():
    whole = iter(StepSampler(np.ones(10), 3, seed=1))
    batches = [next(whole) for _ in range(9)]
    resumed = iter(StepSampler(np.ones(10), 3, seed=1, start=4))
    assert [next(resumed) for _ in range(5)] == batches[4:]
    assert [batch.indices for batch in batches[:3]] != [batch.indices for batch in batches[3:6]]
    for epoch in range(3):
        seen = [index for batch in batches[3 * epoch : 3 * epoch + 3] for index in batch.indices]
        assert len(set(seen)) == 9


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path):
    state = {
        "a": torch.arange(3),
        "b": [1, None, True, "text", 0.1, (2, torch.zeros(2, dtype=torch.bfloat16))],
        "c": {0: {"lr": 1e-3}, "1": float("inf")},
        "empty": {},
    }
    save_state(state, tmp_path / "x.ckpt")
    first, second = leaves(state), leaves(load_state(tmp_path / "x.ckpt"))
    assert first.keys() == second.keys()
    for name, leaf in first.items():
        assert torch.equal(leaf, second[name]) if isinstance(leaf, torch.Tensor) else leaf == second[name]


def test_a_checkpoint_refuses_what_could_run_code(tmp_path: Path):
    with pytest.raises(ValueError, match="Generator"):
        save_state({"x": torch.Generator()}, tmp_path / "x.ckpt")


def test_a_truncated_or_foreign_checkpoint_is_named(tmp_path: Path):
    path = tmp_path / "x.ckpt"
    save_state({"a": torch.arange(1000)}, path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"x\.ckpt"):
        load_state(path)
    path.write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(ValueError, match=r"x\.ckpt"):
        load_state(path)


def test_saving_keeps_the_old_checkpoint_until_the_new_one_is_whole(tmp_path: Path, monkeypatch):
    path = tmp_path / "x.ckpt"
    save_state({"a": 1}, path)

    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("storydalle.training.state.write_safetensors", fail)
    with pytest.raises(OSError, match="space"):
        save_state({"a": 2}, path)
    assert load_state(path) == {"a": 1}


def test_a_short_run_does_not_keep_the_weights_that_it_began_with():
    assert averaged([100.0] + 99 * [1.0]) == pytest.approx(1.0, abs=0.01)
    # After 6100 steps the mean is as long as its decay says.
    assert averaged([100.0] + 6099 * [1.0] + [2.0]) == pytest.approx(1.002, abs=1e-4)


class Counted(pl.Trainer):
    global_step = 0


def averaged(weights: list[float]) -> float:
    """The final weight of a run that has these weights after its steps, and keeps their running mean."""
    system, mean, trainer = pl.LightningModule(), RunningMean(decay=0.998), Counted(logger=False)
    system.weight = torch.nn.Parameter(torch.tensor(weights[0]))
    mean.setup(trainer, system, "fit")
    for weight in weights:
        torch.nn.init.constant_(system.weight, weight)
        trainer.global_step += 1
        mean.on_train_batch_end(trainer, system, None, None, 0)
    mean.on_fit_end(trainer, system)
    return system.weight.item()
