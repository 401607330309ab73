"""``pretrained=``: names of the zoo, folders, runs, experiments and models of the hub; the shipped ones stand in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from storydalle.mistakes import UserError
from storydalle.models import kinds, zoo
from storydalle.models.pretrained import CARD_NAME
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import parameter_group
from storydalle.training import building
from storydalle.training.building import model_folder, story_dalle, story_gan, text_to_image, trained_image_tokenizer
from storydalle.training.runs import memory
from tests.tiny import TinyStories, tiny_story_dalle
from tests.tiny_gan import ShapeStories, tiny_story_gan
from tests.training import Trainer, train

__all__ = ["train"]
RETROFIT: dict[str, Any] = {"source_blocks": "all", "story_depth": 1}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A finished run of an experiment, with a model."""
    run = tmp_path / "runs" / "toon" / "text_to_image" / "first"
    tiny_story_dalle(source_blocks="none", story_depth=0).save_pretrained(run / "model")
    (run / "config.yaml").write_text("")
    (run / "metrics.json").write_text('{"values": {}}')
    return run


def test_every_way_to_name_a_model_finds_it(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    monkeypatch.setattr(kinds, "downloaded", lambda name: Path("cache") / name)
    found = {
        name: model_folder(name, runs)
        for name in ("story_dalle", str(finished / "model"), str(finished), "toon/text_to_image", "someone/something")
    }
    assert found == {
        "story_dalle": zoo.zoo_folder() / "story_dalle",
        str(finished / "model"): finished / "model",
        str(finished): finished / "model",
        "toon/text_to_image": finished / "model",
        "someone/something": Path("cache/someone/something"),
    }
    assert not capsys.readouterr().out, "nothing stood in"


@pytest.mark.parametrize("record", [None, '{"error": "step 3: train/loss is nan"}'])
def test_an_unfinished_run_is_not_built_on(record: str | None, finished: Path, tmp_path: Path) -> None:
    (finished / "metrics.json").unlink()
    if record is not None:
        (finished / "metrics.json").write_text(record)
    assert model_folder("toon/text_to_image", tmp_path / "runs") == zoo.zoo_folder() / "text_to_image"


@pytest.mark.parametrize(
    ("experiment", "shipped"),
    [
        ("toon/text_to_image", "text_to_image"),
        ("toon/story_dalle", "story_dalle"),
        ("toon/storyganc", "storyganc"),
        ("toon/image_tokenizer", "story_dalle"),
        ("toon/image_decoder", "story_dalle"),
    ],
)
def test_a_shipped_model_stands_in_for_an_experiment_without_a_run_and_a_line_says_so(
    experiment: str, shipped: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert model_folder(experiment, tmp_path / "runs") == zoo.zoo_folder() / shipped
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"note: {experiment} has no finished run, so the shipped {shipped} is used")
    assert f"storydalle train experiment={experiment}" in line


def test_what_is_found_nowhere_is_told_with_what_would_make_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"openstory/text_to_image has no finished run: storydalle train experiment="):
        model_folder("openstory/text_to_image", tmp_path / "runs")
    with pytest.raises(UserError, match=r"pretrained=nothing is not a model's folder"):
        model_folder("nothing", tmp_path / "runs")

    def offline(name: str) -> Path:
        raise UserError(f"no model {name!r}: the hub did not give it")

    monkeypatch.setattr(kinds, "downloaded", offline)
    with pytest.raises(UserError, match=r"toon/text_to_imag'.*did you mean toon/text_to_image"):
        model_folder("toon/text_to_imag", tmp_path / "runs")


