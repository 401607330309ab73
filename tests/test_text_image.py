"""Text and pictures: R-precision, CLIP-T, BLEU of captions read back and reranking."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.text import BLEUScore

from storydalle.metrics.networks.clip import ImageTextNetwork
from storydalle.metrics.text_image import (
    ClipT,
    EmbeddedCaptions,
    RecaptioningBleu,
    RPrecision,
    caption_cosines,
    rerank,
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def told(num_stories: int, num_frames: int) -> dict[str, list[str]]:
    """Stories whose captions all differ."""
    return {f"s/{i}": [f"Caption {i} {frame}." for frame in range(num_frames)] for i in range(num_stories)}


def embedded(captions: dict[str, list[str]], dim: int = 16, seed: int = 0) -> EmbeddedCaptions:
    return EmbeddedCaptions.of(captions, lambda texts: noise(len(texts), dim, seed=seed))


def own_embeddings(captions: EmbeddedCaptions, ids: Sequence[str]) -> Tensor:
    """Frames that lie just where their captions do."""
    return torch.stack([captions.embeddings[captions.of_story[name]] for name in ids]).float()


def everywhere(frames: Tensor) -> Tensor:
    return torch.ones(frames.shape[:2], dtype=torch.bool)


class Eye:
    """An image-text network whose picture is its own embedding, and whose captions are looked up."""

    name, sha256 = "eye", "0" * 64

    def __init__(self, texts: dict[str, Tensor] | None = None) -> None:
        self.texts = texts or {}
        self.asked = 0

    def embed_images(self, images: Tensor) -> Tensor:
        self.asked += len(images.flatten(1).unique(dim=0))  # a group may be filled up
        return F.normalize(images.flatten(1), dim=-1)

    def embed_captions(self, captions: Sequence[str]) -> Tensor:
        return F.normalize(torch.stack([self.texts[text] for text in captions]), dim=-1)

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)

    def projected(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=-1)


# ------------------------------------------------------------------------------------------------ captions


def test_equal_captions_are_embedded_once() -> None:
    asked: list[list[str]] = []

    def embed(texts: list[str]) -> Tensor:
        asked.append(texts)
        return noise(len(texts), 4)

    captions = EmbeddedCaptions.of({"a": ["They sleep.", "Pip  waves."], "b": ["pip waves.", "Lulu runs."]}, embed)
    assert asked == [["They sleep.", "Pip  waves.", "Lulu runs."]]
    assert captions.of_story == {"a": [0, 1], "b": [1, 2]}


def test_no_captions_and_lost_embeddings_are_refused() -> None:
    with pytest.raises(ValueError, match="no captions"):
        EmbeddedCaptions.of({"a": []}, lambda texts: noise(len(texts), 4))
    with pytest.raises(ValueError, match="1 embeddings of 2 captions"):
        EmbeddedCaptions.of({"a": ["x", "y"]}, lambda texts: noise(1, 4))


# ------------------------------------------------------------------------------------------------ R-precision


def test_unrelated_embeddings_are_right_once_in_a_hundred() -> None:
    captions = embedded(told(400, 5))
    metric = RPrecision(captions, num_draws=1)
    frames = noise(400, 5, 16, seed=1)
    metric.update(frames, everywhere(frames), list(captions.of_story))
    right = round(metric.compute()["r_precision"] * 2000)
    assert metric.chance == 0.01
    assert 7 <= right <= 36  # 99.9 % of Binomial(2000, 1/100)


def test_frames_that_lie_at_their_captions_are_all_right() -> None:
    captions = embedded(told(30, 4))
    frames = own_embeddings(captions, list(captions.of_story))
    metric = RPrecision(captions)
    metric.update(frames, everywhere(frames), list(captions.of_story))
    assert metric.compute() == {"r_precision": 1.0, "r_precision_deviation": 0.0}
    assert metric.counts() == {"stories": 30, "r_precision": 120}
    assert metric.compute_intervals(100)["r_precision"] == (1.0, 1.0)


def test_a_caption_that_ties_with_a_negative_is_a_miss() -> None:
    captions = EmbeddedCaptions.of(told(30, 4), lambda texts: torch.ones(len(texts), 4))
    frames = own_embeddings(captions, list(captions.of_story))
    metric = RPrecision(captions)
    metric.update(frames, everywhere(frames), list(captions.of_story))
    assert metric.compute()["r_precision"] == 0.0


def repeating(num_stories: int = 60) -> dict[str, list[str]]:
    """Stories that share captions with each other, and say some twice, in other cases and spaces."""
    stories = {}
    for i in range(num_stories):
        own = [f"Pip waves {i}.", f"pip  WAVES {i}.", f"They sleep {i % 7}.", "She jumps.", f"Lulu runs {i // 2}."]
        stories[f"s/{i}"] = own
    return stories


def test_negatives_are_distinct_captions_of_other_stories_and_never_the_truth() -> None:
    stories = repeating()
    captions = embedded(stories)
    metric = RPrecision(captions, num_negatives=60, num_draws=5)
    for name, own in stories.items():
        said = {" ".join(text.lower().split()) for text in own}
        for frame in range(len(own)):
            for draw in metric.negatives(name, frame).tolist():
                texts = {" ".join(captions.texts[index].lower().split()) for index in draw}
                assert len(texts) == 60 and not texts & said


def test_every_caption_of_the_other_stories_can_be_drawn() -> None:
    captions = embedded(repeating(8))
    own = set(captions.of_story["s/3"])
    others = set(range(len(captions.texts))) - own
    metric = RPrecision(captions, num_negatives=len(others), num_draws=2)
    assert [set(draw) for draw in metric.negatives("s/3", 0).tolist()] == [others, others]


def test_negatives_differ_by_draw_frame_story_and_seed_and_by_nothing_else() -> None:
    captions = embedded(told(60, 4))
    metric = RPrecision(captions, num_negatives=20)
    draws = [tuple(sorted(row)) for row in metric.negatives("s/1", 0).tolist()]
    assert len(set(draws)) == 10
    assert torch.equal(metric.negatives("s/1", 0), RPrecision(captions, num_negatives=20).negatives("s/1", 0))
    for other in (
        metric.negatives("s/1", 1),
        metric.negatives("s/2", 0),
        RPrecision(captions, num_negatives=20, seed=1).negatives("s/1", 0),
    ):
        assert not {tuple(sorted(row)) for row in other.tolist()} & set(draws)


def test_mean_and_deviation_are_those_of_the_draws() -> None:
    captions = embedded(told(12, 3), dim=3)
    ids = list(captions.of_story)
    frames = own_embeddings(captions, ids) + 0.8 * noise(12, 3, 3, seed=1)
    metric = RPrecision(captions, num_negatives=5, num_draws=4)
    metric.update(frames, everywhere(frames), ids)
    right = torch.zeros(4)
    for row, name in enumerate(ids):
        for frame in range(3):
            against = metric.negatives(name, frame)
            for draw in range(4):
                cosines = [
                    F.cosine_similarity(frames[row, frame], captions.embeddings[index].float(), dim=0).item()
                    for index in [captions.of_story[name][frame], *against[draw].tolist()]
                ]
                right[draw] += cosines[0] == max(cosines)
    expected = right / 36
    assert expected.std() > 0 and 0.1 < expected.mean() < 0.95
    assert metric.compute() == {
        "r_precision": pytest.approx(expected.mean().item()),
        "r_precision_deviation": pytest.approx(expected.std().item()),
    }


@pytest.mark.parametrize("kind", [RPrecision, ClipT])
def test_scores_do_not_depend_on_order_and_batches(kind: Callable[..., Any]) -> None:
    captions = embedded(told(40, 3), dim=4)
    ids = list(captions.of_story)
    frames = own_embeddings(captions, ids) + noise(40, 3, 4, seed=1)
    whole = kind(captions)
    whole.update(frames, everywhere(frames), ids)
    parts = kind(captions)
    for row in torch.randperm(40, generator=torch.Generator().manual_seed(0)).split(7):
        parts.update(frames[row], everywhere(frames[row]), [ids[i] for i in row.tolist()])
    assert parts.compute() == whole.compute()
    assert parts.compute_intervals(50) == whole.compute_intervals(50)


def test_a_single_draw_has_no_deviation() -> None:
    captions = embedded(told(30, 4))
    frames = own_embeddings(captions, ["s/0"])
    metric = RPrecision(captions, num_draws=1)
    metric.update(frames, everywhere(frames), ["s/0"])
    scores = metric.compute()
    assert scores["r_precision"] == 1.0 and scores["r_precision_deviation"] != scores["r_precision_deviation"]


def test_too_few_captions_to_be_told_from_are_refused() -> None:
    with pytest.raises(ValueError, match="has 96 distinct captions"):
        RPrecision(embedded(told(25, 4)))
    RPrecision(embedded(told(25, 4)), num_negatives=96)
    with pytest.raises(ValueError, match="num_draws=0"):
        RPrecision(embedded(told(30, 4)), num_draws=0)


# ------------------------------------------------------------------------------------------------ both


@pytest.mark.parametrize("kind", [RPrecision, ClipT])
def test_pictures_and_their_embeddings_score_the_same(kind: Callable[..., Any]) -> None:
    captions, network = embedded(told(40, 3), dim=12), Eye()
    ids, images = list(captions.of_story)[:5], noise(5, 3, 3, 2, 2)
    seen, given = kind(captions, network), kind(captions)
    seen.update(images, everywhere(images), ids)
    given.update(F.normalize(images.flatten(2), dim=-1), everywhere(images), ids)
    assert isinstance(network, ImageTextNetwork) and network.asked == 15
    assert seen.compute() == given.compute()


@pytest.mark.parametrize("kind", [RPrecision, ClipT])
def test_frames_that_do_not_exist_count_for_nothing(kind: Callable[..., Any]) -> None:
    captions = embedded(told(40, 3) | {"short": ["One caption."]})
    frames = own_embeddings(captions, ["s/0", "s/1"])
    frames = torch.cat([frames, frames[:1]])
    frames[2, 0] = captions.embeddings[captions.of_story["short"][0]]
    mask = torch.tensor([[True, True, True], [True, False, True], [True, False, False]])
    metric, other = kind(captions), kind(captions)
    metric.update(frames, mask, ["s/0", "s/1", "short"])
    frames[~mask] = float("nan")
    other.update(frames, mask, ["s/0", "s/1", "short"])
    assert metric.counts()[metric.names[0]] == 6
    assert metric.compute() == other.compute()
    assert metric.compute()[metric.names[0]] == pytest.approx(1.0)


@pytest.mark.parametrize("kind", [RPrecision, ClipT])
def test_what_cannot_be_compared_is_refused_and_named(kind: Callable[..., Any]) -> None:
    metric = kind(embedded(told(40, 3)))
    frames = noise(2, 3, 16)
    mask = everywhere(frames)
    with pytest.raises(ValueError, match="'s/99' has no captions"):
        metric.update(frames, mask, ["s/0", "s/99"])
    with pytest.raises(ValueError, match="'s/1' has 3 captions, and a frame after"):
        metric.update(noise(2, 4, 16), torch.tensor([[True, True, True, False], [True] * 4]), ["s/0", "s/1"])
    with pytest.raises(ValueError, match=r"give \(b, f, 16\)"):
        metric.update(noise(2, 3, 8), mask, ["s/0", "s/1"])
    with pytest.raises(ValueError, match="pictures need a network"):
        metric.update(noise(2, 3, 3, 2, 2), mask, ["s/0", "s/1"])
    frames[1, 2, 5] = float("nan")
    with pytest.raises(ValueError, match="'s/1' has embeddings that are nan"):
        metric.update(frames, mask, ["s/0", "s/1"])


# ------------------------------------------------------------------------------------------------ CLIP-T


def test_clip_t_is_the_mean_cosine_beside_that_with_other_stories_captions() -> None:
    texts = {"up": [0.0, 2.0], "right": [3.0, 0.0], "left": [-1.0, 0.0]}
    stories = {"a": ["up", "right"], "b": ["left", "left"]}
    captions = EmbeddedCaptions.of(stories, lambda told: torch.tensor([texts[text] for text in told]))
    frames = torch.tensor([[[0.0, 5.0], [1.0, 1.0]], [[-2.0, 0.0], [0.0, 1.0]]])
    metric = ClipT(captions)
    metric.update(frames, everywhere(frames), ["a", "b"])
    half = 0.5**0.5
    # Story a against "left" (twice), story b against "up" and "right".
    chance = [0.0, -half, (0 - 1) / 2, (1 + 0) / 2]
    assert metric.compute() == {
        "clip_t": pytest.approx((1 + half + 1 + 0) / 4),
        "clip_t_chance": pytest.approx(sum(chance) / 4),
    }


def test_one_story_alone_has_no_chance_level() -> None:
    captions = embedded(told(1, 2))
    frames = own_embeddings(captions, ["s/0"])
    metric = ClipT(captions)
    metric.update(frames, everywhere(frames), ["s/0"])
    scores = metric.compute()
    assert scores["clip_t"] == pytest.approx(1.0) and scores["clip_t_chance"] != scores["clip_t_chance"]


# ------------------------------------------------------------------------------------------------ BLEU


READ = ["Pip waves at the sea, happily.", "she JUMPS up high.", "A fox sleeps in the snow.", "They run."]
SAID = [["Pip waves by the sea, happily.", "She jumps up high."], ["The fox sleeps in the snow.", "Now they run fast."]]
TOKENIZED = [
    ["pip waves at the sea , happily .", "she jumps up high .", "a fox sleeps in the snow .", "they run ."],
    ["pip waves by the sea , happily .", "she jumps up high .", "the fox sleeps in the snow .", "now they run fast ."],
]


class Reader:
    """A captioner that says prepared captions, by the number that a picture shows."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __call__(self, images: Tensor) -> list[str]:
        return [self.texts[round(image[0, 0, 0].item())] for image in images]


