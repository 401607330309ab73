"""Training the image tokenizer: a codebook that does not collapse, exact statistics, exact resume."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from storydalle.stories.data import Frames
from storydalle.stories.story import StoryBatch
from storydalle.tokens.vqgan import VQGAN
from storydalle.training.codebook_use import perplexity
from storydalle.training.tokenizer_training import (
    ImageTokenizerTraining,
    Pictures,
    edge_weight,
    pictures_of,
)
from tests.tiny import TinyStories, trainer

CODEBOOK, DIM = 16, 4
pytestmark = [
    pytest.mark.filterwarnings("ignore:You are trying to `self.log"),  # steps are called without a Trainer too
    pytest.mark.filterwarnings("ignore:Using ModelCheckpoint with manual optimization"),
]


def tiny_tokenizer() -> VQGAN:
    torch.manual_seed(0)
    return VQGAN(
        resolution=8,
        ch=8,
        ch_mult=(1, 1),
        num_res_blocks=1,
        attn_resolutions=(),
        z_channels=8,
        codebook_size=CODEBOOK,
        embed_dim=DIM,
        norm_groups=1,
        mid_attention=False,
        encoder_window=4,
        pixel_shuffle=2,
    )


def tiny_system(**options: Any) -> ImageTokenizerTraining:
    return ImageTokenizerTraining(tiny_tokenizer(), **{"warmup_steps": 0, "max_steps": 100, **options})


class Critic(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(5)
        super().__init__(nn.Conv2d(3, 4, 4, stride=2), nn.LeakyReLU(), nn.Conv2d(4, 1, 1))


def fit(
    system: ImageTokenizerTraining, folder: Path, steps: int, resume: bool = False, **options: Any
) -> ImageTokenizerTraining:
    saving = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, save_top_k=0)
    data = Frames(TinyStories(12, resolution=8), TinyStories(2, resolution=8, seed=1), batch_size=4)
    last = folder / "last.ckpt"
    fitting = trainer(folder, steps, [saving], **options)
    fitting.fit(system, data, ckpt_path=last if resume else None, weights_only=True)
    return system


def gaussian(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def codebook_of(system: ImageTokenizerTraining) -> Tensor:
    return system.image_tokenizer.quantize.embedding.weight


def test_a_batch_of_stories_gives_sources_and_existing_frames():
    source, frames = gaussian(2, 3, 8, 8), gaussian(2, 3, 3, 8, 8, seed=4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    images, weight = pictures_of(StoryBatch([[], []], source, frames, mask, {}, ["a", "b"]))
    assert torch.equal(images, torch.cat([source, frames[0, :2], frames[1, :1]]))
    assert weight is None


def test_a_tensor_or_pictures_are_taken_as_they_are():
    images, weight = gaussian(2, 3, 8, 8), gaussian(2, 1, 8, 8)
    assert pictures_of(images).images is images and pictures_of(images).weight is None
    assert pictures_of(Pictures(images, weight)).weight is weight


def test_the_edge_weight_equals_a_loop_over_pixels():
    images = gaussian(2, 3, 7, 9).clamp(-1, 1)
    step = torch.zeros(2, 7, 9)
    for b in range(2):
        for y in range(7):
            for x in range(9):
                pixel = images[b, :, y, x]
                neighbours = [images[b, :, y + 1, x]] if y < 6 else []
                neighbours += [images[b, :, y, x + 1]] if x < 8 else []
                step[b, y, x] = max([0.0, *(min((pixel - other).abs().max().item(), 1.0) for other in neighbours)])
    expected = torch.ones(2, 1, 7, 9)
    for b in range(2):
        for y in range(7):
            for x in range(9):
                near = step[b, max(y - 2, 0) : y + 3, max(x - 2, 0) : x + 3]
                expected[b, 0, y, x] += 3.0 * near.max()
    torch.testing.assert_close(edge_weight(images, 3.0), expected)
    assert (edge_weight(torch.full((1, 3, 8, 8), 0.7), 3.0) == 1.0).all()


def test_the_reconstruction_loss_is_absolute_plus_squared_error():
    images = torch.zeros(1, 3, 8, 8)
    drawn = torch.zeros(1, 3, 8, 8)
    drawn[..., 0, 0] = 0.5
    system = tiny_system()
    torch.testing.assert_close(system.reconstruction_loss(drawn, images), torch.tensor(0.75 / 64))
    weight = torch.ones(1, 1, 8, 8)
    weight[..., 0, 0] = 3.0
    torch.testing.assert_close(system.reconstruction_loss(drawn, images, weight), torch.tensor(3 * 0.75 / 66))


def test_edges_weigh_more_than_flat_colour():
    images = torch.full((1, 3, 8, 8), -1.0)
    images[..., 4:] = 1.0
    at_edge, far_off = images.clone(), images.clone()
    at_edge[..., 0, 4] -= 0.5
    far_off[..., 0, 0] += 0.5
    plain, emphatic = tiny_system(), tiny_system(edge_emphasis=4.0)
    assert plain.reconstruction_loss(at_edge, images) == plain.reconstruction_loss(far_off, images)
    ratio = emphatic.reconstruction_loss(at_edge, images) / emphatic.reconstruction_loss(far_off, images)
    torch.testing.assert_close(ratio, torch.tensor(5.0))


def test_a_perceptual_distance_is_added_by_its_weight():
    class Distance(nn.Module):
        def forward(self, drawn: Tensor, images: Tensor) -> Tensor:
            return torch.tensor([1.0, 3.0])

    images = gaussian(2, 3, 8, 8)
    loss = tiny_system(perceptual=Distance(), perceptual_weight=0.5).reconstruction_loss(images, images)
    assert loss == 1.0


def test_the_learning_rate_warms_up_and_falls_as_a_cosine():
    rate = tiny_system(warmup_steps=10, max_steps=110).rate
    assert rate(0) == pytest.approx(0.1)
    assert rate(4) == pytest.approx(0.5)
    assert rate(10) == pytest.approx(1.0)
    assert rate(60) == pytest.approx(0.505)
    assert rate(110) == rate(500) == pytest.approx(0.01)
    assert all(rate(i) >= rate(i + 1) for i in range(10, 120))


def test_a_code_is_the_running_mean_of_its_latents():
    system = tiny_system(codebook_decay=0.75, restart_below=0.0)
    with torch.no_grad():
        codebook_of(system).copy_(gaussian(CODEBOOK, DIM))
    system.code_sum.copy_(codebook_of(system) / CODEBOOK)
    share, total = [1.0 / CODEBOOK] * CODEBOOK, [row / CODEBOOK for row in gaussian(CODEBOOK, DIM)]
    for seed in (7, 8, 9):
        latents = gaussian(5, DIM, 2, 2, seed=seed)
        codes = system.image_tokenizer.quantize(latents).codes
        vectors = [(int(codes[b, i]), latents[b, :, i // 2, i % 2]) for b in range(5) for i in range(4)]
        system.move_codebook(latents, codes)
        for code in range(CODEBOOK):
            mine = [vector for other, vector in vectors if other == code]
            share[code] = 0.75 * share[code] + 0.25 * len(mine) / 20
            total[code] = 0.75 * total[code] + 0.25 * sum(mine, torch.zeros(DIM)) / 20
            torch.testing.assert_close(codebook_of(system)[code].detach(), total[code] / share[code])


def test_an_unused_code_keeps_its_place_until_it_is_restarted():
    system = tiny_system(restart_below=0.0)
    with torch.no_grad():
        codebook_of(system)[1:] = 100.0
    system.code_sum.copy_(codebook_of(system) / CODEBOOK)
    latents = torch.zeros(4, DIM, 2, 2)
    for _ in range(50):
        system.move_codebook(latents, system.image_tokenizer.quantize(latents).codes)
    torch.testing.assert_close(codebook_of(system)[1:].detach(), torch.full((CODEBOOK - 1, DIM), 100.0))


def test_a_dead_code_moves_to_the_latents_that_are_worst_quantised():
    system = tiny_system(restart_below=0.5)
    with torch.no_grad():
        codebook_of(system).fill_(1000.0)
        codebook_of(system)[0] = 0.0
    system.code_share[3] = 1e-3
    latents = torch.zeros(4, DIM, 2, 2)
    latents[2, :, 1, 0] = 7.0
    system.move_codebook(latents, system.image_tokenizer.quantize(latents).codes)
    assert (codebook_of(system)[3] == 7.0).all()
    assert system.code_share[3] == 1.0 / CODEBOOK
    assert (system.image_tokenizer.quantize(latents).codes[2, 2] == 3).all()


def test_restarts_depend_on_seed_and_step_alone():
    def moved(seed: int) -> Tensor:
        system = tiny_system(seed=seed, restart_below=2.0)
        latents = gaussian(6, DIM, 2, 2)
        system.move_codebook(latents, system.image_tokenizer.quantize(latents).codes)
        torch.rand(1)  # the global state plays no part
        return codebook_of(system).detach().clone()

    assert torch.equal(moved(1), moved(1))
    assert not torch.equal(moved(1), moved(2))


def test_the_first_steps_are_not_quantised_and_fill_the_codebook_with_latents(tmp_path: Path):
    system = tiny_system(steps_without_quantization=12)
    seen: list[Tensor] = []
    remember = system.remember

    def spy(latents: Tensor) -> None:
        seen.append(latents.movedim(1, -1).reshape(-1, DIM).clone())
        remember(latents)

    system.remember = spy  # type: ignore[method-assign]
    fit(system, tmp_path, 12)
    assert len(seen) == 12
    latents = torch.cat(seen[-10:])
    for code in codebook_of(system):
        assert (latents == code).all(dim=1).any()
    torch.testing.assert_close(system.code_sum / system.code_share[:, None], codebook_of(system).detach())


def test_everything_trainable_moves_in_two_steps(tmp_path: Path):
    before = {name: value.clone() for name, value in tiny_tokenizer().state_dict().items()}
    system = fit(tiny_system(steps_without_quantization=1, restart_below=0.5), tmp_path, 3)
    after = system.image_tokenizer.state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    (optimizer,) = system.configure_optimizers()[0]
    optimized = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    outside = [name for name, p in system.image_tokenizer.named_parameters() if id(p) not in optimized]
    assert outside == ["quantize.embedding.weight"]


def test_training_the_decoder_alone_keeps_every_code(tmp_path: Path):
    system = tiny_system(decoder_only=True, weight_decay=0.1)
    nn.init.normal_(codebook_of(system))
    images = gaussian(4, 3, 8, 8).clamp(-1, 1)
    codes = system.image_tokenizer.encode(images)
    before = {name: value.clone() for name, value in system.image_tokenizer.state_dict().items()}
    after = fit(system, tmp_path, 3).image_tokenizer.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith(("decoder.", "post_quant_conv."))}
    assert torch.equal(system.image_tokenizer.encode(images), codes)


@pytest.mark.parametrize("critic", [False, True])
@pytest.mark.parametrize("killed_after", [2, 5])  # before and after quantisation starts
def test_a_resumed_run_equals_the_uninterrupted_one(critic: bool, killed_after: int, tmp_path: Path):
    def system() -> ImageTokenizerTraining:
        discriminator = Critic() if critic else None
        return tiny_system(steps_without_quantization=3, restart_below=0.5, max_steps=8, discriminator=discriminator)

    whole = fit(system(), tmp_path / "whole", 8).state_dict()
    fit(system(), tmp_path / "cut", killed_after)
    resumed = fit(system(), tmp_path / "cut", 8, resume=True).state_dict()
    assert {"code_share", "code_sum", "image_tokenizer.quantize.embedding.weight"} <= whole.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_a_discriminator_starts_at_its_step_and_steps_count_once(tmp_path: Path):
    def critic_after(steps: int) -> tuple[dict[str, Tensor], ImageTokenizerTraining]:
        system = tiny_system(steps_without_quantization=1, discriminator=Critic(), adversarial_start=2)
        fit(system, tmp_path / str(steps), steps)
        assert system.discriminator is not None
        return system.discriminator.state_dict(), system

    fresh = Critic().state_dict()
    early, system = critic_after(2)
    assert system.global_step == 2
    late, system = critic_after(4)
    assert system.global_step == 4
    for name, value in fresh.items():
        assert torch.equal(value, early[name]), name
    assert not torch.equal(fresh["0.weight"], late["0.weight"])
    assert not torch.equal(fresh["2.weight"], late["2.weight"])


def test_a_discriminator_changes_the_pictures(tmp_path: Path):
    plain = fit(tiny_system(steps_without_quantization=1), tmp_path / "plain", 3)
    judged = fit(tiny_system(steps_without_quantization=1, discriminator=Critic()), tmp_path / "judged", 3)
    weight = "decoder.conv_out.weight"
    assert not torch.equal(plain.image_tokenizer.state_dict()[weight], judged.image_tokenizer.state_dict()[weight])


def test_usage_perplexity_and_error_are_logged_within_their_ranges(tmp_path: Path):
    system = tiny_system(steps_without_quantization=1)
    fit(system, tmp_path, 3, limit_val_batches=1, val_check_interval=3)
    metrics = system.trainer.callback_metrics
    assert 1.0 <= metrics["train/codebook_perplexity"] <= CODEBOOK
    assert 0.0 < metrics["train/codebook_usage"] <= 1.0
    assert 0.0 < metrics["val/reconstruction_error"] < 1.0
    images = next(iter(system.trainer.val_dataloaders))
    used = set(system.image_tokenizer.encode(images).flatten().tolist())
    assert metrics["val/codebook_usage"] == len(used) / CODEBOOK
    assert 1.0 <= metrics["val/codebook_perplexity"] <= len(used)
    assert "train/loss" in metrics


def test_the_perplexity_of_even_shares_is_their_number():
    assert perplexity(torch.tensor([0.25, 0.25, 0.0, 0.25, 0.25])).item() == pytest.approx(4.0)
    assert perplexity(torch.tensor([1.0, 0.0])).item() == pytest.approx(1.0)


def test_the_validation_error_is_the_mean_distance_in_colours_from_0_to_1():
    system = tiny_system()
    logged: dict[str, Tensor] = {}
    system.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign, assignment]
    images = gaussian(2, 3, 8, 8).clamp(-1, 1)
    system.validation_step(images, 0)
    drawn = system.image_tokenizer.decode(system.image_tokenizer.encode(images))
    expected = ((drawn + 1) / 2 - (images + 1) / 2).abs().mean()
    torch.testing.assert_close(logged["val/reconstruction_error"], expected)


def move_on_rank(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    statistics = []
    for restart_below in (0.0, 2.0):
        system = tiny_system(restart_below=restart_below)
        latents = gaussian(4, DIM, 2, 2, seed=rank)
        system.remember(latents)
        system.move_codebook(latents, system.image_tokenizer.quantize(latents).codes)
        statistics += [codebook_of(system).detach(), system.code_share, system.code_sum]
    torch.save(statistics, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_keep_one_codebook(tmp_path: Path):
    mp.spawn(move_on_rank, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for ours, theirs in zip(first, second, strict=True):
        assert torch.equal(ours, theirs)
    assert math.isfinite(first[0].sum())
