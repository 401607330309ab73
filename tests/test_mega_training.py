"""StoryDALL-E on DALL-E Mega as a whole: trained, guided, saved and opened again."""

import math
from pathlib import Path

import pytest
import torch

from storydalle import StoryDALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.story_dalle.retrofit import retrofit
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey, sample
from storydalle.models.zoo import CONFIG_NAME
from storydalle.training.story_dalle_training import StoryDALLETraining
from storydalle.training.text_to_image_training import TextToImageTraining
from tests.conformance import awake
from tests.test_byte_level import tiny_tokenizer
from tests.tiny import CODEBOOK, GRID, TinyData, felt, tiny_batch, tiny_story_dalle, trainer
from tests.tiny import FRAMES as TINY_FRAMES
from tests.tiny_backbones import DIM, GLU_DIM


def story_dalle(folder: Path, **options) -> StoryDALLE:
    """Mega behind its own kind of caption tokenizer, whose table has three rows that no token uses."""
    base, tokenizer = tiny_story_dalle(), tiny_tokenizer(folder, spare=3)
    sizes = {"dim": DIM, "glu_dim": GLU_DIM, "depth": 2, "num_heads": 2, "start_code": CODEBOOK - 1}
    backbone = MegaDALLE(
        tokenizer.vocab_size, CODEBOOK + 2, CODEBOOK, tokenizer.text_length, GRID**2, pad_id=tokenizer.pad_id, **sizes
    )
    return StoryDALLE(base.image_tokenizer, tokenizer, retrofit(backbone, **options)).eval()


def test_all_of_it_trains_on_the_image_alone(tmp_path: Path):
    made = story_dalle(tmp_path, num_prompt_tokens=2)
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    system = StoryDALLETraining(made, max_steps=3, warmup_steps=1, text_weight=0, caption_dropout=0.3)
    run = trainer(tmp_path, 3)
    run.fit(system, TinyData(made))
    moved = {name for name, value in made.named_parameters() if not torch.equal(value, before[name])}
    names = {name for name in before if name.startswith("model.")}
    assert felt(names) <= moved <= names
    assert "train/loss_image" in run.logged_metrics and "train/loss_text" not in run.logged_metrics


def test_captions_are_dropped_to_the_tokenizers_empty_caption(tmp_path: Path):
    made = story_dalle(tmp_path)
    system = StoryDALLETraining(made, text_weight=0, caption_dropout=1.0)
    dropped = system.drop_conditions(tiny_batch(made, [0, 1]))[0].tokens
    assert torch.equal(dropped, made.caption_tokenizer.encode([""]).tokens.expand(2, TINY_FRAMES, -1))


def test_guidance_leads_away_from_the_tokenizers_empty_caption(tmp_path: Path, monkeypatch):
    made, prompts = story_dalle(tmp_path), []
    monkeypatch.setattr(
        "storydalle.models.story_dalle.model.sample", lambda *given, **_: prompts.append(given[4]) or sample(*given)
    )
    tokens = made.caption_tokenizer.encode(["Pip waves.", "She jumps."]).tokens[None]
    made.draw(tokens, None, [FrameKey(0, 0, 0), FrameKey(0, 0, 1)], sampling=CodeSampling(guidance=2.0))
    assert torch.equal(prompts[0].tokens, made.caption_tokenizer.encode(["", ""]).tokens[None])


def test_text_to_image_learns_without_a_text_loss(tmp_path: Path):
    made = story_dalle(tmp_path, source_blocks="none", story_depth=0)
    system, data = (
        TextToImageTraining(made, learning_rate=3e-3, text_weight=0),
        TinyData(made, batch_size=4, num_items=4),
    )
    first = trainer(tmp_path, 1, limit_val_batches=1).validate(system, data, verbose=False)[0]["val/loss_image"]
    trainer(tmp_path, 120).fit(system, data)
    last = trainer(tmp_path, 1, limit_val_batches=1).validate(system, data, verbose=False)[0]
    assert set(last) == {"val/loss_image"}
    assert first == pytest.approx(math.log(CODEBOOK), abs=0.2)
    assert last["val/loss_image"] < first - 1


@pytest.mark.parametrize("system", [StoryDALLETraining, TextToImageTraining])
def test_a_text_loss_is_refused_by_name(system, tmp_path: Path):
    with pytest.raises(ValueError, match=r"text_weight=0\.1.*mega predicts no text"):
        system(story_dalle(tmp_path))


def test_saved_and_opened_again_it_draws_the_same(tmp_path: Path):
    made = story_dalle(tmp_path, num_prompt_tokens=2)
    awake(made.model)
    made.half()
    made.float()  # weights are stored in half precision
    made.card["guidance"] = True
    made.save_pretrained(tmp_path / "x")
    again = StoryDALLE.from_pretrained(tmp_path / "x")
    assert isinstance(again.model.backbone, MegaDALLE)
    captions = ["Pip waves.", "She jumps."]
    for guidance in (1.0, 4.0):
        first, second = (one.generate(captions, None, 2, guidance=guidance) for one in (made, again))
        assert [x.tobytes() for x in first.frames] == [x.tobytes() for x in second.frames]


def test_a_backbone_of_an_unknown_kind_is_named(tmp_path: Path):
    story_dalle(tmp_path).save_pretrained(tmp_path / "x")
    file = tmp_path / "x" / CONFIG_NAME
    file.write_text(file.read_text().replace('"kind": "mega"', '"kind": "giga"'))
    with pytest.raises(ValueError, match=r"config\.json.*'giga' is none of dalle, mega"):
        StoryDALLE.from_pretrained(tmp_path / "x")
