"""Judging: neighbours of another cluster whatever the batches, one view a network, distances named by features."""

import pytest
import torch
from torch import Tensor

from storydalle.evaluation.judges import Neighbours, Scorecard, new_metrics
from storydalle.evaluation.protocol import Protocol
from storydalle.metrics.frechet import FrechetDistance, FrechetStoryDistance
from storydalle.metrics.kernel_distance import KernelDistance
from storydalle.metrics.networks.clip import ImageTextNetwork
from storydalle.metrics.networks.features import ColorLayout, TextNetworkFeatures, features_of
from storydalle.metrics.seen import Neighbour, Networks, Seen, Truth
from storydalle.stories.story import StoryBatch


def neighbour(cluster: str) -> Neighbour:
    return Neighbour(cluster, torch.zeros(3, 4, 4), None, None)


@pytest.mark.parametrize(
    ("clusters", "expected"),
    [
        ("abc", {0: "b", 1: "c", 2: "a"}),
        ("aab", {0: "b", 1: "b", 2: "a"}),
        ("abb", {0: "b", 1: "a", 2: "a"}),
        ("aabba", {0: "b", 1: "b", 2: "a", 3: "a", 4: "b"}),
    ],
)
def test_each_story_meets_the_next_of_another_cluster_and_the_last_the_first(
    clusters: str, expected: dict[int, str]
) -> None:
    met: dict[int, str] = {}
    neighbours = Neighbours(lambda story, other: met.update({story: other.cluster}))
    for i, cluster in enumerate(clusters):
        neighbours.add(i, neighbour(cluster))
    neighbours.finish()
    assert met == expected and not neighbours.waiting


def test_what_waits_is_bounded_by_the_largest_cluster() -> None:
    neighbours = Neighbours(lambda story, other: None)
    longest = 0
    for i in range(100):
        neighbours.add(i, neighbour(str(i // 3)))
        longest = max(longest, len(neighbours.waiting))
    assert longest == 3


class CountingLayout(ColorLayout):
    def __init__(self) -> None:
        self.seen = 0

    def features(self, images: Tensor) -> Tensor:
        self.seen += len(images.flatten(1).unique(dim=0))  # a group may be filled up
        return super().features(images)


def stories(number: int, seed: int = 0) -> StoryBatch:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.rand(number, 3, 3, 16, 16, generator=generator) * 2 - 1
    mask = torch.ones(number, 3, dtype=torch.bool)
    mask[0, 2] = False
    return StoryBatch([["x"] * 3] * number, frames[:, 0], frames.flip(0), mask, {}, [f"s/{i}" for i in range(number)])


PROTOCOL = Protocol(
    name="p",
    dataset="d",
    version="1",
    data={},
    split="test",
    num_stories=6,
    stories="",
    num_targets=3,
    resolution=16,
    metrics=("pixels", "drift", "kernel", "consistency", "copy_rate"),
    subset_size=5,
)


def scored(batch: StoryBatch, size: int, network: CountingLayout) -> dict[str, float]:
    networks = Networks(features=network)
    clusters = {name: name for name in batch.ids}
    card = Scorecard(new_metrics(PROTOCOL, networks, (), 3, None), clusters, network.label)
    for start in range(0, len(batch.ids), size):
        at = slice(start, start + size)
        part = StoryBatch(
            batch.captions[at], batch.source[at], batch.frames[at], batch.mask[at], batch.labels, batch.ids[at]
        )
        truth = Truth.of(part, networks)
        card.update(truth.seen(part.frames.flip(-1)), truth)
    card.finish()
    return card.compute()


def test_scores_do_not_depend_on_the_batch_size() -> None:
    batch = stories(6)
    whole, parts = (scored(batch, size, CountingLayout()) for size in (6, 4))
    assert whole == pytest.approx(parts, abs=1e-6, nan_ok=True)
    assert {"error", "error_at_3", "layout_kd", "consistency_self", "copy_rate_chance"} <= whole.keys()


def test_each_picture_is_seen_once_however_many_scores_ask() -> None:
    network = CountingLayout()
    scored(stories(6), 6, network)
    assert network.seen == 1 + 6 * 3 + 6 * 3, "its width, then drawn and true frames, which the sources are among"


@pytest.mark.parametrize(
    ("label", "names"), [(None, ["fid", "kid", "fsd"]), ("toon", ["toon_fd", "toon_kd", "toon_fsd"])]
)
def test_only_inceptions_distances_are_called_fid_and_kid(label: str | None, names: list[str]) -> None:
    assert [each.full_name(label) for each in (FrechetDistance, KernelDistance, FrechetStoryDistance)] == names


def test_the_color_layout_is_the_mean_of_each_cell() -> None:
    image = torch.zeros(1, 3, 16, 16)
    image[:, 0, :2, 2:4] = 1
    features = features_of(ColorLayout(), image).view(3, 8, 8)
    assert features[0, 0, 1] == 1 and features.sum() == 1


def test_a_text_network_of_ours_names_its_distances_toon_and_another_by_its_own_name() -> None:
    class Other:
        name, sha256 = "clip-b32", "1"

        def embed_images(self, images: Tensor) -> Tensor:
            return images

        def embed_captions(self, captions: list[str]) -> Tensor:
            return torch.zeros(len(captions), 1)

        def features(self, images: Tensor) -> Tensor:
            return images.flatten(1)

        def projected(self, features: Tensor) -> Tensor:
            return features

    other = Other()
    assert isinstance(other, ImageTextNetwork)
    assert TextNetworkFeatures(other).label == "clip-b32"


class CountingEyes(CountingLayout):
    """Looks once for features, and projects them to embeddings."""

    def embed_images(self, images: Tensor) -> Tensor:
        return self.projected(self.features(images))

    def embed_captions(self, captions: list[str]) -> Tensor:
        return torch.zeros(len(captions), 1)

    def projected(self, features: Tensor) -> Tensor:
        return features[:, :2]


def test_equal_pictures_of_a_batch_are_seen_once_by_all_rows() -> None:
    batch, layout = stories(2), CountingLayout()
    truth = Truth.of(batch, Networks(features=layout))
    copied = truth.seen(batch.source[:, None].expand(-1, 3, -1, -1, -1))
    assert truth.seen(batch.frames).features.equal(truth.frames.features)
    assert layout.seen == 6  # the sources are among the frames
    assert torch.equal(copied.features, truth.sources.features.expand(-1, 3, -1)) and layout.seen == 6
    assert not torch.equal(truth.seen(batch.frames.flip(-1)).features, truth.frames.features) and layout.seen == 12


@pytest.mark.parametrize(("features", "looks"), [(True, 6), (False, 12)])
def test_a_network_of_features_and_texts_looks_once_at_each_picture(features: bool, looks: int) -> None:
    text = CountingEyes()
    other = text if features else CountingLayout()
    other.sha256 = text.sha256 if features else "another"
    seen = Seen(stories(2).frames, Networks(features=other, text=text))
    assert seen.embeddings.shape == (2, 3, 2) and seen.features.shape == (2, 3, 192)
    assert torch.equal(seen.embeddings, seen.features[..., :2])
    assert text.seen + (0 if features else other.seen) == looks
