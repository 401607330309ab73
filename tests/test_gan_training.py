"""StoryGANc's training: who moves whom, wrong captions, resuming, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from storydalle.stories.data import WholeStories
from storydalle.training.callbacks import RunningMean
from storydalle.training.optimisation import step_generator
from storydalle.training.probes import separation
from storydalle.training.state import ForeignState, load_state
from storydalle.training.story_gan_training import StoryGANTraining, frozen, rolled, shifted
from tests.test_resume import leaves
from tests.tiny import felt, trainer
from tests.tiny_gan import ShapeStories, shape_batch, shape_data, tiny_story_gan


def system(**options: Any) -> StoryGANTraining:
    networks = {
        name: options.pop(name) for name in list(options) if name in ("num_characters", "has_story_discriminator")
    }
    made = StoryGANTraining(tiny_story_gan(**networks), **options)
    made.log = lambda *args, **kwargs: None  # type: ignore[method-assign]
    made.log_dict = lambda *args, **kwargs: None  # type: ignore[method-assign]
    return made.train()


def gradients(network: nn.Module) -> list[Tensor | None]:
    return [parameter.grad for parameter in network.parameters()]


def drawing_networks(made: StoryGANTraining) -> nn.ModuleList:
    gan = made.story_gan
    return nn.ModuleList([gan.caption_encoder, gan.story_encoder, gan.generator])


def test_a_discriminator_step_leaves_the_generator_alone() -> None:
    made, batch = system(), shape_batch()
    imagined = made.imagine(batch, step_generator(0, 0))
    condition = imagined.state.condition().detach()
    for name, discriminator in made.judges().items():
        loss = made.discriminator_loss(name, discriminator, batch.frames, imagined.frames.detach(), condition, batch)
        loss.backward()
        assert all(gradient is not None for gradient in gradients(discriminator))
    assert all(gradient is None for gradient in gradients(drawing_networks(made)))


def test_a_generator_step_leaves_the_discriminators_alone() -> None:
    made, batch = system(), shape_batch()
    imagined = made.imagine(batch, step_generator(0, 0))
    condition = imagined.state.condition().detach()
    with frozen(made.judges().values()):
        made.generator_loss(imagined, imagined.frames, condition, batch).backward()
    for discriminator in made.judges().values():
        assert all(gradient is None for gradient in gradients(discriminator))
        assert all(parameter.requires_grad for parameter in discriminator.parameters())
    assert all(gradient is not None for gradient in gradients(made.story_gan.generator))
    assert all(gradient is not None for gradient in gradients(made.story_gan.story_encoder))


def test_discriminators_keep_the_statistics_of_true_pictures_alone() -> None:
    kept = []
    for level in (0.0, 1.0):
        made, batch = system(order_weight=1.0), shape_batch()
        imagined = made.imagine(batch, step_generator(0, 0))
        condition, drawn = imagined.state.condition().detach(), torch.full_like(imagined.frames, level)
        before = {name: value.clone() for name, value in made.named_buffers()}
        for name, discriminator in made.judges().items():
            made.discriminator_loss(name, discriminator, batch.frames, drawn, condition, batch)
        with frozen(made.judges().values()):
            made.generator_loss(imagined._replace(frames=drawn), drawn, condition, batch)
        names = [name for name in before if "discriminator" in name and "running" in name]
        after = dict(made.named_buffers())
        assert names and all(not torch.equal(before[name], after[name]) for name in names)
        kept.append([after[name] for name in names])
    assert all(torch.equal(*pair) for pair in zip(*kept, strict=True))


def test_one_step_moves_every_network(tmp_path: Path) -> None:
    made = StoryGANTraining(tiny_story_gan())
    before = {name: value.clone() for name, value in made.named_parameters()}
    trainer(tmp_path, 2).fit(made, shape_data())
    still = [name for name, value in made.named_parameters() if torch.equal(value, before[name])]
    # Words that the first two batches do not have keep their vectors, but the table as a whole moves.
    assert felt(still) == set()


def test_a_step_counts_once_whatever_the_number_of_optimizers(tmp_path: Path) -> None:
    fitting = trainer(tmp_path, 3)
    fitting.fit(StoryGANTraining(tiny_story_gan()), shape_data())
    assert fitting.global_step == 3


@pytest.mark.parametrize("num_stories", [2, 3, 8])
def test_wrong_captions_are_never_the_storys_own(num_stories: int) -> None:
    owners = torch.arange(num_stories)[:, None].expand(-1, 4)
    assert (rolled(owners) != owners).all()


def test_a_story_alone_has_no_wrong_captions() -> None:
    made, batch = system(), shape_batch(1)
    kinds = []
    made.log = lambda name, *args, **kwargs: kinds.append(name)  # type: ignore[method-assign]
    imagined = made.imagine(batch, step_generator(0, 0))
    for name, discriminator in made.judges().items():
        condition = imagined.state.condition().detach()
        loss = made.discriminator_loss(name, discriminator, batch.frames, imagined.frames.detach(), condition, batch)
        assert torch.isfinite(loss)
    assert "train/image_right_fake" in kinds and not any("wrong" in kind for kind in kinds)


def test_shifted_frames_stay_within_their_story() -> None:
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    rows = torch.tensor([[1, 2, 3], [4, 5, 0], [6, 0, 0]])
    assert shifted(rows, mask).tolist() == [[2, 3, 1], [5, 4, 0], [6, 0, 0]]


def test_separation_is_the_area_under_the_curve() -> None:
    assert separation(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0])) == 1
    assert separation(torch.tensor([1.0, 3.0]), torch.tensor([1.0, 2.0])).item() == pytest.approx(0.625)


@pytest.mark.parametrize("lengths", [(2,), (4,), (5,), (1, 4, 2)])
def test_every_frame_of_stories_of_any_length_has_a_part_in_the_loss_and_no_other_has(lengths: tuple[int, ...]) -> None:
    made, batch = system(order_weight=1.0, reconstruction_weight=1.0), shape_batch(4, lengths)
    imagined = made.imagine(batch, step_generator(0, 0))
    imagined.frames.retain_grad()
    condition = imagined.state.condition().detach()
    for name, discriminator in made.judges().items():
        loss = made.discriminator_loss(name, discriminator, batch.frames, imagined.frames.detach(), condition, batch)
        assert torch.isfinite(loss)
        loss.backward()
        assert any(each.grad is not None and each.grad.any() for each in discriminator.parameters())
    loss = made.generator_loss(imagined, imagined.frames, condition, batch)
    assert torch.isfinite(loss)
    loss.backward()
    reached = imagined.frames.grad.abs().flatten(2).sum(-1) > 0  # type: ignore[union-attr]
    assert torch.equal(reached, batch.mask), "drawn frames that exist have a part in the loss, others none"
    assert all(each.grad is not None for each in made.story_gan.generator.parameters())


def test_the_weights_of_the_divergence_and_the_classes_are_the_settings() -> None:
    losses = {}
    for kl_weight, class_weight in ((0.0, 0.0), (1.0, 0.0), (3.0, 0.0), (0.0, 2.0)):
        made, batch = system(kl_weight=kl_weight, class_weight=class_weight), shape_batch()
        imagined = made.imagine(batch, step_generator(0, 0))
        condition = imagined.state.condition().detach()
        losses[kl_weight, class_weight] = made.generator_loss(imagined, imagined.frames, condition, batch).item()
        divergence = imagined.state.divergence().item()
    base = losses[0.0, 0.0]
    assert losses[1.0, 0.0] - base == pytest.approx(divergence, rel=1e-3)
    assert losses[3.0, 0.0] - base == pytest.approx(3 * divergence, rel=1e-3)
    assert losses[0.0, 2.0] > base


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "hinge"},
        {"r1_weight": 10.0, "r1_every": 1},
        {"augmentation": ["color", "translation", "cutout"]},
        {"clip": 1.0},
        {"reconstruction_weight": 10.0, "adversarial_start": 1},
        {"has_story_discriminator": False},
        {"num_characters": 0, "class_weight": 0.0},
    ],
    ids=lambda options: "-".join(options),
)
def test_every_option_trains_two_steps_to_finite_weights_and_scores(options: dict[str, Any], tmp_path: Path) -> None:
    networks = {name: options[name] for name in ("has_story_discriminator", "num_characters") if name in options}
    rest = {name: value for name, value in options.items() if name not in networks}
    made = StoryGANTraining(tiny_story_gan(**networks), **rest)
    fitting = trainer(tmp_path, 2, limit_val_batches=1, val_check_interval=2)
    fitting.fit(made, shape_data(is_labelled=options.get("num_characters", 3) > 0))
    assert all(torch.isfinite(value).all() for value in made.state_dict().values())
    assert 0 <= fitting.callback_metrics["val/error"] <= 1
    assert ("val/story_order_auc" in fitting.callback_metrics) == ("has_story_discriminator" not in options)


@pytest.mark.parametrize("class_weight", [0.0, 1.0])
def test_the_discriminators_wait_until_they_are_started_but_for_naming(class_weight: float, tmp_path: Path) -> None:
    late = {"reconstruction_weight": 1.0, "adversarial_start": 2, "class_weight": class_weight}
    made = StoryGANTraining(tiny_story_gan(), **late)
    before = {name: value.clone() for name, value in made.story_gan.named_parameters()}
    trainer(tmp_path, 2).fit(made, shape_data())
    moved = {name for name, value in made.story_gan.named_parameters() if not torch.equal(before[name], value)}
    judging = {name for name in moved if "discriminator" in name}
    naming = ("image_discriminator.tower.", "image_discriminator.characters.")
    assert judging == {name for name in before if name.startswith(naming) and class_weight}
    assert any(name.startswith("generator.") for name in moved)


def test_before_the_start_the_named_characters_teach_the_generator() -> None:
    made, batch = system(reconstruction_weight=1.0, adversarial_start=9), shape_batch()
    imagined = made.imagine(batch, step_generator(0, 0))
    condition = imagined.state.condition().detach()
    losses = []
    for labels in (batch.labels["characters"], 1 - batch.labels["characters"]):
        other = batch._replace(labels={"characters": labels})
        losses.append(made.generator_loss(imagined, imagined.frames, condition, other))
    assert losses[0] != losses[1]


# ----------------------------------------------------------------------------------------------------- words


def test_words_are_the_shares_of_a_captions_tokens() -> None:
    encoder = tiny_story_gan().caption_encoder
    shares = encoder.words([["a red square", ""], ["red red square square"]])
    assert shares.shape == (3, encoder.marker)
    assert shares.sum(1).tolist() == pytest.approx([1, 0, 1])
    tokens = encoder.tokenizer.encode(["red red square square"]).tokens[0]
    ids = tokens[tokens != encoder.pad_id].tolist()
    assert all(shares[2, i] == pytest.approx(ids.count(i) / len(ids)) for i in ids)


def test_a_caption_learns_to_tell_its_own_words(tmp_path: Path) -> None:
    """Of padded stories too: every row of words belongs to the vector of its own caption."""
    losses: list[float] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, fitting: pl.Trainer, *_: object) -> None:
            losses.append(float(fitting.callback_metrics["train/loss_words"]))

    made = StoryGANTraining(tiny_story_gan(), learning_rate=1e-2, word_weight=1.0, max_steps=80)
    trainer(tmp_path, 80, [Watch()]).fit(made, shape_data(8, 8, lengths=(1, 3)))
    batch, encoder = shape_batch(8, (1, 3)), made.story_gan.caption_encoder
    shares = encoder.words(batch.captions)
    floor = -(shares * shares.clamp(min=1e-9).log()).sum(1).mean().item()  # nats that no vector can save
    assert losses[0] > floor + 1.5 and losses[-1] < floor + 0.3
    # Every vector has read the whole story: it must tell the words of its own caption, and not of another.
    made.eval()
    rows = made.words(made.imagine(batch, step_generator(0, 0)).state.sentences[batch.mask]).log_softmax(-1)
    own = -(shares * rows).sum(1)
    other = -(shares.roll(1, 0) * rows).sum(1)
    differs = (shares != shares.roll(1, 0)).any(1)
    assert (own[differs] < other[differs]).all()


def test_words_teach_the_captions_vectors_and_no_frame() -> None:
    made, batch = system(word_weight=1.0), shape_batch()
    made.word_loss(made.imagine(batch, step_generator(0, 0)), batch).backward()
    gan = made.story_gan
    assert all(gradient is not None for gradient in gradients(gan.caption_encoder))
    assert gan.story_encoder.sentence.weight.grad is not None
    assert all(gradient is None for gradient in gradients(gan.generator))
    assert system().words is None


def test_learning_rates_halve_or_follow_a_cosine_as_counted_by_hand() -> None:
    halving = system(learning_rate=1.0, discriminator_learning_rate=4.0, halve_every=10)
    assert [halving.rates(step) for step in (0, 9, 10, 25)] == [[1, 4, 4], [1, 4, 4], [0.5, 2, 2], [0.25, 1, 1]]
    cosine = system(learning_rate=1.0, warmup_steps=2, max_steps=102)
    assert [round(cosine.rates(step)[0], 2) for step in (0, 1, 2, 52, 102)] == [0.5, 1.0, 1.0, 0.51, 0.02]


def test_the_discriminators_schedule_begins_where_they_do() -> None:
    late = system(
        learning_rate=1.0,
        discriminator_learning_rate=1.0,
        reconstruction_weight=1.0,
        adversarial_start=50,
        max_steps=100,
    )
    assert [round(rate, 2) for rate in late.rates(50)] == [0.51, 1.0, 1.0]
    assert [round(rate, 2) for rate in late.rates(100)] == [0.02, 0.02, 0.02]


def test_the_optimizers_step_with_the_rates_of_the_schedule(tmp_path: Path) -> None:
    made = StoryGANTraining(tiny_story_gan(), learning_rate=1e-3, discriminator_learning_rate=1e-4, halve_every=2)
    fitting = trainer(tmp_path, 3)
    fitting.fit(made, shape_data())
    assert [optimizer.param_groups[0]["lr"] for optimizer in fitting.optimizers] == [5e-4, 5e-5, 5e-5]


def test_it_overfits_eight_stories_without_a_nan(tmp_path: Path) -> None:
    """It may take 400 steps, and ends as soon as it has learned: how soon differs with seeds, and with two threads."""
    losses: list[float] = []

    def has_learned() -> bool:
        return len(losses) > 40 and sum(losses[-20:]) < 0.5 * sum(losses[:20])

    class Watch(pl.Callback):
        def on_train_batch_end(self, fitting: pl.Trainer, *_: object) -> None:
            losses.append(float(fitting.callback_metrics["train/loss_characters"]))
            fitting.should_stop = has_learned()

    made = StoryGANTraining(
        tiny_story_gan(), learning_rate=2e-3, discriminator_learning_rate=5e-4, reconstruction_weight=5.0, max_steps=400
    )
    trainer(tmp_path, 400, [Watch()]).fit(made, shape_data(8, 8))
    assert all(torch.isfinite(value).all() for value in made.state_dict().values())
    assert has_learned(), f"in {len(losses)} steps from {losses[0]:.2f} to {losses[-1]:.2f}"


# ----------------------------------------------------------------------------------------------------- resuming


def run(folder: Path, steps: int, resume: bool = False, **networks: Any) -> StoryGANTraining:
    made = StoryGANTraining(tiny_story_gan(**networks), max_steps=12, warmup_steps=2, augmentation=["translation"])
    saving = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, save_top_k=0)
    fitting = trainer(folder, steps, [saving, RunningMean(decay=0.9)])
    fitting.fit(made, shape_data(2, 7), ckpt_path=folder / "last.ckpt" if resume else None, weights_only=True)
    return made


def test_a_resumed_run_equals_the_uninterrupted_one(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", 7)
    run(tmp_path / "cut", 4)
    resumed = run(tmp_path / "cut", 7, resume=True)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    first, second = (leaves(load_state(tmp_path / name / "last.ckpt")) for name in ("whole", "cut"))
    compared = [name for name, leaf in first.items() if isinstance(leaf, Tensor)]
    for number in range(3):
        assert sum(name.startswith(f"/optimizer_states/{number}") for name in compared) > 10
    for name in compared:
        assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("has_story_discriminator", [True, False])
def test_the_running_mean_is_of_the_generator_alone(has_story_discriminator: bool, tmp_path: Path) -> None:
    run(tmp_path, 5, has_story_discriminator=has_story_discriminator)
    saved = load_state(tmp_path / "last.ckpt")
    mean, current = saved["state_dict"], saved["current_model_state"]
    same = {name for name in mean if torch.equal(mean[name], current[name])}
    judging = {name for name in mean if "discriminator" in name}
    assert judging <= same
    assert not any(name.endswith(("weight", "bias")) for name in same - judging)


def test_a_run_with_other_optimizers_is_not_resumed(tmp_path: Path) -> None:
    run(tmp_path, 2)
    with pytest.raises(ForeignState, match=r"3 optimizers, but this run has 2.*has_story_discriminator"):
        run(tmp_path, 3, resume=True, has_story_discriminator=False)


# ----------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("networks", "options", "said"),
    [
        ({"num_characters": 0}, {}, "class_weight=1.0: .*names no characters.*class_weight=0"),
        ({}, {"batch_size": 1}, "batch_size=1: .*2 or more"),
        ({}, {"loss": "wasserstein"}, "logistic, hinge"),
        ({}, {"adversarial_start": 5}, "reconstruction_weight=0"),
    ],
)
def test_what_cannot_train_is_said_before_it_does(networks: dict, options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        StoryGANTraining(tiny_story_gan(**networks), **options)


def test_augmentations_are_checked_before_training() -> None:
    with pytest.raises(ValueError, match="rotation"):
        StoryGANTraining(tiny_story_gan(), augmentation=["rotation"])


# ----------------------------------------------------------------------------------------------------- data


def test_training_draws_the_frames_of_a_clip_anew_and_validation_does_not() -> None:
    from tests.tiny import TinyStories

    stories = TinyStories(4, clip_frames=(9,))
    data = WholeStories(stories, stories, 2)
    train, val = data.training_set(), data.validation_set()
    assert torch.equal(train.read([0, 1], 3).frames, train.read([0, 1], 3).frames)
    assert not torch.equal(train.read([0, 1], 3).frames, train.read([0, 1], 4).frames)
    assert torch.equal(val.read([0, 1], None).frames, val.read([0, 1], None).frames)
    assert torch.equal(val.read([1], None).source[0], val.read([0, 1], None).source[1])


def test_stories_of_a_set_say_their_lengths() -> None:
    stories = ShapeStories(5, (2, 4))
    assert stories.story_lengths().tolist() == [2, 4, 2, 4, 2]
