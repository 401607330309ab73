"""The benchmark of StoryGANc's step: what is compared computes the same."""

import json
from pathlib import Path

import pytest
import torch

from storydalle.bench.plain_story_gan import PlainTraining, looped
from storydalle.commands.main import main
from storydalle.models.story_gan.story_encoder import FILTERS_FROM, Noise
from storydalle.training import precision
from storydalle.training.story_gan_training import StoryGANTraining
from tests.tiny import trainer
from tests.tiny_gan import shape_data, tiny_story_gan


@pytest.mark.parametrize("filters_from", FILTERS_FROM)
def test_the_plain_loop_computes_the_story_encoder(filters_from: str) -> None:
    encoder = tiny_story_gan(story_encoder={"filters_from": filters_from}).story_encoder.double()
    captions, mask = torch.randn(3, 4, 16).double(), torch.ones(3, 4, dtype=torch.bool)
    noise = Noise(torch.randn(3, encoder.content_dim), torch.randn(3, 4, encoder.noise_dim))
    for ours, plain in zip(encoder(captions, mask, noise), looped(encoder, captions, noise), strict=True):
        torch.testing.assert_close(ours, plain, atol=1e-10, rtol=0)


def test_the_plain_loop_and_the_training_take_the_same_first_step(tmp_path: Path) -> None:
    after = []
    for system in (StoryGANTraining, PlainTraining):
        made = system(tiny_story_gan())
        trainer(tmp_path / system.__name__, 1).fit(made, shape_data())
        after.append({name: value for name, value in made.named_parameters()})
    # Frames drawn again for the generator pass the batch norms a second time, in training mode: the same numbers.
    for name, value in after[0].items():
        torch.testing.assert_close(value, after[1][name], atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("chosen", "dtypes"), [("bf16-mixed", ["float32", "bfloat16"]), ("32-true", ["float32"])])
def test_the_table_has_the_plain_loop_and_the_training_in_each_fast_precision(
    chosen: str,
    dtypes: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(precision, "resolved", lambda asked, accelerator: (chosen, "the reason"))
    tiny_story_gan(resolution=64, num_characters=10).save_folder("tiny")
    tiny_story_gan(resolution=64).save_folder("foreign")
    bench = ["bench", "bench=story_gan", "batch_size=2", "rounds=1"]
    assert main([*bench, "model=tiny"]) == 0
    record = json.loads(Path("benched/story_gan-batch_size2-model_tiny/metrics.json").read_text())
    seconds = record["values"]["story_gan"]["seconds_a_step"]
    assert list(seconds) == [f"{name}, {each}" for each in dtypes for name in ("plain loop", "ours")]
    ratio = record["values"]["story_gan"]["ratio_at_equal_precision"]["float32"]
    assert ratio == pytest.approx(seconds["plain loop, float32"] / seconds["ours, float32"])
    assert "as the plain loop. the reason." in " ".join(capsys.readouterr().out.split())
    for model, said in (("story_dalle", "takes a StoryGANc"), ("foreign", "names 3 characters and ToonSV has 10")):
        capsys.readouterr()
        assert main([*bench, f"model={model}"]) == 2
        assert said in (told := capsys.readouterr().err) and len(told.splitlines()) == 1
