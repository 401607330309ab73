"""Character classifiers: the released ones' layouts, what training keeps, and the labels that it learns from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from storydalle.metrics.networks.character_classifier import (
    CharacterClassifier,
    SmallNetwork,
    new_classifier,
    released_classifier,
)
from storydalle.metrics.networks.inception import IMAGENET_WEIGHTS, ClassLogits
from storydalle.stories.character_labels import character_names
from storydalle.stories.labelled_frames import LabelledFrames
from storydalle.stories.set_stories import SetStories
from storydalle.stories.sets.flintstones import FlintstonesSV
from storydalle.stories.sets.pororo import PororoSV
from storydalle.stories.story import shown_frame
from storydalle.stories.story_set import StoryRecord
from storydalle.stories.toon import CHARACTERS, ToonSV
from tests.test_inception import Restated, images, released_state
from tests.tiny import TinyStories
from tests.toy_set import ToySet, story

SIDE = 16
WHO = {"ada": (1, 0), "bo": (0, 1), "both": (1, 1), "none": (0, 0)}
State = dict[str, Tensor]


# ------------------------------------------------------------------------------------------------ an easy set


def painted(who: tuple[int, int], shade: int, rng: np.random.Generator) -> np.ndarray:
    """Ada is a red square, Bo a blue one, anywhere in their half; the number ``shade`` is in every corner's green."""
    pixels = np.full((SIDE, SIDE, 3), 128, np.uint8)
    for half, (present, color) in enumerate(zip(who, ((255, 0, 0), (0, 0, 255)), strict=True)):
        top, left = rng.integers(1, SIDE - 6), half * SIDE // 2 + rng.integers(1, SIDE // 2 - 5)
        if present:
            pixels[top : top + 5, left : left + 5] = color
    pixels[0, [0, -1], 1] = shade
    return pixels


def easy_set(root: Path, seed: int = 0, is_labelled: Callable[[int], bool] = lambda index: True) -> ToySet:
    """Twelve stories of three clips of two frames each; clip k's frames have the shades 2 k and 2 k + 1."""
    rng = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    records: list[StoryRecord] = []
    for index in range(12):
        names = [list(WHO)[int(rng.integers(4))] for _ in range(3)]
        clips = [f"{index}-{i}-{name}.png" for i, name in enumerate(names)]
        for i, (clip, name) in enumerate(zip(clips, names, strict=True)):
            shades = [2 * (3 * index + i), 2 * (3 * index + i) + 1]
            Image.fromarray(np.concatenate([painted(WHO[name], shade, rng) for shade in shades])).save(root / clip)
        rows = tuple(WHO[name] for name in names) if is_labelled(index) else None
        records.append(story(str(index), " ".join(clips), characters=rows))
    return ToySet(root, {"train": records, "val": records[:4]})


def easy_data(root: Path, batch_size: int = 4, **options: Any) -> LabelledFrames:
    toy = easy_set(root)
    train, val = (SetStories(toy, split, SIDE) for split in ("train", "val"))
    return LabelledFrames(train, val, batch_size, **options)


def shades_of(pictures: Tensor) -> list[int]:
    return ((pictures[:, 1, 0, 0] + 1) * 127.5).round().long().tolist()


def characters_by_shade(toy: ToySet) -> dict[int, tuple[int, ...]]:
    rows = [row for record in toy.records("train") for row in record.characters or ()]
    return {2 * clip + frame: row for clip, row in enumerate(rows) for frame in (0, 1)}


# ------------------------------------------------------------------------------------------------ the data


@pytest.mark.parametrize("frames_per_story", [1, 2, 3])
def test_every_frame_comes_with_its_own_characters(frames_per_story: int, tmp_path: Path) -> None:
    data = easy_data(tmp_path, frames_per_story=frames_per_story)
    right = characters_by_shade(data.train.story_set)  # type: ignore[attr-defined]
    dataset, seen = data.training_set(), set()
    for step in range(30):
        batch = dataset.read([step % 12, (step + 5) % 12], step)
        assert len(batch.images) == len(batch.characters) == 2 * frames_per_story
        for shade, row in zip(shades_of(batch.images), batch.characters.tolist(), strict=True):
            assert tuple(row) == right[shade]
            seen.add(shade)
    assert len(seen) > 40  # sources and targets, both frames of clips, anew in every step


