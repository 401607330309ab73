"""Training of the dVAE: relaxation, divergence and likelihood by hand, schedules, what is logged and refused."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor, nn

from storydalle.stories.data import Frames
from storydalle.tokens.dvae import DVAE, VocabularyConv2d
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.relaxation import (
    gumbel,
    kl_to_uniform,
    logit_laplace_nats,
    one_hot_codes,
    relaxed_samples,
    squared_errors,
)
from storydalle.tokens.vqgan import VQGAN
from storydalle.training.building import story_dalle, text_to_image
from storydalle.training.callbacks import RunningMean
from storydalle.training.dvae_training import DVAETraining, Schedule
from storydalle.training.tokenizer_training import ImageTokenizerTraining
from tests.released_tokenizers import openai_weights, pictures
from tests.tiny import TinyStories, trainer

CODES, SIDE = 12, 16
pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")  # steps are called without a Trainer too


def tiny_dvae(**settings: Any) -> DVAE:
    torch.manual_seed(0)
    sizes = {"hidden": 8, "num_groups": 2, "blocks_per_group": 1, "codebook_size": CODES, "embed_dim": 6}
    return DVAE(SIDE, **{**sizes, "pixel_shuffle": 2, **settings})


def gumbel_vqgan(quantizer: str = "gumbel") -> VQGAN:
    torch.manual_seed(0)
    plain = {"num_res_blocks": 1, "attn_resolutions": (), "norm_groups": 4, "mid_attention": False}
    return VQGAN(SIDE, 8, (1, 1), z_channels=8, codebook_size=CODES, embed_dim=4, quantizer=quantizer, **plain)


def tiny_system(model: ImageTokenizer | None = None, **options: Any) -> DVAETraining:
    return DVAETraining(model or tiny_dvae(), **{"warmup_steps": 0, "max_steps": 100, "learning_rate": 1e-3, **options})


def logged_by(system: DVAETraining) -> dict[str, Any]:
    """What a system without a Trainer logs."""
    logged: dict[str, Any] = {}
    system.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign, assignment]
    system.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign, assignment]
    return logged


def fit(system: DVAETraining, folder: Path, steps: int, resume: bool = False, **options: Any) -> DVAETraining:
    saving = ModelCheckpoint(folder, save_last=True, every_n_train_steps=1, save_top_k=0)
    data = Frames(TinyStories(12, resolution=SIDE), TinyStories(2, resolution=SIDE, seed=1), batch_size=4)
    callbacks = [*options.pop("callbacks", []), saving]
    fitting = trainer(folder, steps, callbacks, **options)
    fitting.fit(system, data, ckpt_path=folder / "last.ckpt" if resume else None, weights_only=True)
    return system


def random(*shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ------------------------------------------------------------------------------------------------ relaxation


def test_relaxed_codes_are_a_softmax_of_noisy_logits_over_the_temperature() -> None:
    logits, noise = torch.tensor([1.0, 0.0, -1.0]).view(1, 3, 1, 1), torch.tensor([0.0, 0.5, 0.25]).view(1, 3, 1, 1)
    weights = [math.exp(2.0), math.exp(1.0), math.exp(-1.5)]
    found = relaxed_samples(logits, noise, tau=0.5).flatten().tolist()
    assert found == pytest.approx([each / sum(weights) for each in weights])


def test_codes_are_drawn_as_often_as_their_probability_says() -> None:
    """The highest of logits with Gumbel noise is a draw from their softmax (Maddison et al. 2016)."""
    logits = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1).expand(1, 3, 200, 200)
    noise = gumbel(torch.rand(logits.shape, generator=torch.Generator().manual_seed(0)))
    found = one_hot_codes(relaxed_samples(logits, noise, tau=1.0)).mean(dim=(0, 2, 3))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 2.0]).softmax(0), atol=0.02, rtol=0)


def test_noise_is_finite_for_every_number_that_torch_draws() -> None:
    assert gumbel(torch.tensor([0.0, 0.5, 1.0 - 2**-24])).isfinite().all()
    assert gumbel(torch.tensor([math.exp(-1.0)])).item() == pytest.approx(0.0, abs=1e-6)


def test_soft_samples_go_forward_and_whole_ones_only_straight_through() -> None:
    system, straight = tiny_system(), tiny_system(relaxation="straight_through")
    logits, uniform = random(2, CODES, 4, 4).requires_grad_(), torch.full((2, CODES, 4, 4), 0.5)
    soft, whole = system.samples(logits, uniform), straight.samples(logits, uniform)
    assert ((soft > 0.01) & (soft < 0.99)).any()
    torch.testing.assert_close(whole, one_hot_codes(logits.detach()))
    towards = random(2, CODES, 4, 4, seed=9)
    ours, theirs = (torch.autograd.grad((each * towards).sum(), logits)[0] for each in (soft, whole))
    torch.testing.assert_close(ours, theirs)
    assert ours.abs().max() > 1e-3


def test_the_divergence_of_a_uniform_posterior_is_0_and_of_one_code_ln_of_all() -> None:
    assert kl_to_uniform(torch.full((2, 8, 3, 3), 1.7)).abs().max() < 1e-6
    one = torch.zeros(1, 8, 2, 2)
    one[:, 5] = 100.0
    torch.testing.assert_close(kl_to_uniform(one), torch.full((1, 2, 2), math.log(8)))
    half = torch.tensor([0.0, 0.0, -100.0, -100.0]).view(1, 4, 1, 1)
    assert kl_to_uniform(half).item() == pytest.approx(math.log(2))


def test_the_divergence_is_of_the_posterior_to_the_uniform_one() -> None:
    """Not the other way round: q = (3/4, 1/4) gives ln 2 - H(q)."""
    found = kl_to_uniform(torch.tensor([math.log(3.0), 0.0]).view(1, 2, 1, 1)).item()
    assert found == pytest.approx(0.75 * math.log(0.75) + 0.25 * math.log(0.25) + math.log(2))


@pytest.mark.parametrize(("mu", "scale"), [(0.0, 1.0), (1.5, 0.3), (-0.7, 0.05)])
def test_the_density_of_a_colour_integrates_to_1(mu: float, scale: float) -> None:
    z = torch.linspace(mu - 40 * scale, mu + 40 * scale, 400_001, dtype=torch.float64)
    x = z.sigmoid().float().clamp(1e-7, 1 - 1e-7)  # evenly spaced logits, dense where the density is
    maps = torch.tensor([mu] * 3 + [math.log(scale)] * 3).view(1, 6, 1, 1).expand(1, 6, 1, len(x))
    density = (-logit_laplace_nats(maps, x.expand(1, 3, 1, -1)))[0, 0, 0].exp().double()
    inside = (z.sigmoid() > 1e-6) & (z.sigmoid() < 1 - 1e-6)  # what is outside was clamped
    total = torch.trapezoid((density * z.sigmoid() * (1 - z.sigmoid()))[inside], z[inside])
    assert total.item() == pytest.approx(1.0, abs=2e-3)


def test_a_density_may_be_above_1_so_its_nats_below_0() -> None:
    maps = torch.tensor([0.0] * 3 + [math.log(0.01)] * 3).view(1, 6, 1, 1)
    found = logit_laplace_nats(maps, torch.full((1, 3, 1, 1), 0.5))
    assert found.flatten().tolist() == pytest.approx([math.log(2 * 0.01 / 4)] * 3, rel=1e-5)


# ------------------------------------------------------------------------------------------------ schedules


@pytest.mark.parametrize(
    ("shape", "middle", "quarter"),
    [("half_cosine", 0.5, 0.146447), ("quarter_cosine", 0.292893, 0.0761205), ("linear", 0.5, 0.25)],
)
def test_schedules_at_their_start_middle_and_end(shape: str, middle: float, quarter: float) -> None:
    tau, beta = Schedule("tau", 1.0, 1 / 16, 1000, shape), Schedule("beta", 0.0, 6.6, 400, shape)
    assert (tau.at(0), beta.at(0)) == (1.0, 0.0)
    assert tau.at(500) == pytest.approx(1.0 - middle * 15 / 16)
    assert beta.at(200) == pytest.approx(6.6 * middle) and beta.at(100) == pytest.approx(6.6 * quarter, rel=1e-4)
    for step in (1000, 5000):
        assert tau.at(step) == pytest.approx(1 / 16) and beta.at(step) == pytest.approx(6.6)


def test_a_schedule_is_of_the_step_alone_and_does_not_compound() -> None:
    tau = Schedule("tau", 1.0, 1 / 16, 1000, "half_cosine")
    assert [tau.at(300) for _ in range(5)] == [tau.at(300)] * 5
    assert Schedule("tau", 1.0, 0.5, 0, "half_cosine").at(0) == 0.5


def test_schedules_have_shares_of_the_training_by_default() -> None:
    system = tiny_system(max_steps=1000)
    assert (system.tau.steps, system.beta.steps) == (750, 100)
    assert (tiny_system(max_steps=2).tau.steps, tiny_system(max_steps=2).beta.steps) == (1, 0)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tau_steps": 101}, "tau_steps=101 does not fit a training of max_steps=100, at whose end tau would be 0.0"),
        ({"beta_steps": 200}, "beta_steps=200 does not fit .* beta would be 3.3 and not 6.6: give fewer beta_steps"),
        ({"schedule": "cosine"}, "schedule=cosine is unknown; choose one of half_cosine, quarter_cosine, linear"),
        ({"relaxation": "hard"}, "relaxation=hard is unknown; choose one of gumbel, straight_through"),
        ({"likelihood": "l1"}, "likelihood=l1 is unknown; choose one of logit_laplace, mse"),
        ({"tau_end": 0.0}, "tau_end=0.0 must be above 0"),
        ({"model": gumbel_vqgan()}, "likelihood=logit_laplace needs the six maps of a dvae, not a vqgan"),
        ({"model": gumbel_vqgan("nearest")}, "quantizer=nearest trains by experiment=toon/image_tokenizer"),
        ({"model": tiny_dvae(margin=0.0)}, "margin=0 leaves black and white without a logit"),
    ],
)
def test_what_cannot_train_is_refused_in_one_line(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        tiny_system(**options)
    assert "\n" not in str(refused.value)


def test_the_other_recipe_says_what_trains_a_dvae() -> None:
    with pytest.raises(ValueError, match=r"kind vqgan \(quantizer=gumbel\) .* trains by experiment=toon/dvae"):
        ImageTokenizerTraining(gumbel_vqgan())


# ------------------------------------------------------------------------------------------------ the loss


@pytest.mark.parametrize("num", [1, 3])
def test_the_loss_is_the_mean_of_sub_pixels_and_beta_over_3_f_squared_of_places(num: int) -> None:
    """Divergences summed over the batch or over places, as in DALLE-pytorch, would be far larger."""
    system = tiny_system(beta=2.0, beta_steps=0)
    logged, images = logged_by(system), pictures(num, SIDE)
    loss = system.training_step(images, 0)
    logits = system.image_tokenizer.logits(images)
    q = logits.softmax(1)
    kl = (q * (q * CODES).log()).sum(1).sum() / (num * 4 * 4)
    torch.testing.assert_close(logged["train/kl"], kl)
    torch.testing.assert_close(loss, logged["train/reconstruction"] + 2.0 / (3 * 4**2) * kl)
    torch.testing.assert_close(logged["train/bound"], logged["train/reconstruction"] + 1.0 / (3 * 4**2) * kl)
    assert (logged["train/tau"], logged["train/beta"]) == (1.0, 2.0)


def test_at_the_papers_size_the_weight_of_the_divergence_is_beta_over_192() -> None:
    system = tiny_system(tiny_dvae(num_groups=4, pixel_shuffle=1))
    assert 6.6 * system.kl_scale == pytest.approx(6.6 / 192) == pytest.approx(0.034, abs=1e-3)


def test_the_target_is_the_mapped_picture_and_black_and_white_have_finite_nats() -> None:
    system = tiny_system()
    images = torch.ones(1, 3, SIDE, SIDE)
    images[..., ::2] = -1.0
    maps = torch.cat([torch.full((1, 3, SIDE, SIDE), math.log(9.0)), torch.zeros(1, 3, SIDE, SIDE)], dim=1)
    nats = system.errors(maps, images)  # logit(0.9) = ln 9 = -logit(0.1)
    torch.testing.assert_close(nats[..., 1::2], torch.full_like(nats[..., 1::2], math.log(2 * 0.9 * 0.1)))
    away = torch.full_like(nats[..., ::2], math.log(2 * 0.9 * 0.1) + 2 * math.log(9.0))
    torch.testing.assert_close(nats[..., ::2], away)


def test_squared_errors_are_of_colours_from_0_to_1_and_keep_their_gradient_beyond() -> None:
    assert squared_errors(torch.ones(1, 3, 1, 1), -torch.ones(1, 3, 1, 1)).unique().tolist() == [1.0]
    system = tiny_system(likelihood="mse")
    logged, images = logged_by(system), pictures(2, SIDE)
    system.training_step(images, 0)
    assert 0 < logged["train/reconstruction"] < 1 and "train/bound" not in logged
    maps = torch.full((1, 6, SIDE, SIDE), 4.0, requires_grad=True)  # brighter than white
    system.errors(maps, torch.ones(1, 3, SIDE, SIDE)).mean().backward()
    assert maps.grad is not None and maps.grad[:, :3].min() > 0


def test_both_ends_of_the_relaxation_are_1x1_in_full_precision_and_its_shares_too() -> None:
    model = tiny_dvae()
    ends = [
        model.encoder.blocks.group_2.block_1.res_path.conv_4,
        model.encoder.blocks.output.conv,
        model.decoder.blocks.input,
        model.decoder.blocks.group_1.block_1.res_path.conv_1,
    ]
    assert [layer.kernel_size for layer in ends] == [(1, 1)] * 4
    assert [isinstance(layer, VocabularyConv2d) for layer in ends] == [False, True, True, False]
    system, seen = tiny_system(model), []
    model.decoder.blocks.input.register_forward_hook(lambda _, given, made: seen.extend([given[0].dtype, made.dtype]))
    logged_by(system)
    with torch.autocast("cpu", torch.bfloat16):
        system.training_step(pictures(1, SIDE), 0)
    assert seen == [torch.float32] * 2


@pytest.mark.parametrize("make", [tiny_dvae, gumbel_vqgan])
def test_whole_shares_give_what_codes_give(make: Any) -> None:
    model = make().eval()
    images = pictures(2, SIDE)
    drawn = model.pictures(model.relaxed(one_hot_codes(model.logits(images)))).clamp(-1, 1)
    torch.testing.assert_close(drawn, model.decode(model.encode(images)), atol=1e-5, rtol=1e-4)
    assert len(model.encode(images).unique()) > 1


@pytest.mark.parametrize("make", [tiny_dvae, gumbel_vqgan])
def test_models_are_built_on_its_codes_as_on_those_of_a_vqgan(make: Any, tmp_path: Path) -> None:
    make().save_pretrained(tmp_path / "images")
    words, sizes = {"vocab_size": 300, "text_length": 16}, {"dim": 32, "depth": 2, "num_heads": 2}
    base = text_to_image(str(tmp_path / "images"), "runs", words, TinyStories(4, resolution=SIDE), sizes)
    base.save_pretrained(tmp_path / "base")
    model = story_dalle(str(tmp_path / "base"), "runs", {"source_blocks": "third"}).eval()
    drawn = model.draw_stories([["Pip waves.", "They sleep."]], pictures(1, SIDE))
    assert drawn.shape[-3:] == (3, SIDE, SIDE)
    assert model.image_tokenizer.kind == make().kind and model.model.backbone.codes_of == make().kind


# ------------------------------------------------------------------------------------------------ training

TRAINED = {
    "dvae": (tiny_dvae, {}),
    "straight": (tiny_dvae, {"relaxation": "straight_through", "likelihood": "mse"}),
    "gumbel": (gumbel_vqgan, {"likelihood": "mse"}),
}


@pytest.mark.parametrize("name", TRAINED)
def test_everything_moves_in_two_steps_and_is_saved(name: str, tmp_path: Path) -> None:
    make, options = TRAINED[name]
    before = {key: value.clone() for key, value in make().state_dict().items()}
    system = fit(tiny_system(make(), **options), tmp_path, 2)
    after = system.image_tokenizer.state_dict()
    assert [key for key in before if torch.equal(before[key], after[key])] == []
    system.image_tokenizer.save_pretrained(tmp_path / "model")
    again = ImageTokenizer.from_pretrained(tmp_path / "model")
    assert torch.equal(again.encode(pictures(2, SIDE)), system.image_tokenizer.eval().encode(pictures(2, SIDE)))


def test_openais_converted_dvae_trains_on_in_the_same_module(tmp_path: Path) -> None:
    sides = {side: openai_weights(side, codes=CODES) for side in ("encoder", "decoder")}
    weights = {
        f"{side}.{key[:-1]}{'weight' if key[-1] == 'w' else 'bias'}": value
        for side, values in sides.items()
        for key, value in values.items()
    }
    model = tiny_dvae(num_groups=4, blocks_per_group=2, pixel_shuffle=1)
    model.load_state_dict(weights)
    system = fit(tiny_system(model), tmp_path, 1)
    assert not torch.equal(
        system.image_tokenizer.state_dict()["decoder.blocks.input.weight"], weights["decoder.blocks.input.weight"]
    )


def test_a_resumed_training_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = fit(tiny_system(max_steps=4), tmp_path / "whole", 4).state_dict()
    fit(tiny_system(max_steps=4), tmp_path / "cut", 2)
    resumed = fit(tiny_system(max_steps=4), tmp_path / "cut", 4, resume=True).state_dict()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_draws_depend_on_the_seed_and_not_on_the_global_state() -> None:
    def loss(seed: int) -> float:
        system = tiny_system(seed=seed)
        logged_by(system)
        torch.rand(1)
        return system.training_step(pictures(1, SIDE), 0).item()

    assert loss(1) == loss(1) != loss(2)


def test_the_loss_falls_on_one_picture() -> None:
    system, images = tiny_system(max_steps=40, tau_steps=0), pictures(1, SIDE)
    logged_by(system)
    optimizer = torch.optim.Adam(system.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        losses.append(system.training_step(images, 0))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] - 0.05  # 0.1 to 0.3 with other seeds


def test_a_validation_compares_whole_codes_with_shares(tmp_path: Path) -> None:
    averaging = [RunningMean(decay=0.999)]
    system = fit(tiny_system(), tmp_path, 2, limit_val_batches=2, val_check_interval=2, callbacks=averaging)
    values = {name: float(value) for name, value in system.trainer.callback_metrics.items()}
    assert 0 < values["val/reconstruction_error"] < 1 and 0 < values["val/reconstruction_error_soft"] < 1
    ratio = values["val/reconstruction_error"] / values["val/reconstruction_error_soft"]
    assert values["val/hard_over_soft"] == pytest.approx(ratio) != 1.0
    assert values["val/bound_gap"] == pytest.approx(values["val/bound"] - values["val/bound_soft"], abs=1e-6)
    assert 1.0 <= values["val/codebook_perplexity"] <= CODES and 0 < values["val/codebook_usage"] <= 1
    named = {"loss", "reconstruction", "kl", "bound", "tau", "beta", "codebook_perplexity", "codebook_usage"}
    assert {f"train/{name}" for name in named} <= values.keys()


def test_at_a_low_temperature_without_doubt_whole_codes_are_as_good_as_shares() -> None:
    system = tiny_system(tau_end=0.01, tau_steps=0)
    nn.init.constant_(system.image_tokenizer.encoder.blocks.output.conv.weight, 0.0)
    with torch.no_grad():
        system.image_tokenizer.encoder.blocks.output.conv.bias.copy_(torch.arange(CODES) * 60.0)
    logged = logged_by(system)
    system.on_validation_epoch_start()
    system.validation_step(pictures(2, SIDE), 0)
    system.print = lambda *_: None  # type: ignore[method-assign]
    system.on_validation_epoch_end()
    assert logged["val/hard_over_soft"].item() == pytest.approx(1.0, abs=1e-5)
    assert logged["val/bound_gap"].item() == pytest.approx(0.0, abs=1e-4)


def test_collapsed_codes_are_told_with_the_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tiny_dvae(codebook_size=64)
    with torch.no_grad():
        model.encoder.blocks.output.conv.weight.zero_()
        model.encoder.blocks.output.conv.bias[3] = 50.0
    fit(tiny_system(model, learning_rate=1e-9), tmp_path, 1, limit_val_batches=1, val_check_interval=1)
    told = capsys.readouterr().out
    assert "note: only 1 of 64 codes are used at step 1, they have collapsed: system.beta=13.2 (now 6.6)" in told
    fit(tiny_system(), tmp_path / "fine", 1, limit_val_batches=1, val_check_interval=1)
    assert "collapsed" not in capsys.readouterr().out
