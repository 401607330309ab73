"""StoryGANc's networks one by one: story encoder, generator, discriminators, losses and augmentation."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from storydalle.models.story_gan.augmentation import POLICIES, Augmentation
from storydalle.models.story_gan.discriminators import ImageDiscriminator, StoryDiscriminator
from storydalle.models.story_gan.generator import Generator, SourceEncoder
from storydalle.models.story_gan.losses import LOSSES, character_loss, fooled, gradient_penalty, masked
from storydalle.models.story_gan.story_encoder import GANStoryEncoder, Noise, StoryState, Text2Gist


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def full(num_stories: int, num_frames: int) -> Tensor:
    return torch.ones(num_stories, num_frames, dtype=torch.bool)


def encoder(**options: Any) -> GANStoryEncoder:
    torch.manual_seed(0)
    return GANStoryEncoder(6, sentence_dim=8, content_dim=24, noise_dim=5, **options)


def noise(num_stories: int, num_frames: int, seed: int = 7) -> Noise:
    return Noise(randn(num_stories, 24, seed=seed), randn(num_stories, num_frames, 5, seed=seed + 1))


# ----------------------------------------------------------------------------------------------------- story encoder


def test_the_posterior_may_be_negative_and_its_variance_below_one() -> None:
    state = encoder()(randn(16, 3, 6), full(16, 3), noise(16, 3))
    assert (state.content < 0).any() and (state.log_variance < 0).any()


def test_the_log_variance_stays_within_ten_however_large_the_sentence() -> None:
    state = encoder()(1e4 * randn(2, 3, 6), full(2, 3), noise(2, 3))
    assert state.log_variance.abs().max() <= 10 and torch.isfinite(state.frames).all()


def test_the_divergence_is_the_closed_form_per_dimension() -> None:
    mean, log_variance = torch.tensor([[1.0, 0.0], [0.0, -2.0]]), torch.tensor([[0.0, 0.0], [math.log(4.0), 0.0]])
    state = StoryState(mean[:, None], mean[:, None], mean, log_variance)
    # By hand: 1/2 (mean^2 + variance - 1 - log variance): 0.5, 0, 0.5 (3 - log 4), 2.
    assert state.divergence().item() == pytest.approx((0.5 + 0 + 0.5 * (3 - math.log(4)) + 2) / 4)


def test_the_condition_of_a_frame_is_its_sentence_and_the_story_without_noise() -> None:
    captions = randn(2, 3, 6)
    first, second = (encoder()(captions, full(2, 3), noise(2, 3, seed)).condition() for seed in (1, 5))
    assert torch.equal(first, second) and first.shape == (2, 3, 8 + 24)


def test_both_noises_and_every_caption_move_the_state() -> None:
    network, captions, drawn = encoder(), randn(1, 3, 6), noise(1, 3)
    state = network(captions, full(1, 3), drawn).frames
    assert not torch.allclose(state, network(captions, full(1, 3), drawn._replace(story=drawn.story + 1)).frames)
    later = drawn.frames.clone()
    later[:, 1] += 1
    moved = network(captions, full(1, 3), drawn._replace(frames=later)).frames
    assert torch.equal(state[:, 0], moved[:, 0])  # recurrent: the past does not hear of it
    assert not torch.allclose(state[:, 1], moved[:, 1]) and not torch.allclose(state[:, 2], moved[:, 2])
    changed = captions.clone()
    changed[:, 2] += 1
    assert not torch.allclose(state[:, 0], network(changed, full(1, 3), drawn).frames[:, 0])  # by the posterior


def test_what_lies_beyond_a_story_changes_nothing() -> None:
    network, mask = encoder(), torch.tensor([[True, True, False]])
    captions, drawn = randn(1, 3, 6), noise(1, 3)
    changed = captions.clone()
    changed[:, 2] += 1
    first, second = network(captions, mask, drawn), network(changed, mask, drawn)
    assert torch.equal(first.frames[:, :2], second.frames[:, :2]) and torch.equal(first.content, second.content)
    short = network(captions[:, :2], mask[:, :2], Noise(drawn.story, drawn.frames[:, :2]))
    assert torch.allclose(first.frames[:, :2], short.frames, atol=1e-6)


@pytest.mark.parametrize("filters_from", ["sentence", "context"])
def test_the_gist_is_each_frames_own_convolution(filters_from: str) -> None:
    torch.manual_seed(0)
    layer, sentences, contexts = Text2Gist(8, 24, filters_from), randn(2, 3, 8), randn(2, 3, 24)
    found = layer(sentences, contexts)
    for story in range(2):
        for frame in range(3):
            s, c = sentences[story, frame], contexts[story, frame]
            of_filters, of_signal = (s, c) if filters_from == "sentence" else (c, s)
            bank, signal = layer.filters(of_filters).view(3, 21), layer.signal(of_signal).tanh().view(3, 24)
            padded = F.pad(signal, (10, 10))
            expected = torch.stack([(padded[:, i : i + 21] * bank).sum() for i in range(24)])
            assert torch.allclose(found[story, frame], expected, atol=1e-5)


def test_filters_come_from_the_sentence_or_the_context_alone() -> None:
    with pytest.raises(ValueError, match="sentence, context"):
        encoder(filters_from="both")


# ----------------------------------------------------------------------------------------------------- generator


def generator(**options: Any) -> Generator:
    torch.manual_seed(0)
    return Generator(6, **{"dim": 32, "resolution": 32, "attention_side": 8, **options}).eval()


@pytest.mark.parametrize(("resolution", "side"), [(64, 16), (128, 16), (64, 8), (32, 4)])
def test_frames_have_the_size_asked_for_and_lie_in_range(resolution: int, side: int) -> None:
    network = generator(resolution=resolution, attention_side=side)
    made = network(randn(2, 3, 6), randn(2, 3, resolution, resolution), full(2, 3))
    assert made.frames.shape == (2, 3, 3, resolution, resolution)
    assert made.frames.abs().max() <= 1 and made.frames.std() > 0


def test_128_pixels_are_one_more_up_block() -> None:
    small, large = (generator(resolution=resolution, attention_side=16) for resolution in (64, 128))
    assert len(large.after) == len(small.after) + 1


def test_the_source_reaches_the_frames_unless_attention_is_off() -> None:
    states, source = randn(2, 3, 6), randn(2, 3, 32, 32)
    for direction in ("copy_source", "copy_story", "off"):
        network = generator(direction=direction)
        with_source, without = (network(states, given, full(2, 3)).frames for given in (source, 0 * source))
        is_same = torch.equal(with_source, without)
        assert is_same == (direction == "off")


def test_places_are_a_map_of_their_own_that_learns() -> None:
    network, plain = generator(has_places=True), generator()
    assert plain.places is None and generator(has_places=True, direction="off").places is None
    assert network.places is not None and network.places.shape == (8 * 2, 8, 8)
    network(randn(2, 3, 6), randn(2, 3, 32, 32), full(2, 3)).frames.sum().backward()
    assert network.places.grad is not None and network.places.grad.abs().min() > 0


def test_the_source_map_has_the_size_of_the_storys() -> None:
    assert SourceEncoder(24, 2)(randn(2, 3, 32, 32)).shape == (2, 24, 8, 8)


@pytest.mark.parametrize("wrong", [{"resolution": 48}, {"attention_side": 32}, {"attention_side": 2}])
def test_sizes_that_do_not_double_are_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        generator(**wrong)


# ----------------------------------------------------------------------------------------------------- discriminators


def story_discriminator(**options: Any) -> StoryDiscriminator:
    torch.manual_seed(0)
    return StoryDiscriminator(7, **{"dim": 8, "resolution": 16, **options}).eval()


def story_logits(network: StoryDiscriminator, frames: Tensor, condition: Tensor, mask: Tensor) -> Tensor:
    return network.judge(network.encode(frames, mask), condition, mask)


@pytest.mark.parametrize("resolution", [16, 64, 128])
def test_the_image_discriminator_gives_a_logit_a_frame_and_one_a_character(resolution: int) -> None:
    network = ImageDiscriminator(7, num_characters=5, dim=4, resolution=resolution).eval()
    features = network.encode(randn(2, 3, 3, resolution, resolution), full(2, 3))
    assert network.judge(features, randn(2, 3, 7), full(2, 3)).shape == (2, 3)
    assert network.name(features, full(2, 3)).shape == (6, 5)


def test_a_set_without_characters_has_no_class_head() -> None:
    assert ImageDiscriminator(7, num_characters=0, dim=4, resolution=16).characters is None


def test_each_frame_is_judged_under_its_own_condition() -> None:
    network = ImageDiscriminator(7, dim=4, resolution=16).eval()
    features, condition = network.encode(randn(2, 3, 3, 16, 16), full(2, 3)), randn(2, 3, 7)
    before = network.judge(features, condition, full(2, 3))
    condition[1, 2] += 1
    changed = network.judge(features, condition, full(2, 3)) != before
    assert changed.nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("num_frames", [2, 4, 5])
def test_permuting_frames_moves_the_logit_of_3d_convolutions_alone(num_frames: int) -> None:
    frames, condition = randn(2, num_frames, 3, 16, 16), randn(2, num_frames, 7)
    same = condition[:, :1].expand_as(condition)  # no caption says which frame is whose
    for time, moves in (("conv3d", True), ("mean", False)):
        network = story_discriminator(time=time)
        before = story_logits(network, frames, same, full(2, num_frames))
        after = story_logits(network, frames.roll(1, 1), same, full(2, num_frames))
        assert before.shape == (2,)
        assert torch.allclose(before, after, atol=1e-6) != moves


def test_swapping_captions_moves_the_logit_of_3d_convolutions_alone() -> None:
    frames, condition = randn(2, 4, 3, 16, 16), randn(2, 4, 7)
    for time, moves in (("conv3d", True), ("mean", False)):
        network = story_discriminator(time=time)
        before, after = (story_logits(network, frames, c, full(2, 4)) for c in (condition, condition.flip(1)))
        assert torch.allclose(before, after, atol=1e-6) != moves


@pytest.mark.parametrize("time", ["conv3d", "mean"])
def test_frames_beyond_a_story_change_no_logit(time: str) -> None:
    network, frames, condition = story_discriminator(time=time), randn(2, 4, 3, 16, 16), randn(2, 4, 7)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    before = story_logits(network, frames, condition, mask)
    frames[1, 2:], condition[1, 2:] = 5.0, -3.0
    assert torch.equal(before, story_logits(network, frames, condition, mask))
    alone = story_logits(network, frames[1:, :2], condition[1:, :2], full(1, 2))
    assert torch.allclose(before[1:], alone, atol=1e-5)


def test_spectral_norm_is_on_every_judging_convolution_and_no_batch_norm_is_left() -> None:
    for network in (
        ImageDiscriminator(7, num_characters=5, dim=4, resolution=16, is_spectral=True),
        story_discriminator(is_spectral=True),
    ):
        convolutions = {n: m for n, m in network.named_modules() if isinstance(m, nn.Conv2d | nn.Conv3d)}
        plain = [name for name, module in convolutions.items() if not is_parametrized(module)]
        assert plain in ([], ["characters"]) and len(convolutions) > 3
        assert not any(isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d) for module in network.modules())


def test_an_unknown_time_and_odd_sizes_are_named() -> None:
    with pytest.raises(ValueError, match="conv3d, mean"):
        story_discriminator(time="lstm")
    with pytest.raises(ValueError, match="resolution=24"):
        story_discriminator(resolution=24)


# ----------------------------------------------------------------------------------------------------- losses


def test_the_logistic_loss_is_cross_entropy() -> None:
    logits = torch.tensor([-1.0, 0.0, 2.0])
    for is_real in (True, False):
        targets = torch.full((3,), float(is_real))
        expected = F.binary_cross_entropy(logits.sigmoid(), targets, reduction="none")
        assert torch.allclose(LOSSES["logistic"](logits, is_real), expected)
    assert torch.allclose(fooled(logits, "logistic"), LOSSES["logistic"](logits, True))


def test_the_hinge_has_a_margin_and_its_generator_none() -> None:
    logits = torch.tensor([-2.0, 0.5, 3.0])
    assert LOSSES["hinge"](logits, True).tolist() == [3.0, 0.5, 0.0]
    assert LOSSES["hinge"](logits, False).tolist() == [0.0, 1.5, 4.0]
    assert fooled(logits, "hinge").tolist() == [2.0, -0.5, -3.0]


def test_losses_leave_out_what_does_not_exist() -> None:
    logits = torch.tensor([[0.0, 0.0], [50.0, -50.0]])
    labels = torch.tensor([[[1, 0], [0, 1]]])
    assert character_loss(logits[:1], labels, torch.tensor([[True, False]])).item() == pytest.approx(math.log(2))
    assert character_loss(logits, labels, torch.tensor([[True, True]])).item() == pytest.approx((math.log(2) + 50) / 2)
    assert masked(torch.tensor([1.0, 5.0]), torch.tensor([False, False])) == 0


def test_the_gradient_penalty_of_a_linear_judge_is_its_squared_weight() -> None:
    weight, frames = randn(2, 3, 4, 4), randn(5, 2, 3, 4, 4).requires_grad_()
    logits = (frames * weight).sum((1, 2, 3, 4))
    assert gradient_penalty(logits, frames).item() == pytest.approx(0.5 * weight.square().sum().item(), rel=1e-5)


# ----------------------------------------------------------------------------------------------------- augmentation


@pytest.mark.parametrize("policy", POLICIES)
def test_frames_of_a_story_are_augmented_alike_and_stories_apart(policy: str) -> None:
    frames = randn(1, 1, 3, 16, 16).expand(6, 3, -1, -1, -1).clone().requires_grad_()
    augment = Augmentation([policy], 6, torch.Generator().manual_seed(0))
    out = augment(frames)
    assert out.shape == frames.shape
    assert torch.allclose(out, out[:, :1].expand_as(out), atol=1e-6)
    assert any(not torch.allclose(out[0], out[i]) for i in range(1, 6))
    assert torch.equal(out, augment(frames))  # real and drawn ones alike
    out.sum().backward()
    assert frames.grad is not None and frames.grad.abs().sum() > 0


def test_no_augmentation_is_the_identity_and_an_unknown_one_is_named() -> None:
    frames = randn(2, 3, 3, 8, 8)
    assert Augmentation([], 2, torch.Generator())(frames) is frames
    with pytest.raises(ValueError, match="rotation"):
        Augmentation(["rotation"], 2, torch.Generator())