def test_a_training_batch_is_a_function_of_seed_and_step(tmp_path: Path) -> None:
    first, other = (easy_data(tmp_path, seed=seed).training_set() for seed in (0, 1))
    one, again, later, foreign = (
        dataset.read([0, 1, 2], step).images for dataset, step in ((first, 7), (first, 7), (first, 8), (other, 7))
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, later) and not torch.equal(one, foreign)


def test_validation_sees_every_frame_once_as_evaluation_does(tmp_path: Path) -> None:
    data = easy_data(tmp_path)
    batch = data.validation_set().read([0, 1], None)
    shots = [shot for index in (0, 1) for shot in data.val.outline(index).shots]
    assert shades_of(batch.images) == [2 * k + shown_frame(shot, 2) for k, shot in enumerate(shots)]
    right = characters_by_shade(data.val.story_set)  # type: ignore[attr-defined]
    assert [tuple(row) for row in batch.characters.tolist()] == [right[shade] for shade in shades_of(batch.images)]


def test_half_of_the_frames_are_mirrored_unless_told_otherwise(tmp_path: Path) -> None:
    """Ada is left of the middle in every file."""

    def share_on_the_right(mirror: bool) -> float:
        dataset = easy_data(tmp_path, mirror=mirror).training_set()
        batches = [dataset.read(list(range(12)), step) for step in range(12)]
        pictures, rows = (torch.cat(part) for part in zip(*batches, strict=True))
        red = (pictures[:, 0] > 0.9) & (pictures[:, 2] < -0.9)
        return red[rows[:, 0] > 0][:, :, SIDE // 2 :].any(-1).any(-1).float().mean().item()

    assert share_on_the_right(mirror=False) == 0.0
    assert 0.3 < share_on_the_right(mirror=True) < 0.7


def test_images_are_augmented_in_training_alone_and_repeatably(tmp_path: Path) -> None:
    data = easy_data(tmp_path, augment=lambda pictures, rng: pictures * 0 + torch.rand((), generator=rng))
    one, again, later = (data.training_set().read([0], step).images for step in (3, 3, 4))
    assert torch.equal(one, again) and not torch.equal(one, later) and one.unique().numel() == 1
    assert data.validation_set().read([0], None).images.unique().numel() > 1


def test_stories_without_labels_are_left_out(tmp_path: Path) -> None:
    toy = easy_set(tmp_path, is_labelled=lambda index: index % 3 == 0)
    stories = SetStories(toy, "train", SIDE)
    data = LabelledFrames(stories, stories, batch_size=2)
    assert len(data.training_set()) == len(data.validation_set()) == 4
    right = characters_by_shade(easy_set(tmp_path))
    batch = data.training_set().read([0, 1, 2, 3], 0)
    assert [tuple(row) for row in batch.characters.tolist()] == [right[shade] for shade in shades_of(batch.images)]


def test_the_columns_are_named_as_the_data_names_them(tmp_path: Path) -> None:
    assert character_names(ToonSV("val", 1)) == CHARACTERS
    assert character_names(SetStories(easy_set(tmp_path), "train", SIDE)) == ("Ada", "Bo")


def test_data_that_names_no_characters_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="TinyStories does not say which characters are in its frames"):
        character_names(TinyStories(2))
    unlabelled = SetStories(easy_set(tmp_path, is_labelled=lambda index: False), "train", SIDE)
    with pytest.raises(ValueError, match="toy does not say which characters are in its frames"):
        new_classifier(unlabelled, network="small")


# ------------------------------------------------------------------------------------------------ reading


