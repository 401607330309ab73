"""The memory that a training needs is told before it starts: counted by a formula, and measured to be that."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from storydalle.bench.peak_memory import PeakMemory
from storydalle.commands.application import compose
from storydalle.mistakes import UserError
from storydalle.models.backbones.backbone import Backbone
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.story_dalle import story_encoder
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import retrofit
from storydalle.tokens.cache import StoryCodes
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.tokens.encoded_stories import EncodedStories
from storydalle.tokens.vqgan import VQGAN
from storydalle.training import memory_limit
from storydalle.training.memory import TrainingMemory, training_memory
from storydalle.training.memory_limit import check_memory, longest_captions
from storydalle.training.story_dalle_training import StoryDALLETraining
from tests.tiny import CAPTIONS, TinyStories, tiny_story_dalle
from tests.training import train_settings

PAGE = Path(__file__).parent.parent / "docs" / "released-weights.md"
NAMES = 9
CPU = torch.device("cpu")


class Sizes(CaptionTokenizer):
    """A caption tokenizer of which the sizes alone are real."""

    def __init__(self, vocab_size: int) -> None:
        self.text_length, self.pad_id, self.added_names = 64, 1, ()
        self.num_words = vocab_size

    @property
    def vocab_size(self) -> int:
        return self.num_words


def small(kind: str, prompts: int, num_codes: int = 256, memory: str = "none") -> StoryDALLE:
    """Four blocks; 16 tokens a caption and 64 codes of ``num_codes`` a frame."""
    torch.manual_seed(0)
    images = VQGAN(16, 8, (1, 1), 1, (), 8, codebook_size=num_codes, embed_dim=4, norm_groups=4, mid_attention=False)
    captions = CaptionTokenizer.train(CAPTIONS, vocab_size=200, text_length=16)
    sizes = {"text_length": 16, "image_length": 64, "dim": 64, "depth": 4, "num_heads": 4}
    if kind == "mega":
        rows = dict.fromkeys(("image_vocab_size", "num_codes", "start_code"), num_codes) | {"pad_id": captions.pad_id}
        backbone: Backbone = MegaDALLE(captions.vocab_size, glu_dim=128, **rows, **sizes)
    else:
        backbone = DALLE(captions.vocab_size, num_codes, **sizes)
    return StoryDALLE(images, captions, retrofit(backbone, num_prompt_tokens=prompts, memory=memory))


def full(kind: str, source_blocks: str = "all", prompts: int = 0) -> StoryDALLE:
    """The released sizes, and names in the vocabulary."""
    widths = {"ch": 128, "ch_mult": (1, 1, 2, 2, 4), "num_res_blocks": 2, "attn_resolutions": (16,)}
    images = VQGAN(256, **widths, z_channels=256, embed_dim=256, codebook_size=16384)
    words = (50265 if kind == "mega" else 16384) + NAMES
    backbone: Backbone = MegaDALLE(words) if kind == "mega" else DALLE(words)
    return StoryDALLE(images, Sizes(words), retrofit(backbone, source_blocks, num_prompt_tokens=prompts))


def training(story_dalle: StoryDALLE, tuning: str, recompute: bool) -> StoryDALLETraining:
    text_weight = 1.0 if story_dalle.model.backbone.predicts_text else 0.0
    options = {"text_weight": text_weight, "bag_weight": 0.0, "activation_checkpointing": recompute}
    return StoryDALLETraining(story_dalle, tuning=tuning, betas=(0.9, 0.99), weight_decay=0.0, **options)


def batch(story_dalle: StoryDALLE, num_stories: int, num_frames: int) -> EncodedStories:
    backbone = story_dalle.model.backbone
    tokens = torch.randint(2, 60, (num_stories, num_frames, backbone.text_length))
    codes = torch.randint(0, 99, (num_stories, num_frames + 1, backbone.image_length))
    mask = torch.ones(num_stories, num_frames, dtype=torch.bool)
    return EncodedStories(tokens, tokens, codes[:, 0], codes[:, 1:], mask, {}, {})


def backward(system: StoryDALLETraining, data: EncodedStories, precision: str) -> None:
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed", cache_enabled=False):
        loss = system.training_step(data, 0)
    loss.backward()


def measured(system: StoryDALLETraining, data: EncodedStories, precision: str) -> float:
    """Of two steps of two batches each, as a run accumulates them."""
    optimizer = system.configure_optimizers()["optimizer"]
    memory = PeakMemory(nn.Module.parameters(system))
    with memory:
        for _ in range(2):
            backward(system, data, precision)
            backward(system, data, precision)
            optimizer.step()
            optimizer.zero_grad()
    return memory.peak


def test_what_is_measured_is_what_tensors_take() -> None:
    held = torch.zeros(100)
    with (memory := PeakMemory([held])):
        twice = held + 1
        del twice
        again = held + 1
        view = again.view(10, 10)
        del again, view
    assert (memory.now, memory.peak) == (400, 800)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    ("kind", "tuning"), [("dalle", "full"), ("dalle", "prompt"), ("mega", "full"), ("mega", "retrofit")]
)
def test_the_formula_says_what_is_measured(kind: str, tuning: str, recompute: bool, precision: str) -> None:
    system = training(small(kind, prompts=4 if tuning == "prompt" else 0), tuning, recompute)
    needed = training_memory(system, 2, 3, precision, on_cpu=True)
    assert needed.total == pytest.approx(measured(system, batch(system.story_dalle, 2, 3), precision), rel=0.08)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("memory", ["last", "all"])
@pytest.mark.parametrize("kind", ["dalle", "mega"])
def test_frames_that_are_remembered_are_counted(kind: str, memory: str, recompute: bool, precision: str) -> None:
    system = training(small(kind, 0, memory=memory), "full", recompute)
    needed = training_memory(system, 2, 8, precision, on_cpu=True)
    assert needed.total == pytest.approx(measured(system, batch(system.story_dalle, 2, 8), precision), rel=0.08)
    plain = training_memory(training(small(kind, 0), "full", recompute), 2, 8, precision, on_cpu=True)
    assert needed.total > 1.02 * plain.total


def test_more_stories_a_batch_cost_activations_alone() -> None:
    system = training(small("dalle", 0), "full", recompute=True)
    few, many = (training_memory(system, stories, 3, "32-true", on_cpu=True) for stories in (2, 8))
    assert 2 < many.activations / few.activations < 4
    assert many._replace(activations=few.activations) == few
    assert many.total == pytest.approx(measured(system, batch(system.story_dalle, 8, 3), "32-true"), rel=0.08)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_logits_of_a_large_codebook_are_counted(precision: str) -> None:
    system = training(small("dalle", 0, num_codes=8192), "full", recompute=True)
    needed = training_memory(system, 2, 3, precision, on_cpu=True)
    assert needed.activations > 12 * 6 * 64 * 8192
    assert needed.total == pytest.approx(measured(system, batch(system.story_dalle, 2, 3), precision), rel=0.08)


def test_an_average_and_the_optimizer_cost_what_they_hold() -> None:
    system = training(small("dalle", 0), "full", recompute=True)
    plain = training_memory(system, 1, 2, "32-true", on_cpu=True)
    averaged = training_memory(system, 1, 2, "32-true", on_cpu=True, has_average=True)
    trained = sum(parameter.numel() for parameter in system.parameters() if parameter.requires_grad)
    assert averaged.total - plain.total == 4 * sum(parameter.numel() for parameter in system.parameters())
    assert (plain.gradients, plain.optimizer) == (4 * trained, 8 * trained)
    system.optimizer = "adamw8bit"
    assert training_memory(system, 1, 2, "32-true", on_cpu=True).optimizer == pytest.approx(2.03 * trained, rel=0.001)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", ["dalle", "mega"])
def test_the_formula_is_within_five_percent_of_the_traced_peak_at_full_size(
    kind: str, recompute: bool, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced with tensors that have no numbers; which columns are padding is a question to numbers, so none is."""
    monkeypatch.setattr(MegaDALLE, "used_columns", lambda self, tokens: torch.arange(tokens.shape[1]))
    monkeypatch.setattr(story_encoder, "fullest", lambda kept: kept.shape[1])
    monkeypatch.setattr(Sizes, "added_ids", [])
    with FakeTensorMode():
        system = training(full(kind), "full", recompute)
        states = [torch.empty_like(parameter) for parameter in system.model.parameters() for _ in range(2)]
        for parameter in system.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in system.model.parameters()]
        data = batch(system.story_dalle, 1, 4)
        with (memory := PeakMemory([*system.parameters(), *states, *gradients])):
            backward(system, data, precision)
    needed = training_memory(system, 1, 4, precision, on_cpu=True)
    assert needed.total == pytest.approx(memory.peak, rel=0.05)


