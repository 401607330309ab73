"""StoryDALLE: captions and a picture in, frames out; saved and opened again; mistakes named."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from storydalle import StoryDALLE
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.drawing import StoryRequest
from storydalle.models.story_dalle import model
from storydalle.models.story_dalle.retrofit import retrofit
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey, sample
from storydalle.models.zoo import CONFIG_NAME, WEIGHTS_NAME
from storydalle.stories.images import from_images, to_pixels
from tests.tiny import tiny_story_dalle

CAPTIONS = ["Pip waves.", "She jumps.", "They sleep."]


def picture(width: int = 40, height: int = 40, mode: str = "RGB") -> Image.Image:
    """A red sky over a blue sea, with a white sun on the left."""
    image = Image.new("RGB", (width, height), (200, 40, 30))
    image.paste((20, 40, 220), (0, height // 2, width, height))
    image.paste((255, 255, 255), (0, 0, width // 3, height // 3))
    return image.convert(mode)


def pixels(images: list[Image.Image]) -> list[bytes]:
    return [image.tobytes() for image in images]


def awake(**options) -> StoryDALLE:
    made = tiny_story_dalle(**options)
    for module in made.model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.2)
    return made


def test_source_and_captions_both_change_the_frames():
    made = awake()
    base = made.generate(CAPTIONS, picture(), temperature=0)
    turned = made.generate(CAPTIONS, picture().rotate(90), temperature=0)
    other = made.generate([*CAPTIONS[:2], "Momo runs."], picture(), temperature=0)
    assert pixels(base.frames) != pixels(turned.frames)
    assert base.scores[0] != other.scores[0], "the first frame hears of the last caption through the story encoder"


def test_a_window_bounds_what_the_story_encoder_reads_at_once(monkeypatch: pytest.MonkeyPatch):
    made, drawn = awake(), []
    monkeypatch.setattr(model, "sample", lambda made, given, *more, **named: drawn.append(given) or sample(made, given))
    tokens = made.caption_tokenizer.encode(["Pip waves.", "She jumps.", "They sleep.", "Momo runs."]).tokens[None]
    made.card["story_window"] = 2
    made.draw(tokens, None, [FrameKey(0, 0, frame) for frame in range(4)])
    mask = torch.ones(1, 2, dtype=torch.bool)
    pairs = [made.model.encode_story(tokens[:, i : i + 2], mask) for i in range(3)]
    expected = torch.cat([pairs[0], pairs[1][:, 1:], pairs[2][:, 1:]], 1)
    torch.testing.assert_close(drawn[0].story, expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16"])
def test_any_kind_of_picture_is_a_source(mode: str):
    source = Image.new("I;16", (20, 20), 1000) if mode == "I;16" else picture(mode=mode)
    assert awake().generate(CAPTIONS[:1], source).frames


def test_what_was_cropped_cut_or_lies_outside_is_said():
    made = awake()
    made.card["reconstruction_error_p99"] = 0.0
    notes = made.generate(["pip " * 30, "Pip waves."], picture(60, 40)).notes
    assert any("60x40" in note and "40x40" in note for note in notes)
    assert any("caption 1" in note and "cut" in note for note in notes)
    assert any("unlike the pictures" in note for note in notes)
    made.card["reconstruction_error_p99"] = 2.0
    assert made.generate(["Pip waves."], picture()).notes == []


def test_guidance_is_refused_where_the_card_does_not_speak_of_it():
    for given in ({"guidance": 2.0}, {"sampling": CodeSampling(guidance=2.0)}):
        with pytest.raises(ValueError, match="not trained for guidance"):
            awake().generate(CAPTIONS, picture(), **given)


def test_guidance_works_where_the_card_says_so():
    made = awake()
    made.card["guidance"] = True
    plain, guided = (pixels(made.generate(CAPTIONS, picture(), temperature=0, guidance=g).frames) for g in (1.0, 5.0))
    assert plain != guided


def test_the_cards_guidance_holds_where_none_is_given():
    made, source = awake(), from_images([picture()], 12)
    drawn = {}
    for told in (None, 1.0, 5.0):
        made.card.update(guidance=True, sampling={"temperature": 0} | ({} if told is None else {"guidance": told}))
        drawn[told] = pixels(made.generate(CAPTIONS, picture()).frames), made.draw_stories([CAPTIONS], source)
    assert drawn[1.0][0] == drawn[None][0] != drawn[5.0][0], "generate"
    assert torch.equal(drawn[1.0][1], drawn[None][1]) and not torch.equal(drawn[1.0][1], drawn[5.0][1]), "evaluate"
    assert pixels(made.generate(CAPTIONS, picture(), guidance=1.0).frames) == drawn[1.0][0], "what is given goes first"


@torch.no_grad()
def test_candidates_are_kept_as_the_pictures_that_they_become():
    made = awake()
    request = StoryRequest([CAPTIONS], from_images([picture()], 12), made.sampling(), num_candidates=15)
    drawn, kept = (made.draw_candidates(request._replace(as_pixels=each)) for each in (False, True))
    assert drawn.frames.shape == (1, 3, 15, 3, 12, 12), "in two waves"
    assert torch.equal(to_pixels(drawn.frames), kept.frames) and torch.equal(drawn.score(), kept.score())


def test_saved_and_opened_again_it_draws_the_same(tmp_path: Path):
    made = awake(num_prompt_tokens=2)
    made.half()
    made.float()  # weights are stored in half precision
    made.card.update(sampling={"temperature": 0.5}, license="mit")
    made.save_pretrained(tmp_path / "x")
    again = StoryDALLE.from_pretrained(tmp_path / "x")
    assert again.card == made.card
    assert pixels(again.generate(CAPTIONS, picture()).frames) == pixels(made.generate(CAPTIONS, picture()).frames)


def test_a_rounding_turns_no_code_into_another_unless_it_may(tmp_path: Path):
    made = awake()
    made.save_folder(tmp_path / "exact")
    made.save_folder(tmp_path / "small", is_tokenizer_rounded=True)
    weights = {name: load_file(tmp_path / name / WEIGHTS_NAME) for name in ("exact", "small")}
    for name, value in made.state_dict().items():
        is_tokenizer = name.startswith("image_tokenizer.")
        assert torch.equal(weights["exact"][name], value if is_tokenizer else value.half()), name
        assert torch.equal(weights["small"][name], value.half()), name


def test_models_of_one_family_share_an_image_tokenizer(tmp_path: Path):
    made = awake()
    made.save_pretrained(tmp_path / "x")
    made.save_folder(tmp_path / "y", tokenizer_of="../x")
    first, second = (StoryDALLE.from_pretrained(tmp_path / name) for name in "xy")
    assert (tmp_path / "y" / WEIGHTS_NAME).stat().st_size < (tmp_path / "x" / WEIGHTS_NAME).stat().st_size
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_tied_codes_stay_tied_when_opened_again(tmp_path: Path):
    made = tiny_story_dalle()
    config = made.model.backbone.config | {"tie_codes": True}
    tied = StoryDALLE(made.image_tokenizer, made.caption_tokenizer, retrofit(DALLE(**config)))
    tied.save_pretrained(tmp_path / "x")
    backbone = StoryDALLE.from_pretrained(tmp_path / "x").model.backbone
    assert backbone.head_img.weight is backbone.tok_emb_img.weight


def test_opening_draws_no_numbers_that_the_file_replaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    tiny_story_dalle().save_pretrained(tmp_path / "x")
    made = []

    def counted(self: torch.nn.Linear, *args: Any, **kwargs: Any) -> None:
        initialise(self, *args, **kwargs)
        made.append(self.weight.device.type)

    initialise = torch.nn.Linear.__init__
    monkeypatch.setattr(torch.nn.Linear, "__init__", counted)
    opened = StoryDALLE.from_pretrained(tmp_path / "x")
    assert made and set(made) == {"meta"}
    assert {value.device.type for value in opened.state_dict().values()} == {"cpu"}
    assert all(parameter.requires_grad for parameter in opened.model.parameters())


def test_a_large_model_is_saved_in_parts_and_opens_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = awake().half().float()
    monkeypatch.setattr("storydalle.models.pretrained.MAX_FILE_BYTES", 20_000)
    made.save_pretrained(tmp_path / "x")
    assert len(list((tmp_path / "x").glob("model-*-of-*.safetensors"))) > 2
    again = StoryDALLE.from_pretrained(tmp_path / "x").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in made.state_dict().items())
    next((tmp_path / "x").glob("model-00002-*")).unlink()
    with pytest.raises(ValueError, match="model-00002-of"):
        StoryDALLE.from_pretrained(tmp_path / "x")


def test_a_model_lives_on_when_its_file_is_written_over(tmp_path: Path):
    awake().save_folder(tmp_path, dtype=torch.float32)  # as it is in memory: nothing would ask for a copy
    opened = StoryDALLE.from_pretrained(tmp_path)
    before = opened.model.backbone.tok_emb_img.weight.clone()
    size = (tmp_path / WEIGHTS_NAME).stat().st_size
    with (tmp_path / WEIGHTS_NAME).open("r+b") as file:
        file.write(b"\x55" * size)
    assert torch.equal(opened.model.backbone.tok_emb_img.weight, before)


def test_what_is_pushed_to_the_hub_says_what_it_is_and_opens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pushed = []

    def upload(folder_path: Path, **_: Any) -> str:
        shutil.copytree(folder_path, tmp_path / "hub")
        pushed.append(folder_path)
        return "url"

    made = awake()
    made.card |= {"license": "mit", "num_steps": 7, "seed": 3, "experiment": "toon/story_dalle", "commit": "abc"}
    api = {"create_repo": lambda self, repo_id, **_: SimpleNamespace(repo_id=repo_id)}
    api |= {"upload_folder": lambda self, **settings: upload(**settings)}
    for name, method in api.items():
        monkeypatch.setattr(f"huggingface_hub.HfApi.{name}", method)
    assert made.push_to_hub("somebody/story") == "url" and pushed
    readme = (tmp_path / "hub" / "README.md").read_text()
    assert readme.startswith("---\nlicense: mit\n") and "# toon/story_dalle" in readme
    assert "| recipe | `storydalle train experiment=toon/story_dalle`, 7 steps, seed 3 |" in readme
    opened = StoryDALLE.from_pretrained(tmp_path / "hub")
    assert pixels(opened.generate(CAPTIONS, picture()).frames)


def test_tokenizers_that_do_not_fit_the_backbone_are_refused_with_both_numbers():
    made = tiny_story_dalle()
    backbone = DALLE(**(made.model.backbone.config | {"image_length": 16}))
    with pytest.raises(ValueError, match=r"16 codes a frame, its tokenizer 9"):
        StoryDALLE(made.image_tokenizer, made.caption_tokenizer, retrofit(backbone))


def test_damaged_and_foreign_files_are_named(tmp_path: Path):
    folder = tmp_path / "x"
    tiny_story_dalle().save_pretrained(folder)
    whole = (folder / WEIGHTS_NAME).read_bytes()
    (folder / WEIGHTS_NAME).write_bytes(whole[:-10])
    with pytest.raises(ValueError, match=WEIGHTS_NAME):
        StoryDALLE.from_pretrained(folder)
    (folder / WEIGHTS_NAME).write_bytes(whole)
    (folder / CONFIG_NAME).write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ValueError, match=CONFIG_NAME):
        StoryDALLE.from_pretrained(folder)


def test_an_unknown_model_is_named():
    with pytest.raises(ValueError, match="no model 'no_such_thing' in the zoo"):
        StoryDALLE.from_pretrained("no_such_thing")
