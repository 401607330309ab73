"""StoryGANc as one object: drawing, what it depends on, files, and mistakes."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from storydalle.evaluation.loss_probes import measure_probes, reordered
from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.metrics.toon import ToonScores
from storydalle.mistakes import UserError
from storydalle.models import kinds, zoo
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_gan.caption_encoder import SmallCaptionEncoder
from storydalle.models.story_gan.model import DISCRIMINATORS_NAME, GANSampling, StoryGANc
from storydalle.stories.images import to_tensor
from storydalle.stories.story import Story, batch_of
from storydalle.stories.toon import ToonSV
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.training.building import story_gan
from tests.tiny import tiny_story_dalle
from tests.tiny_gan import RESOLUTION, ShapeStories, settled, shape_batch, tiny_story_gan

SHIPPED = ((StoryGANc, "storyganc"), (LabelReader, "label_reader"))
CAPTIONS = ["a red square on the left", "a blue square on the right", "a green square on the left"]


def picture(seed: int = 0, size: tuple[int, int] = (40, 40)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def same(first: list[Image.Image], second: list[Image.Image]) -> bool:
    return all(np.array_equal(*pair) for pair in zip(first, second, strict=True))


# ----------------------------------------------------------------------------------------------------- drawing


def test_a_candidate_does_not_depend_on_how_many_there_are() -> None:
    gan, batch = settled(), shape_batch(2)
    one, many = (gan.draw_stories(batch.captions, batch.source, num_candidates=number) for number in (1, 3))
    assert many.shape == (2, 3, 3, 3, RESOLUTION, RESOLUTION)
    assert torch.equal(one[:, :, 0], many[:, :, 0]) and not torch.equal(many[:, :, 0], many[:, :, 1])


def test_frames_lie_in_range_and_are_no_flat_colour() -> None:
    batch = shape_batch(2)
    frames = settled().draw_stories(batch.captions, batch.source)
    assert frames.abs().max() <= 1 and frames.std((-1, -2)).min() > 0


def test_source_captions_and_noise_all_reach_the_frames() -> None:
    gan, batch = settled(), shape_batch(1)
    drawn = gan.draw_stories(batch.captions, batch.source)
    others = [[caption.replace("square", "red") for caption in batch.captions[0]]]
    assert not torch.equal(drawn, gan.draw_stories(batch.captions, torch.zeros_like(batch.source)))
    assert not torch.equal(drawn, gan.draw_stories(others, batch.source))
    assert not torch.equal(drawn, gan.draw_stories(batch.captions, batch.source, seed=1))


def test_without_contextual_attention_the_source_is_not_looked_at() -> None:
    gan, batch = settled(generator={"direction": "off"}), shape_batch(1)
    drawn = gan.draw_stories(batch.captions, batch.source)
    assert torch.equal(drawn, gan.draw_stories(batch.captions, -batch.source))


def test_without_noise_every_seed_draws_the_same() -> None:
    gan, batch = settled(), shape_batch(1)
    gan.card = {"sampling": {"noise_scale": 0.0}}
    assert gan.sampling() == GANSampling(0.0)
    drawn = gan.draw_stories(batch.captions, batch.source)
    assert torch.equal(drawn, gan.draw_stories(batch.captions, batch.source, seed=1))


def test_story_logits_are_the_same_alone_in_a_batch_and_again() -> None:
    gan, batch = settled(), shape_batch(3, lengths=(3, 2))
    logits = gan.story_logits(batch.captions, batch.frames)
    assert logits.shape == (3,)
    alone = gan.story_logits(batch.captions[1:2], batch.frames[1:2, :2])
    assert torch.allclose(logits[1:2], alone, atol=1e-5)
    assert torch.equal(logits, gan.story_logits(batch.captions, batch.frames))


def test_progress_is_told_once_a_candidate() -> None:
    told: list[tuple[int, int]] = []
    settled().generate(CAPTIONS, picture(), num_candidates=3, progress=lambda *place: told.append(place))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_crop_and_cut_captions_are_said() -> None:
    drawn = settled().generate([CAPTIONS[0], " ".join(["square"] * 30)], picture(size=(40, 20)))
    assert any("40x20 to its centre 20x20" in note for note in drawn.notes)
    assert any(note.startswith("caption 2 ") and "cut" in note for note in drawn.notes)


# ----------------------------------------------------------------------------------------------------- files


def test_a_saved_model_draws_the_same(tmp_path: Path) -> None:
    gan = settled(has_story_discriminator=False)
    gan.card = {"num_steps": 3}
    gan.half().float()  # weights are stored in half precision
    gan.save_pretrained(tmp_path)
    opened = StoryGANc.from_pretrained(tmp_path)
    assert not opened.training and opened.card == gan.card
    batch = shape_batch(2)
    first, second = (each.draw_stories(batch.captions, batch.source) for each in (gan, opened))
    assert torch.equal(first, second)
    assert opened.config == gan.config and opened.caption_encoder.config == gan.caption_encoder.config


def test_drawing_and_judging_weights_are_files_of_their_own(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    settled().save_pretrained(tmp_path)
    drawing, judging = (load_file(tmp_path / name) for name in ("model.safetensors", DISCRIMINATORS_NAME))
    assert {name.partition(".")[0] for name in judging} == {"image_discriminator", "story_discriminator"}
    assert {name.partition(".")[0] for name in drawing} == {"caption_encoder", "story_encoder", "generator"}


def test_the_commands_open_each_kind_of_model(tmp_path: Path) -> None:
    settled().save_pretrained(tmp_path / "gan")
    tiny_story_dalle().save_pretrained(tmp_path / "dalle")
    for name, kind in (("gan", StoryGANc), ("dalle", StoryDALLE)):
        model = kinds.open_model(tmp_path / name)
        assert isinstance(model, kind)


def test_damaged_and_foreign_folders_are_named(tmp_path: Path) -> None:
    settled().save_pretrained(tmp_path / "gan")
    weights = tmp_path / "cut" / "model.safetensors"
    shutil.copytree(tmp_path / "gan", tmp_path / "cut")
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(UserError, match=r"model\.safetensors does not hold"):
        kinds.open_model(tmp_path / "cut")
    config = json.loads((tmp_path / "gan" / "config.json").read_text())
    (tmp_path / "gan" / "config.json").write_text(json.dumps(config | {"model_type": "diffusion"}))
    with pytest.raises(UserError, match="diffusion"):
        kinds.open_model(tmp_path / "gan")
    (tmp_path / "gan" / "config.json").write_text(json.dumps(config | {"colour": 1}))
    with pytest.raises(UserError, match="is no StoryGANc configuration"):
        kinds.open_model(tmp_path / "gan")
    tiny_story_dalle().save_pretrained(tmp_path / "dalle")
    with pytest.raises(ValueError, match="model_type"):
        StoryGANc.from_pretrained(tmp_path / "dalle")


# ----------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("setting", [{"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.9}, {"guidance": 2.0}])
def test_settings_of_codes_are_refused(setting: dict[str, float]) -> None:
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=f"{name}={value}: a GAN draws no codes"):
        tiny_story_gan().generate(CAPTIONS, picture(), **setting)


def test_noise_of_a_negative_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="noise_scale=-1"):
        GANSampling(-1)


def test_the_discriminator_has_a_logit_for_each_character() -> None:
    gan = tiny_story_gan(num_characters=7)
    frames: Tensor = torch.zeros(1, 2, 3, RESOLUTION, RESOLUTION)
    mask = torch.ones(1, 2, dtype=torch.bool)
    assert gan.image_discriminator.name(gan.image_discriminator.encode(frames, mask), mask).shape == (2, 7)
    assert gan.resolution == RESOLUTION and gan.device.type == "cpu"


def test_captions_that_are_cut_are_counted_before_training(capsys: pytest.CaptureFixture[str]) -> None:
    stories = ShapeStories(6, (3, 2))
    told = [caption for i in range(6) for caption in stories.outline(i).captions]
    tokenizer = CaptionTokenizer.train(told, 80, text_length=64)
    lengths = [len(row[row != tokenizer.pad_id]) for row in tokenizer.encode(told).tokens]
    for text_length in (64, sorted(lengths)[len(told) // 2]):
        tokenizer = CaptionTokenizer.train(told, 80, text_length=text_length)
        encoder = SmallCaptionEncoder(tokenizer, dim=16, depth=1, num_heads=2)
        story_gan(encoder, stories, generator={"dim": 32, "attention_side": 8})
        num_cut = sum(length > text_length for length in lengths)
        said = f"{num_cut} of {len(told)} captions are longer than the caption encoder can read, and are cut\n"
        assert capsys.readouterr().out == (said if num_cut else "")
    assert num_cut > 0


# ----------------------------------------------------------------------------------------------------- its own judges


@pytest.mark.parametrize("num_frames", [2, 3, 5])
def test_frames_in_another_order_are_never_in_their_own(num_frames: int) -> None:
    frames = np.arange(num_frames).repeat(3).reshape(num_frames, 1, 1, 3)
    stories = [reordered(Story(f"toon/{i}", [], frames[0], frames, {}, [])) for i in range(200)]
    found = {tuple(story.frames[:, 0, 0, 0].tolist()) for story in stories}
    assert len(found) == math.factorial(num_frames) - 1 or num_frames == 5
    assert all(sorted(order) == list(range(num_frames)) != list(order) for order in found)


def test_the_order_score_compares_each_story_with_itself_in_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    stories, seen = ShapeStories(9, (3, 1)), []

    def logits(captions: list[list[str]], frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """As a judge that knows the first frame of every story."""
        seen.append((captions, frames))
        firsts = {tuple(story.captions): story.frames[0] for story in stories}
        true = torch.stack([to_tensor(firsts[tuple(each)][None])[0] for each in captions])
        return (frames[:, 0] == true).flatten(1).all(1).float()

    gan = tiny_story_gan()
    monkeypatch.setattr(gan, "story_logits", logits)
    auc = measure_probes(gan, stories, {}, {}, batch_size=4)["story_order_auc"]
    assert sum(len(captions) for captions, _ in seen) == 2 * 5, "stories of one frame have one order"
    pairs = (seen[::2], seen[1::2])
    for (own, true), (same, other) in zip(*pairs, strict=True):
        assert own == same
        assert torch.equal(true.sort(1).values, other.sort(1).values), "the same frames"
    kept = [(true[:, 0] == other[:, 0]).flatten(1).all(1) for (_, true), (_, other) in zip(*pairs, strict=True)]
    assert auc == pytest.approx(1 - 0.5 * torch.cat(kept).float().mean().item())
    seen.clear()
    assert measure_probes(gan, stories, {}, {}, batch_size=9)["story_order_auc"] == auc
    assert measure_probes(tiny_story_gan(has_story_discriminator=False), stories, {}, {}) == {}
    assert measure_probes(object(), stories, {}, {}) == {}


# ----------------------------------------------------------------------------------------------------- what ships


@pytest.mark.skipif(not (zoo.zoo_folder() / "storyganc" / "config.json").is_file(), reason="no StoryGANc ships yet")
def test_the_shipped_weights_draw_who_where_and_what_and_know_the_order_of_frames() -> None:
    gan, reader = (opened.from_pretrained(zoo.zoo_folder() / name) for opened, name in SHIPPED)
    stories, scores = ToonSV("test", 40, resolution=gan.resolution), ToonScores()
    batch = batch_of(list(stories))
    frames = gan.draw_stories(batch.captions, batch.source)[:, :, 0]
    read = {name: value.unflatten(0, batch.mask.shape) for name, value in reader.read(frames.flatten(0, 1)).items()}
    scores.update(read, batch.labels, batch.mask)
    found = scores.compute() | measure_probes(gan, stories, {}, {})
    least = {
        "character_micro_f1": 0.8,
        "setting_source": 0.9,
        "guest_color": 0.6,
        "action": 0.9,
        "story_order_auc": 0.8,
    }
    assert {name for name, value in least.items() if not found[name] >= value} == set()
