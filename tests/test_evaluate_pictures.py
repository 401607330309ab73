"""evaluate: a frame is judged alike by whichever door it comes, and reaches the judges' size as its protocol says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from storydalle.commands.application import compose
from storydalle.commands.main import main
from storydalle.evaluation.drawn import DrawnFrames
from storydalle.evaluation.entries import as_judged
from storydalle.evaluation.evaluation_settings import EvaluationSettings
from storydalle.metrics.declared import explanation
from storydalle.metrics.networks.features import TextNetworkFeatures, features_of
from storydalle.metrics.networks.inception import resized
from storydalle.metrics.seen import Networks, Seen
from storydalle.mistakes import UserError
from storydalle.stories.images import from_images, to_images, to_tensor
from storydalle.stories.resizing import at_size
from storydalle.stories.set_stories import SetStories
from storydalle.stories.toon import ToonSV
from tests.evaluations import reader_measured_once  # noqa: F401
from tests.tiny import tiny_story_dalle
from tests.toy_set import ToySet, noise, story

JUDGED = 299


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of 72 pixels, where ToonSV is judged at 128."""
    monkeypatch.chdir(tmp_path)
    tiny_story_dalle(resolution=72).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def values_of(out: str, row: str) -> dict[str, float | None]:
    return json.loads(Path(out, "test", "metrics.json").read_text())["values"][row]


def evaluate(*settings: str) -> int:
    return main(["evaluate", "text_to_image=null", "splits=[test]", "num_stories=6", *settings])


def test_saved_frames_have_every_score_of_the_model_that_drew_them_to_the_last_digit(model: Path):
    """In other batches too, and with nothing left of what the judges saw before."""
    assert evaluate(f"model={model}", "save=saved", "out=drawn", "batch_size=4") == 0
    assert Image.open(next(Path("saved").rglob("*.png"))).size == (72, 72)
    assert evaluate("images=saved/tiny", "out=read", "batch_size=6", "runs=elsewhere") == 0
    drawn, read = values_of("drawn", str(model)), values_of("read", "saved/tiny")
    assert {"error", "clip_t", "copy_rate", "consistency_self", "character_micro_f1"} <= read.keys()
    assert {name: drawn[name] for name in read} == read
    hashes = [json.loads(Path(out, "test", "metrics.json").read_text())["protocol_hash"] for out in ("drawn", "read")]
    assert hashes[0] == hashes[1]


@pytest.mark.parametrize("interpolation", ["lanczos", "clean"])
def test_a_model_a_folder_and_a_set_reach_the_size_of_the_judging_by_one_way(interpolation: str, tmp_path: Path):
    clips = [f"{i}.png" for i in range(3)]
    for i, clip in enumerate(clips):
        noise(i, 40, 40).save(tmp_path / clip)
        (tmp_path / "drawn" / "a").mkdir(parents=True, exist_ok=True)
        noise(i, 40, 40).save(tmp_path / "drawn" / "a" / f"{i}.png")
    (tmp_path / "drawn" / "a" / "0.png").unlink()
    toy = ToySet(tmp_path, {"test": [story("a", " ".join(clips))]})
    (true,) = SetStories(toy, "test", JUDGED, interpolation=interpolation)
    read = DrawnFrames(tmp_path / "drawn", {"a": 2}, JUDGED, interpolation=interpolation).read("a")
    assert read.dtype == true.frames.dtype == (np.float32 if interpolation == "clean" else np.uint8)
    assert np.array_equal(read, true.frames)
    own = to_tensor(np.stack([np.asarray(noise(i, 40, 40)) for i in (1, 2)]))
    of_model = as_judged(own[None] + 1e-4, JUDGED, interpolation)[0]
    assert torch.equal(of_model, to_tensor(read))


