"""Captions, pictures and values of a person: models and commands understand them alike, or refuse them by name."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from storydalle import StoryDALLE, StoryGANc
from storydalle.models.pretrained import PretrainedModel
from storydalle.stories.handed_in import captions_of, check_number, check_seed, source_of
from tests.tiny import tiny_story_dalle
from tests.tiny_gan import tiny_story_gan

CAPTIONS = ["Pip waves.", "She jumps."]
SIDE = 16
PIXELS = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)


@pytest.fixture(scope="module", params=["story_dalle", "text_to_image", "storyganc"])
def model(request: pytest.FixtureRequest) -> PretrainedModel:
    if request.param == "storyganc":
        return tiny_story_gan().eval()
    options = {"source_blocks": "none", "story_depth": 0} if request.param == "text_to_image" else {}
    made = tiny_story_dalle(**options)
    for module in made.model.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Embedding):
            torch.nn.init.normal_(module.weight, std=0.2)  # a fresh retrofit does not look at the source
    return made


def frames(model: Any, *arguments: Any, **options: Any) -> list[bytes]:
    return [frame.tobytes() for frame in model.generate(*arguments, **options).frames]


# ------------------------------------------------------------------------------------------------ captions


def test_a_single_text_is_one_caption(model: PretrainedModel) -> None:
    assert frames(model, "Pip waves.", PICTURE) == frames(model, ["Pip waves."], PICTURE)
    assert len(frames(model, "Pip waves.", PICTURE)) == 1


@pytest.mark.parametrize("make", [tuple, iter, np.array])
def test_captions_come_in_any_list(model: PretrainedModel, make: Any) -> None:
    assert frames(model, make(CAPTIONS), PICTURE) == frames(model, CAPTIONS, PICTURE)


def test_captions_are_cleaned_before_they_are_read(model: PretrainedModel) -> None:
    odd = ["\ufeff Pip\u2028 wa\u200bves. ", "She\x85jumps."]
    assert frames(model, odd, PICTURE) == frames(model, CAPTIONS, PICTURE)


@pytest.mark.parametrize(
    ("captions", "what"),
    [
        (None, "captions=None"),
        (7, "captions=7"),
        (b"Pip waves.", "captions=b'Pip waves.'"),
        ({"captions": "Pip waves."}, "captions={'captions'"),
        (Path("story.txt"), "story.txt"),
        ([], "at least one caption"),
        (["Pip waves.", 3], "entry 2 is 3"),
        (["Pip waves.", None], "entry 2 is None"),
        (["Pip waves.", "\u200b"], "entry 2 is '\\u200b'"),
        ([["Pip waves."]], r"entry 1 is \['Pip waves.'\]"),
        ("", "entry 1 is ''"),
    ],
)
def test_what_is_no_caption_is_refused_with_its_value(model: PretrainedModel, captions: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what.replace("\\u", r"\\u")):
        model.generate(captions, PICTURE)  # type: ignore[operator]


def test_stories_of_a_batch_are_lists_of_captions(model: PretrainedModel) -> None:
    source = torch.zeros(1, 3, model.resolution, model.resolution)
    drawn = model.draw_stories([["\u200bPip waves. ", "She jumps."]], source)  # type: ignore[operator]
    assert torch.equal(drawn, model.draw_stories([CAPTIONS], source))  # type: ignore[operator]
    for wrong, what in (
        (CAPTIONS, r"'Pip waves\.' is no story"),
        ("Pip waves.", r"captions='Pip waves\.': give a list of stories"),
        (None, "captions=None"),
        ([3], "3 is no story"),
        ([["Pip waves.", 3]], "3 is not a sentence"),
    ):
        with pytest.raises(ValueError, match=what):
            model.draw_stories(wrong, source)  # type: ignore[operator]
    with pytest.raises(ValueError, match="num_candidates=0"):
        model.draw_stories([CAPTIONS], source, num_candidates=0)  # type: ignore[operator]
    with pytest.raises(ValueError, match="seed=-1"):
        model.draw_stories([CAPTIONS], source, seed=-1)  # type: ignore[operator]


# ------------------------------------------------------------------------------------------------ sources


def test_a_path_an_array_and_a_picture_are_the_same_source(model: PretrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "frame.png"
    PICTURE.save(path)
    expected = frames(model, CAPTIONS, PICTURE)
    for source in (path, str(path), PIXELS, Image.open(path)):
        assert frames(model, CAPTIONS, source) == expected
    looks_at_source = isinstance(model, StoryGANc) or model.model.config["source_blocks"]  # type: ignore[union-attr]
    assert (frames(model, CAPTIONS, source=255 - PIXELS) != expected) == bool(looks_at_source)


def test_a_picture_is_turned_as_its_exif_says(model: PretrainedModel, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    PICTURE.save(tmp_path / "turned.png", exif=exif)
    turned = PICTURE.transpose(Image.Transpose.ROTATE_270)
    for source in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        picture, _ = source_of(source)
        assert picture is not None and picture.tobytes() == turned.tobytes()
        assert frames(model, CAPTIONS, source) == frames(model, CAPTIONS, turned)


GREY = PIXELS[..., 0]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (GREY, GREY),
        (GREY[..., None], GREY),
        (GREY.astype(np.uint16) * 257, GREY),
        ((GREY / 255).astype(np.float32), GREY),
        (GREY / 255, GREY),
        ((PIXELS / 255).astype(np.float16), PIXELS),
        (GREY > 100, (GREY > 100) * 255),
        (Image.fromarray(GREY.astype(np.uint16) * 257), GREY),
        (Image.fromarray((GREY / 255).astype(np.float32)), GREY),
        (np.concatenate([PIXELS, np.full((SIDE, SIDE, 1), 255, np.uint8)], -1), PIXELS),
        (np.zeros((SIDE, SIDE, 4), np.uint8), np.full((SIDE, SIDE), 255)),
    ],
)
def test_arrays_and_deep_pictures_keep_their_tones(source: Any, expected: np.ndarray) -> None:
    picture, notes = source_of(source)
    assert picture is not None and notes == []
    expected = expected if expected.ndim == 3 else np.repeat(expected[..., None], 3, -1)
    np.testing.assert_array_equal(np.asarray(picture), expected)


def test_a_picture_that_does_not_say_what_white_is_is_stretched_and_it_is_said(
    model: PretrainedModel, tmp_path: Path
) -> None:
    Image.fromarray(GREY.astype(np.float32) * 10).save(tmp_path / "deep.tif")
    assert "source deep.tif does not say how bright white is" in " ".join(
        model.generate(CAPTIONS, tmp_path / "deep.tif").notes  # type: ignore[operator]
    )


@pytest.mark.parametrize(
    ("source", "what"),
    [
        (7, "source is of type int"),
        ([1, 2], "source is of type list"),
        (b"frame.png", "source is of type bytes"),
        ("nowhere.png", "no source picture 'nowhere.png'"),
        (Path("nowhere.png"), "no source picture 'nowhere.png'"),
        (np.zeros((3, SIDE, SIDE), np.uint8), r"wrong shape: an array of \[3, 16, 16\]"),
        (np.zeros((2, SIDE, SIDE, 3), np.uint8), "wrong shape"),
        (np.zeros((0, SIDE, 3), np.uint8), "wrong shape"),
        (np.zeros((SIDE, SIDE, 3), np.int64), "numbers of type int64"),
        (np.full((SIDE, SIDE), -1.0), "floats from -1 to -1"),
        (np.full((SIDE, SIDE), np.nan), "floats from nan"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_value(model: PretrainedModel, source: Any, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        model.generate(CAPTIONS, source)  # type: ignore[operator]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"source=.*cut\.png is damaged"):
        source_of(tmp_path / "cut.png")


def test_the_source_is_optional_everywhere() -> None:
    made = tiny_story_dalle()
    assert frames(made, CAPTIONS) == frames(made, CAPTIONS, None)
    with pytest.raises(ValueError, match="give a source"):
        tiny_story_gan().eval().generate(CAPTIONS)


# ------------------------------------------------------------------------------------------------ numbers and files


def test_counts_and_seeds_out_of_range_are_refused(model: PretrainedModel) -> None:
    for options, what in (
        ({"num_candidates": 0}, "num_candidates=0: use a whole number, 1 or more"),
        ({"num_candidates": -2}, "num_candidates=-2"),
        ({"seed": 2**63}, "seed=9223372036854775808"),
    ):
        with pytest.raises(ValueError, match=what):
            model.generate(CAPTIONS, PICTURE, **options)  # type: ignore[operator]


@pytest.mark.parametrize("value", ["3", 1.5, True, None, float("nan"), [1]])
def test_what_is_no_whole_number_is_refused_with_its_value(value: Any) -> None:
    for check in (lambda: check_number("top_k", value, 1, whole=True), lambda: check_seed(value)):
        with pytest.raises(ValueError, match=r"=.*whole number"):
            check()
    check_seed(np.int64(3))


@pytest.mark.parametrize("kind", [StoryDALLE, StoryGANc])
@pytest.mark.parametrize("unknown", ["devce", "resolution", "card", "config"])
def test_unknown_settings_of_from_pretrained_are_refused(kind: Any, unknown: str) -> None:
    with pytest.raises(TypeError, match=f"unexpected keyword argument '{unknown}'"):
        kind.from_pretrained("story_dalle", **{unknown: 1})


def test_what_is_asked_of_the_hub_reaches_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {}

    def download(model_id: str, **settings: Any) -> str:
        asked.update(settings, model_id=model_id)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    tiny_story_dalle().save_pretrained(tmp_path)
    StoryDALLE.from_pretrained("owner/name", revision="v2", cache_dir=tmp_path, local_files_only=True)
    expected = {"revision": "v2", "cache_dir": tmp_path, "local_files_only": True, "force_download": False}
    assert asked == {"model_id": "owner/name", "token": None, **expected}


def test_types_ship_with_the_package() -> None:
    package = Path(__file__).parent.parent / "storydalle"
    assert (package / "py.typed").is_file()
    ignored = subprocess.run(["git", "check-ignore", "storydalle/py.typed"], cwd=package.parent, capture_output=True)
    assert ignored.returncode != 0


def test_what_is_handed_in_is_looked_at_without_torch() -> None:
    code = "import sys; import storydalle.stories.caption_files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_a_single_text_may_hold_line_ends() -> None:
    assert captions_of("Pip waves.\nShe jumps.") == ["Pip waves. She jumps."]
