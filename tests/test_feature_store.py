"""Features kept by content: read instead of computed, whatever the order, the batch, a kill or another network."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from storydalle.metrics.networks.feature_store import StoredFeatures


class Counting:
    """Means of channels, and how many pictures were seen."""

    label = "counting"

    def __init__(self, name: str = "counting", sha256: str = "1", resize: str | None = None) -> None:
        self.name, self.sha256, self.resize, self.seen = name, sha256, resize, 0

    def features(self, images: Tensor) -> Tensor:
        self.seen += len(images.flatten(1).unique(dim=0))  # a group may be filled up
        return images.mean((2, 3))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_what_was_seen_once_is_read_in_any_order_and_batch(images: Tensor, tmp_path: Path):
    network = Counting()
    store = StoredFeatures(network, tmp_path)
    first = store.features(images[:4])
    assert torch.equal(first, images[:4].mean((2, 3)))
    network.seen = 0
    again = StoredFeatures(network, tmp_path)
    assert network.seen == 1, "its width is asked for"
    assert torch.equal(again.features(images[[3, 5, 0, 3]]), images[[3, 5, 0, 3]].mean((2, 3)))
    assert network.seen == 2, "only the fifth is new"


def test_a_picture_that_comes_twice_in_a_batch_is_kept_once(images: Tensor, tmp_path: Path):
    store = StoredFeatures(Counting(), tmp_path)
    store.features(images[[0, 0, 1]])
    assert len(store.places) == 2 and store.vectors_file.stat().st_size == 2 * 3 * 4


@pytest.mark.parametrize("other", [Counting(sha256="2"), Counting(resize="clean"), Counting(name="others")])
def test_another_network_or_resize_has_features_of_its_own(other: Counting, images: Tensor, tmp_path: Path):
    StoredFeatures(Counting(), tmp_path).features(images)
    other.seen = 0
    StoredFeatures(other, tmp_path).features(images)
    assert other.seen == 7


@pytest.mark.parametrize("file", ["keys.bin", "vectors.bin"])
@pytest.mark.parametrize("lost", [1, 13, 20])
def test_what_a_kill_left_half_written_is_seen_again(file: str, lost: int, images: Tensor, tmp_path: Path):
    store = StoredFeatures(Counting(), tmp_path)
    store.features(images[:3])
    path = store.keys_file.with_name(file)
    path.write_bytes(path.read_bytes()[:-lost])
    cut = StoredFeatures(Counting(), tmp_path)
    assert len(cut.places) in (1, 2)
    assert torch.equal(cut.features(images), images.mean((2, 3)))
    assert len(cut.places) == 6


def test_one_changed_pixel_is_another_picture(images: Tensor, tmp_path: Path):
    store = StoredFeatures(Counting(), tmp_path)
    store.features(images[:1])
    changed = images[:1].clone()
    changed[0, 0, 0, 0] += 0.5
    assert torch.equal(store.features(changed), changed.mean((2, 3)))