def test_clean_is_bicubic_of_float_channels_from_the_pictures_own_size_clipped_and_not_rounded():
    """As clean-fid's resizer, restated; Lanczos first, or 8 bits, would be another picture."""
    for size in ((40, 40), (600, 480)):
        picture = noise(0, *size)
        side = min(size)
        left, top = (size[0] - side) // 2, (size[1] - side) // 2
        square = np.asarray(picture.crop((left, top, left + side, top + side)))
        channels = [
            np.asarray(Image.fromarray(square[..., c].astype(np.float32)).resize((JUDGED, JUDGED), Image.BICUBIC))
            for c in range(3)
        ]
        expected = np.clip(np.stack(channels, -1), 0, 255)
        found = at_size(picture, JUDGED, "clean")
        assert np.array_equal(found, expected) and expected.min() == 0 and expected.max() == 255
        assert not np.array_equal(found, np.rint(found)), "not rounded"
        ours = resized(to_tensor(square[None]), "clean")
        torch.testing.assert_close(ours, to_tensor(expected[None]), atol=2e-3, rtol=0)
        assert (ours.abs() <= 1).all()


def test_clean_protocols_judge_clean_pictures_and_say_so_in_their_hash():
    assert compose("evaluate", ["data=pororo"]).protocol.interpolation == "clean"
    assert compose("evaluate", ["data=flintstones", "protocol=flintstones_4-frame"]).protocol.interpolation == "clean"
    assert "interpolation" not in compose("evaluate", ["data=pororo", "protocol=pororo_legacy"]).protocol


def test_an_unknown_way_to_the_size_is_named_with_the_nearest():
    settings = OmegaConf.to_container(compose("evaluate", ["+protocol.interpolation=clear"]), resolve=True)
    with pytest.raises(UserError, match=r"no protocol\.interpolation=clear; did you mean clean"):
        EvaluationSettings.of(settings)


def test_what_a_network_sees_of_a_picture_does_not_depend_on_those_beside_it():
    from storydalle.metrics.networks.clip import open_image_text_network
    from storydalle.models.zoo import zoo_folder

    network = open_image_text_network(zoo_folder() / "clip")
    features = TextNetworkFeatures(network)
    frames = to_tensor(np.stack([each.frames for each in ToonSV("test", 6, resolution=64)]))
    networks = Networks(text=network)
    alone = torch.cat([Seen(story[None], networks).embeddings for story in frames])
    assert torch.equal(Seen(frames, networks).embeddings, alone)
    pictures = frames.flatten(0, 1)
    by_one = torch.cat([features_of(features, each[None]) for each in pictures])
    assert torch.equal(features_of(features, pictures), by_one)


def test_candidates_are_chosen_among_as_the_pictures_that_generate_chooses_among():
    exact = torch.rand(1, 2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(as_judged(exact, 16, "lanczos")[0], from_images(to_images(exact[0]), 16))


def test_each_diagnostic_is_called_and_explained_as_what_it_is(model: Path):
    assert evaluate(f"model={model}", "diagnose=3", "out=out") == 0
    rows = json.loads(Path("out/test/metrics.json").read_text())["diagnostics"][str(model)]["rows"]
    own = {
        "another story's source": "change_other_source",
        "blank source": "change_blank_source",
        "shuffled captions": "change_shuffled_captions",
        "other seeds": "diversity",
        "true inputs": None,
    }
    assert set(rows) == set(own)
    page, table = Path("out/test/index.html").read_text(), Path("out/table.md").read_text()
    for row, score in own.items():
        found = {name for name in rows[row] if name.startswith(("change_", "diversity"))}
        assert found == ({f"{score}_{kind}" for kind in ("pixels", "features")} if score else set())
        for name in found:
            assert explanation(name)
        if score:
            assert explanation(f"{score}_pixels").replace("'", "&#x27;") in page
    assert explanation("error_slope") in page, "the slope is explained as the slope"
    header = next(line for line in table.splitlines() if "change: pixels" in line)
    assert [title.strip() for title in header.split("|")[-3:-1]] == ["change: pixels", "change: features"]
    line = next(line for line in table.splitlines() if line.startswith("| other seeds |"))
    assert line.split("|")[-3].strip() != "-" != line.split("|")[-2].strip()