class Fixed(nn.Module):
    """Says the same of every image, and remembers their size."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, pictures: Tensor) -> ClassLogits:
        self.size = tuple(pictures.shape[-2:])
        return ClassLogits(self.logits.expand(len(pictures), -1))


def test_a_character_is_read_where_its_probability_is_over_the_threshold() -> None:
    """As ``torch.round(torch.sigmoid(...))``, which rounds a half down to 0."""
    logits = [-2.0, -1e-3, 0.0, 1e-3, 2.0]
    classifier = CharacterClassifier(Fixed(logits), tuple("ABCDE"), resolution=8).eval()
    assert classifier.read(images(2, 8)).tolist() == [[0, 0, 0, 1, 1]] * 2
    torch.testing.assert_close(classifier.probabilities(images(1, 8))[0], torch.tensor(logits).sigmoid())
    sure = CharacterClassifier(Fixed(logits), tuple("ABCDE"), resolution=8, threshold=0.8).eval()
    assert sure.read(images(1, 8)).tolist() == [[0, 0, 0, 0, 1]]


def test_images_of_any_size_are_read_at_the_classifiers_own() -> None:
    classifier = CharacterClassifier(Fixed([0.0]), ["Ada"], resolution=8).eval()
    for side in (4, 8, 32):
        classifier.read(images(1, side))
        assert classifier.network.size == (8, 8)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("names", "threshold", "told"),
    [
        ([], 0.5, "names="),
        (["Ada", "Ada"], 0.5, "names="),
        (["Ada"], 0.5, "1 names .* for 2 outputs"),
        ("AB", 1.5, "1.5"),
    ],
)
def test_names_and_thresholds_that_make_no_sense_are_refused(names: list[str], threshold: float, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        CharacterClassifier(SmallNetwork(2, (4, 8)), names, 16, threshold)


# ------------------------------------------------------------------------------------------------ released files


def names_of(number: int) -> list[str]:
    return [f"character {i}" for i in range(number)]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, State]:
    """As StoryViz and StoryGPT-V write theirs: torchvision's network with nine outputs on both heads, and counters."""
    state = released_state(9, has_auxiliary=True, has_counters=True, seed=3)
    path = tmp_path_factory.mktemp("released") / "classifier_char.pt"
    torch.save(state, path)
    return path, state


def test_a_released_classifier_reads_what_its_restatement_reads(released: tuple[Path, State]) -> None:
    path, state = released
    classifier = released_classifier(path, PororoSV.characters)
    assert classifier.names == PororoSV.characters and classifier.resolution == 299
    assert classifier.weights_sha256 is not None and not any(p.requires_grad for p in classifier.parameters())
    pictures = images(1, side=64)
    restated = Restated(state, is_fid=False)
    large = F.interpolate(pictures, (299, 299), mode="bilinear", antialias=True)
    expected = restated.logits(large)
    torch.testing.assert_close(classifier(pictures).main, expected, atol=1e-3, rtol=1e-3)
    assert 0 < classifier.read(pictures).sum() < 9
    assert classifier.read(pictures).tolist() == expected.sigmoid().round().long().tolist()


def test_the_released_evaluation_shows_the_network_normalised_pictures(released: tuple[Path, State]) -> None:
    path, state = released
    classifier = released_classifier(path, PororoSV.characters, transform_input=False)
    pictures = images(1, side=299)
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    expected = Restated(state, is_fid=False).logits(((pictures + 1) / 2 - mean) / deviation)
    torch.testing.assert_close(classifier(pictures).main, expected, atol=1e-3, rtol=1e-3)


def test_the_number_of_outputs_must_be_that_of_the_names(released: tuple[Path, State], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fc.weight is \(9, 2048\), .* there are 7 names \(Fred, Wilma"):
        released_classifier(released[0], ["Fred", "Wilma", *names_of(5)])
    torch.save({"fc.weight": torch.ones(323, 2048)}, tmp_path / "classifier_bg.pt")
    with pytest.raises(ValueError, match=r"the one of backgrounds, use classifier_char.pt"):
        released_classifier(tmp_path / "classifier_bg.pt", FlintstonesSV.characters)


def test_a_classifier_without_the_auxiliary_head_is_opened_too(released: tuple[Path, State], tmp_path: Path) -> None:
    state = {name: value for name, value in released[1].items() if not name.startswith("AuxLogits.")}
    torch.save(state, tmp_path / "no-aux.pt")
    assert released_classifier(tmp_path / "no-aux.pt", names_of(9)).network.AuxLogits is None
    half = state | {"AuxLogits.fc.weight": released[1]["AuxLogits.fc.weight"]}
    torch.save(half, tmp_path / "half.pt")
    with pytest.raises(
        ValueError, match=r"half.pt is no file of ClassifierInception: AuxLogits.conv0.conv.weight is miss"
    ):
        released_classifier(tmp_path / "half.pt", names_of(9))


def test_another_networks_file_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.ones(9, 512), "conv1.weight": torch.ones(64, 3, 7, 7)}, tmp_path / "resnet.pt")
    with pytest.raises(ValueError, match=r"resnet.pt .* Conv2d_1a_3x3.conv.weight is missing .*begins with fc.weight"):
        released_classifier(tmp_path / "resnet.pt", names_of(9))
    with pytest.raises(ValueError, match=r"no classifier at .*absent.pt"):
        released_classifier(tmp_path / "absent.pt", names_of(9))


