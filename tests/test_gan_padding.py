"""StoryGANc on stories of unequal length: frames that do not exist change no value, gradient or statistic."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from storydalle.models.story_gan.caption_encoder import CaptionEncoder
from storydalle.models.story_gan.discriminators import ImageDiscriminator, StoryDiscriminator
from storydalle.models.story_gan.existing import existing, placed
from storydalle.models.story_gan.generator import Generator
from storydalle.models.story_gan.losses import gradient_penalty
from storydalle.models.story_gan.story_encoder import masked_mean
from storydalle.stories.story import StoryBatch
from storydalle.training.optimisation import step_generator
from storydalle.training.story_gan_training import StoryGANTraining, frozen
from tests.tiny import trainer
from tests.tiny_gan import shape_batch, shape_data, tiny_story_gan

LENGTHS = (3, 1, 2)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def mask_of(lengths: tuple[int, ...], num_frames: int) -> Tensor:
    return torch.arange(num_frames) < torch.tensor(lengths)[:, None]


def wider(x: Tensor, value: float) -> Tensor:
    """Two frames more behind each story's longest."""
    return F.pad(x, (0, 0) * (x.dim() - 2) + (0, 2), value=value)


def learned(network: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    """The results of a step: the loss, each gradient, each statistic of the norms."""
    loss.backward()
    gradients = {f"gradient of {name}": p.grad for name, p in network.named_parameters() if p.grad is not None}
    return {"loss": loss.detach(), **gradients, **dict(network.named_buffers())}


def assert_alike(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        apart, size = ((part.double().abs().max().item()) for part in (found[name].double() - value.double(), value))
        assert apart <= 1e-4 * size + 1e-5, f"{name}: {apart} apart of {size}"


# ------------------------------------------------------------------------------------------------ network by network


def test_frames_become_rows_and_go_back_and_where_all_exist_nothing_moves() -> None:
    x, mask = randn(3, 3, 2), mask_of(LENGTHS, 3)
    assert torch.equal(existing(x, mask), torch.cat([x[0], x[1, :1], x[2, :2]]))
    assert torch.equal(placed(existing(x, mask), mask), x * mask[..., None])
    everything = torch.ones_like(mask)
    rows = existing(x, everything)
    assert rows.data_ptr() == placed(rows, everything).data_ptr() == x.data_ptr()


def test_an_image_discriminator_sees_stories_of_unequal_length_as_their_frames_one_by_one() -> None:
    def judged(frames: Tensor, condition: Tensor, mask: Tensor) -> dict[str, Tensor]:
        torch.manual_seed(0)
        network = ImageDiscriminator(7, num_characters=4, dim=8, resolution=16).train()
        frames = frames.detach().requires_grad_()
        features = network.encode(frames, mask)
        logits, names = network.judge(features, condition, mask), network.name(features, mask)
        penalty = gradient_penalty(logits, frames) * len(frames)  # of all stories
        found = learned(network, logits.square().sum() + names.square().sum() + penalty)
        return found | {"logits": logits[mask], "names": names, "pixels": frames.grad[mask]}

    frames, condition, mask = randn(3, 3, 3, 16, 16), randn(3, 3, 7, seed=1), mask_of(LENGTHS, 3)
    one_by_one = judged(frames[mask][:, None], condition[mask][:, None], torch.ones(6, 1, dtype=torch.bool))
    assert_alike(judged(frames, condition, mask), one_by_one)


@pytest.mark.parametrize("time", ["conv3d", "mean"])
def test_padding_changes_nothing_of_a_story_discriminator_in_training(time: str) -> None:
    def judged(frames: Tensor, condition: Tensor, mask: Tensor) -> dict[str, Tensor]:
        torch.manual_seed(0)
        network = StoryDiscriminator(7, dim=8, resolution=16, time=time).train()
        frames = frames.detach().requires_grad_()
        logits = network.judge(network.encode(frames, mask), condition, mask)
        found = learned(network, logits.square().sum() + gradient_penalty(logits, frames))
        assert not frames.grad[~mask].any(), "what does not exist has no gradient"
        return found | {"logits": logits, "pixels": frames.grad[mask]}

    frames, condition = randn(3, 3, 3, 16, 16), randn(3, 3, 7, seed=1)
    narrow = judged(frames, condition, mask_of(LENGTHS, 3))
    assert_alike(judged(wider(frames, 9.0), wider(condition, 9.0), mask_of(LENGTHS, 5)), narrow)


def test_the_statistics_of_a_story_discriminator_are_those_of_existing_frames() -> None:
    torch.manual_seed(0)
    network, mask = StoryDiscriminator(7, dim=8, resolution=16).train(), mask_of(LENGTHS, 3)
    frames = randn(3, 3, 3, 16, 16)
    network.encode(frames, mask)
    first, (convolution, norm, _) = network.tower
    x = first((frames * mask[..., None, None, None]).transpose(1, 2), mask)
    maps = convolution(x).transpose(1, 2)[mask]
    torch.testing.assert_close(norm.running_mean, 0.1 * maps.mean((0, 2, 3)), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("direction", ["copy_source", "copy_story", "off"])
def test_padding_changes_nothing_of_what_is_drawn_in_training(direction: str) -> None:
    def drawn(states: Tensor, mask: Tensor) -> dict[str, Tensor]:
        torch.manual_seed(0)
        network = Generator(6, dim=32, resolution=16, attention_side=8, direction=direction, has_places=True).train()
        frames, entropy = network(states, randn(3, 3, 16, 16, seed=1), mask)
        assert not frames[~mask].any(), "no frame, no picture"
        found = learned(network, frames.square().sum() + entropy)
        return found | {"frames": frames[mask], "entropy": entropy.detach()}

    states = randn(3, 3, 6)
    assert_alike(drawn(wider(states, 9.0), mask_of(LENGTHS, 5)), drawn(states, mask_of(LENGTHS, 3)))


def test_unequal_stories_without_a_source_are_drawn_as_their_frames_one_by_one() -> None:
    def drawn(states: Tensor, mask: Tensor) -> dict[str, Tensor]:
        torch.manual_seed(0)
        network = Generator(6, dim=32, resolution=16, attention_side=8, direction="off").train()
        frames = network(states, torch.zeros(len(states), 3, 16, 16), mask).frames
        return learned(network, frames.square().sum()) | {"frames": frames[mask]}

    states, mask = randn(3, 3, 6), mask_of(LENGTHS, 3)
    assert_alike(drawn(states, mask), drawn(states[mask][:, None], torch.ones(6, 1, dtype=torch.bool)))


# ------------------------------------------------------------------------------------------------ whole steps


def step(batch: StoryBatch, **options: Any) -> dict[str, Tensor]:
    """All losses of one step, and what they leave behind."""
    made = StoryGANTraining(tiny_story_gan(**options), order_weight=1.0, r1_weight=0.3, reconstruction_weight=1.0)
    made.word_weight, logged = 0.0, {}
    made.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign]
    made.log_dict = logged.update  # type: ignore[method-assign]
    made.train()
    imagined = made.imagine(batch, step_generator(0, 0))
    condition = imagined.state.condition().detach()
    drawn = imagined.frames
    loss = torch.zeros(())
    for name, discriminator in made.judges().items():
        loss = loss + made.discriminator_loss(name, discriminator, batch.frames, drawn.detach(), condition, batch)
    found = learned(made, loss)
    made.zero_grad()
    with frozen(made.judges().values()):
        found |= {
            f"drawing: {name}": v
            for name, v in learned(made, made.generator_loss(imagined, drawn, condition, batch)).items()
        }
    return found | {name: torch.as_tensor(value).detach() for name, value in logged.items()}


@pytest.mark.parametrize("time", ["conv3d", "mean"])
def test_a_step_hears_nothing_of_padding(time: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = shape_batch(3, LENGTHS)
    networks = {"story_discriminator": {"time": time}}
    narrow = step(batch, **networks)
    read = CaptionEncoder.forward
    monkeypatch.setattr(CaptionEncoder, "forward", lambda self, captions: wider(read(self, captions), 9.0))
    labels = {name: x if name.startswith("source_") else wider(x, 1) for name, x in batch.labels.items()}
    padded = batch._replace(frames=wider(batch.frames, 0.7), mask=mask_of(LENGTHS, 5), labels=labels)
    assert_alike(step(padded, **networks), narrow)


def test_a_step_hears_nothing_of_what_stands_behind_the_end_of_a_shorter_story() -> None:
    batch = shape_batch(3, LENGTHS)
    beyond = ~batch.mask[..., None, None, None]
    other = batch._replace(frames=torch.where(beyond, randn(*batch.frames.shape), batch.frames))
    assert not torch.equal(other.frames, batch.frames)
    assert_alike(step(other), step(batch))


def test_a_posterior_is_of_the_captions_that_exist() -> None:
    x, mask = randn(2, 3, 4), mask_of((1, 3), 3)
    assert torch.allclose(masked_mean(x, mask), torch.stack([x[0, 0], x[1].mean(0)]))


def test_the_validation_of_a_gan_does_not_depend_on_the_batch_size(tmp_path: Any) -> None:
    found = []
    for size in (7, 3, 2):
        system = StoryGANTraining(tiny_story_gan())
        data = shape_data(size, 7, lengths=LENGTHS)
        run = trainer(tmp_path, 1, limit_val_batches=1.0)
        found.append(run.validate(system, data, verbose=False)[0])
    assert found[1] == pytest.approx(found[0], abs=1e-6) and found[2] == pytest.approx(found[0], abs=1e-6)