def numbered(num_stories: int, num_frames: int) -> Tensor:
    return torch.arange(num_stories * num_frames).view(num_stories, num_frames, 1, 1, 1).expand(-1, -1, 3, 2, 2).float()


@pytest.mark.parametrize("longer", [False, True])
def test_bleu_is_that_of_one_lower_cased_corpus(longer: bool) -> None:
    """More words read than told cost precision, fewer the penalty for brevity."""
    read, said, (read_words, said_words) = READ, SAID, TOKENIZED
    if longer:
        read, said = [text for story in SAID for text in story], [READ[:2], READ[2:]]
        read_words, said_words = said_words, read_words
    metric = RecaptioningBleu(Reader(read))
    frames = numbered(2, 2)
    metric.update(frames, said, everywhere(frames), ["a", "b"])
    expected = {}
    for n in (2, 3):
        bleu = BLEUScore(n_gram=n)
        bleu.update(read_words, [[text] for text in said_words])
        expected[f"bleu_{n}"] = pytest.approx(bleu.compute().item(), abs=1e-6)
    assert metric.compute() == expected
    assert 0 < metric.compute()["bleu_3"] < metric.compute()["bleu_2"] < 1
    assert metric.counts() == {"stories": 2, "bleu_2": 19 + 2 * longer, "bleu_3": 15 + 2 * longer}