def preset(name: str, kind: str, tuning: str) -> tuple[TrainingMemory, float]:
    """The bytes that it needs on a GPU under a preset, and the preset's limit; nothing is allocated."""
    settings = compose(
        "train", [f"experiment=pororo/story_dalle_{'mega' if kind == 'mega' else 'full'}", f"trainer={name}"]
    )
    with torch.device("meta"):
        system = training(full(kind, prompts=32 if tuning == "prompt" else 0), tuning, recompute=True)
    assert settings.system.activation_checkpointing
    system.optimizer = settings.system.optimizer
    stories, frames = settings.data_module.batch_size, settings.data.num_targets
    assert settings.trainer.precision == "auto"
    needed = training_memory(system, stories, frames, "bf16-mixed", on_cpu=False)  # on a card that has it
    return needed, settings.memory_limit_gb * 1e9


@pytest.mark.parametrize(
    ("name", "kind", "tuning", "fits"),
    [
        ("fit_24gb", "dalle", "full", True),
        ("fit_24gb", "mega", "full", False),
        ("fit_24gb", "mega", "prompt", True),
        ("fit_48gb", "dalle", "full", True),
        ("fit_48gb", "mega", "full", False),
    ],
)
def test_the_page_of_released_weights_says_what_a_preset_needs(
    name: str, kind: str, tuning: str, fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sizes, "added_ids", [])
    needed, limit = preset(name, kind, tuning)
    assert (needed.total <= limit) == fits
    told = re.sub(r" +", " ", PAGE.read_text())
    backbone = {"dalle": "minDALL-E", "mega": "DALL-E Mega"}[kind]
    assert f"| `{name}` | {backbone} | {tuning} | {needed} |" in told