def test_imagenets_weights_are_taken_but_for_the_last_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = released_state(1000, has_auxiliary=True, has_counters=False)
    torch.save(state, tmp_path / IMAGENET_WEIGHTS)
    monkeypatch.setenv("STORYDALLE_WEIGHTS", str(tmp_path))
    network = new_classifier(ToonSV("val", 1), pretrained="imagenet").network
    own = network.state_dict()
    fresh = {"fc.weight", "fc.bias", "AuxLogits.fc.weight", "AuxLogits.fc.bias"}
    assert {name for name, value in state.items() if not torch.equal(own[name], value)} == fresh
    assert own["fc.weight"].shape == (len(CHARACTERS), 2048) and network.transform_input
    monkeypatch.setenv("STORYDALLE_WEIGHTS", str(tmp_path / "elsewhere"))
    with pytest.raises(ValueError, match=f"elsewhere/{IMAGENET_WEIGHTS}: get {IMAGENET_WEIGHTS} .*download.pytorch"):
        new_classifier(ToonSV("val", 1), pretrained="imagenet")


# ------------------------------------------------------------------------------------------------ folders of ours


def small(seed: int = 0) -> CharacterClassifier:
    torch.manual_seed(seed)
    return CharacterClassifier(SmallNetwork(2, (8, 16)), ("Ada", "Bo"), SIDE, threshold=0.4, resize="area")


def test_a_saved_classifier_reads_the_same(tmp_path: Path) -> None:
    saved = small().eval()
    saved.save_pretrained(tmp_path)
    again = CharacterClassifier.from_pretrained(tmp_path)
    assert (again.names, again.resolution, again.threshold, again.resize) == (("Ada", "Bo"), SIDE, 0.4, "area")
    assert torch.equal(again.probabilities(images(3, 32)), saved.probabilities(images(3, 32)))
    assert again.weights_sha256 is not None


def test_a_saved_inception_keeps_how_it_sees_pictures(released: tuple[Path, State], tmp_path: Path) -> None:
    released_classifier(released[0], names_of(9), transform_input=False).save_pretrained(tmp_path)
    again = CharacterClassifier.from_pretrained(tmp_path)
    assert not again.network.transform_input and torch.equal(again.network.fc.weight, released[1]["fc.weight"])


def test_a_folder_of_something_else_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config.json is not the configuration of a character classifier"):
        CharacterClassifier.from_pretrained(tmp_path)
    small().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for wrong in ({"network": "vgg"}, {"settings": {"depth": 3}}, {"threshold": "high"}, {"names": ["Ada"]}):
        (tmp_path / "config.json").write_text(json.dumps(config | wrong))
        with pytest.raises(ValueError, match=r"config.json is not the configuration of a character classifier"):
            CharacterClassifier.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config | {"settings": {"num_classes": 2, "dims": [8, 24]}}))
    with pytest.raises(
        ValueError, match=r"model.safetensors is no file of SmallNetwork: maps.* is \(16, .*should be \(24"
    ):
        CharacterClassifier.from_pretrained(tmp_path)


def test_a_network_that_cannot_be_made_again_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a Fixed is not saved"):
        CharacterClassifier(Fixed([0.0]), ["Ada"], 8).save_pretrained(tmp_path)