def test_a_retrofit_is_trained_on_where_it_is_the_one_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tiny_story_dalle(**RETROFIT)
    for parameter in saved.model.parameters():
        torch.nn.init.normal_(parameter)
    saved.save_folder(tmp_path, dtype=torch.float32)
    kept = story_dalle(str(tmp_path), "runs", RETROFIT)
    assert "with its retrofit: source_attention, story_encoder" in capsys.readouterr().out
    own = dict(saved.model.named_parameters())
    assert {parameter_group(name) for name in own} == {"base", "source", "story"}
    assert all(torch.equal(value, own[name]) for name, value in kept.model.named_parameters())
    fresh = story_dalle(str(tmp_path), "runs", RETROFIT | {"story_depth": 2})
    assert "gets a new retrofit" in capsys.readouterr().out
    assert len(list(fresh.model.parameters())) > len(own)
    named = story_dalle(str(tmp_path), "runs", RETROFIT, ["pororo"])
    assert "pororo" in named.caption_tokenizer.added_names
    assert all(torch.equal(v, own[n]) for n, v in named.model.named_parameters() if parameter_group(n) != "base")


def test_the_shipped_story_model_has_the_retrofit_of_its_recipe() -> None:
    shipped = StoryDALLE.from_pretrained("story_dalle")
    retrofit = OmegaConf.to_container(OmegaConf.load("conf/retrofit/full.yaml"))
    assert isinstance(retrofit, dict)
    assert building.retrofitted(shipped.model.backbone, **retrofit).config == shipped.model.config  # type: ignore[misc]


def test_a_text_to_image_model_is_trained_on_and_another_lends_its_image_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    captions, sizes = {"vocab_size": 60, "text_length": 16}, {"dim": 16, "depth": 1, "num_heads": 2}
    made = {}
    for name, retrofit in (("bare", {"source_blocks": "none", "story_depth": 0}), ("whole", RETROFIT)):
        tiny_story_dalle(**retrofit).save_folder(tmp_path / name, dtype=torch.float32)
        made[name] = text_to_image(str(tmp_path / name), "runs", captions, TinyStories(), sizes)
    assert "bare, with its own tokenizers" in capsys.readouterr().out
    assert made["bare"].model.backbone.dim == 32 and made["whole"].model.backbone.dim == 16
    images = tiny_story_dalle().image_tokenizer.state_dict()
    for model in made.values():
        assert all(torch.equal(value, images[name]) for name, value in model.image_tokenizer.state_dict().items())
    lent = trained_image_tokenizer(str(tmp_path / "whole"), "runs").state_dict()
    assert all(torch.equal(value, images[name]) for name, value in lent.items())


def test_a_gan_is_trained_on_with_its_discriminators_on_stories_that_fit_it(tmp_path: Path) -> None:
    saved = tiny_story_gan(seed=4)
    saved.save_folder(tmp_path, dtype=torch.float32)
    fresh = tiny_story_gan().caption_encoder
    again = story_gan(fresh, ShapeStories(), str(tmp_path), "runs")
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in saved.state_dict().items())
    assert again.training, "batch norms learn on"
    with pytest.raises(UserError, match=r"knows 3 characters, but the stories have 0"):
        story_gan(fresh, ShapeStories(is_labelled=False), str(tmp_path), "runs")


def test_a_model_that_is_not_finite_is_refused_by_name(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tiny_story_dalle().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    name = next(name for name in weights if "backbone" in name)
    weights[name].view(-1)[0] = torch.nan
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=rf"{name} is not finite"):
        story_dalle(str(tmp_path), "runs", RETROFIT)


def test_the_flagship_command_trains_from_an_empty_folder_and_goes_on_from_its_own_end(train: Trainer) -> None:
    tiny = (
        *("data.train.num_stories=2", "data.val.num_stories=2", "data_module.batch_size=2", "trainer=smoke"),
        *("trainer.max_steps=1", "trainer.limit_val_batches=0", "save_every=9"),
    )
    first = train("name=first", experiment="toon/story_dalle", tiny=tiny)
    assert first.status == 0, first.err
    assert "toon/text_to_image has no finished run, so the shipped text_to_image is used" in first.out
    run = Path("runs/toon/story_dalle/first")
    assert memory(run)["pretrained"] == str(zoo.zoo_folder() / "text_to_image")
    again = train("name=second", f"pretrained={run}", experiment="toon/story_dalle", tiny=tiny)
    assert f"{run}/model, with its retrofit" in again.out, again
    card = json.loads((run.with_name("second") / "model" / CARD_NAME).read_text())
    assert card["pretrained"] == str(run)