def test_a_training_that_fits_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    system, stories = training(small("dalle", 0), "full", recompute=True), TinyStories()
    needed = training_memory(system, 2, 4, "32-true", on_cpu=True)
    for limit in (None, 1):
        check_memory(system, None, stories, train_settings(memory_limit_gb=limit), CPU)
        said = f"needs about {needed} (tokens of a caption: all 16, since none is encoded yet)\n"
        assert capsys.readouterr().out == said


def test_what_is_free_limits_a_training_without_another_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    system = training(small("dalle", 0), "full", recompute=True)
    needed = training_memory(system, 2, 4, "32-true", on_cpu=True)
    for free, fits in ((needed.total - needed.weights, True), (needed.total - needed.weights - 1, False)):
        monkeypatch.setattr(memory_limit, "free_on", lambda _, free=free: free)
        if fits:
            check_memory(system, None, TinyStories(), train_settings(), CPU)
        else:
            with pytest.raises(UserError, match=r"MB are free: try data_module.batch_size=1"):
                check_memory(system, None, TinyStories(), train_settings(), CPU)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("kind", "pads"), [("dalle", True), ("dalle", False), ("mega", True)])
def test_columns_that_are_padding_in_every_caption_are_not_counted(kind: str, pads: bool, recompute: bool) -> None:
    story_dalle = small(kind, 0)
    backbone = story_dalle.model.backbone
    backbone.pad_id = story_dalle.caption_tokenizer.pad_id if pads else None
    data = batch(story_dalle, 2, 3)
    data.tokens[..., 5:] = story_dalle.caption_tokenizer.pad_id
    columns = len(backbone.used_columns(data.tokens.flatten(0, 1)))
    system = training(story_dalle, "full", recompute)
    needed = training_memory(system, 2, 3, "32-true", on_cpu=True, text_columns=columns)
    assert needed.total == pytest.approx(measured(system, data, "32-true"), rel=0.08)
    assert (needed.total < training_memory(system, 2, 3, "32-true", on_cpu=True).total) == pads


def test_captions_that_are_encoded_count_with_the_columns_of_the_longest(tmp_path: Path) -> None:
    stories, captions = TinyStories(), CaptionTokenizer.train(CAPTIONS, vocab_size=200, text_length=64)
    backbone = DALLE(captions.vocab_size, 24, dim=32, depth=1, num_heads=4, pad_id=captions.pad_id)
    data = StoryCodes(stories, stories, tiny_story_dalle().image_tokenizer, captions, tmp_path, batch_size=2)
    assert longest_captions(data, backbone) is longest_captions(None, backbone) is None
    data.prepare_data()
    every = torch.from_numpy(data.cached("train").arrays["captions"].astype("int64"))
    assert longest_captions(data, backbone) == len(backbone.used_columns(every)) < backbone.text_length


def test_where_stories_have_many_lengths_the_longest_counts() -> None:
    system = training(small("dalle", 0), "full", recompute=True)
    three, four = (training_memory(system, 2, frames, "32-true", on_cpu=True).total for frames in (3, 4))
    settings = train_settings(memory_limit_gb=(three + four) / 2e9, data__num_targets=None)
    check_memory(system, None, TinyStories(lengths=(1, 3, 2)), settings, CPU)
    with pytest.raises(UserError):
        check_memory(system, None, TinyStories(lengths=(1, 4, 2)), settings, CPU)


def test_a_training_that_does_not_fit_is_refused_with_what_to_change() -> None:
    system = training(small("dalle", 0), "full", recompute=False)
    settings = train_settings(memory_limit_gb=0.001, ema_decay=0.9)
    with pytest.raises(UserError) as refused:
        check_memory(system, None, TinyStories(), settings, CPU)
    said = str(refused.value)
    assert said.startswith("needs about 0.0 GB: ") and "memory_limit_gb=0.001" in said
    for change in (
        "activation_checkpointing=true",
        "batch_size=1",
        "ema_decay=null",
        "adamw8bit",
        "system.tuning=prompt",
    ):
        assert change in said
    smallest = training(small("dalle", 0), "retrofit", recompute=True)
    smallest.optimizer = "adamw8bit"
    smallest.model.source_attention = nn.ModuleDict()
    with pytest.raises(UserError, match="larger device"):
        settings = train_settings(memory_limit_gb=0.001, data_module__batch_size=1)
        check_memory(smallest, None, TinyStories(), settings, CPU)