def test_captions_read_back_word_for_word_score_one_and_silence_none() -> None:
    frames = numbered(2, 2)
    for texts, score in (([text for story in SAID for text in story], 1.0), ([""] * 4, 0.0)):
        metric = RecaptioningBleu(Reader(texts))
        metric.update(frames, SAID, everywhere(frames))
        assert metric.compute() == {"bleu_2": pytest.approx(score), "bleu_3": pytest.approx(score)}


def test_bleu_counts_only_frames_that_exist() -> None:
    frames, mask = numbered(2, 2), torch.tensor([[True, True], [True, False]])
    metric, alone = RecaptioningBleu(Reader(READ)), RecaptioningBleu(Reader(READ))
    metric.update(frames, [SAID[0], SAID[1][:1]], mask)
    alone.update(frames[:1], SAID[:1], mask[:1])
    alone.update(frames[1:, :1], [SAID[1][:1]], mask[1:, :1])
    assert metric.compute() == alone.compute()
    with pytest.raises(ValueError, match="1 captions, and a frame after"):
        metric.update(frames, [SAID[0], SAID[1][:1]], everywhere(frames))


def test_a_captioner_that_loses_frames_is_refused() -> None:
    frames = numbered(2, 2)
    with pytest.raises(ValueError, match="1 captions for 2 frames"):
        RecaptioningBleu(lambda images: ["one"]).update(frames, SAID, everywhere(frames))


# ------------------------------------------------------------------------------------------------ reranking


def test_reranking_prefers_the_candidate_whose_frames_show_their_captions() -> None:
    captions = ["up", "right"]
    network = Eye({"up": torch.tensor([0.0, 1.0, 0.0]), "right": torch.tensor([1.0, 0.0, 0.0])})
    right = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    candidates = torch.stack([right.flip(0), right, right[[0, 0]]]).view(3, 2, 3, 1, 1)
    assert caption_cosines(network, captions, candidates).tolist() == [[0, 0], [1, 1], [1, 0]]
    assert rerank(network, captions, candidates).tolist() == [0.0, 1.0, 0.5]
    with pytest.raises(ValueError, match="2 captions for 1 frames"):
        rerank(network, captions, candidates[:, :1])
