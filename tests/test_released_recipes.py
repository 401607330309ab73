"""From files as their authors share them to a trained StoryDALL-E: convert, then train an experiment of a story set."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from storydalle.commands import main
from storydalle.commands.application import compose
from storydalle.files.conf import config_names
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.released.model_layouts import ADDED_NAMES
from tests import test_sets_end_to_end
from tests.released_models import FULL, random_weights, stage2_shapes
from tests.released_tokenizers import taming_weights
from tests.test_conversion import HEADS, write_mega, write_min_dalle, write_vocabulary
from tests.test_didemo import root as didemo_root  # noqa: F401  (fixtures)
from tests.test_flintstones import root as flintstones_root  # noqa: F401
from tests.test_pororo import root as pororo_root  # noqa: F401
from tests.test_vist import root as vist_root  # noqa: F401

EXPERIMENTS = [name for name in config_names("experiment") if "/story_dalle_" in name]
ORDINARY = (
    *("pororo/story_dalle_full", "flintstones/story_dalle_prompt"),
    *("didemo/story_dalle_mega", "didemo/story_dalle_full", "vist/story_dalle_full"),
)
SETS: dict[str, tuple[Callable[[pytest.FixtureRequest, Path], Path], tuple[str, ...]]] = {
    name: test_sets_end_to_end.SETS[name] for name in ("pororo", "flintstones", "didemo", "vist")
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def convert(folder: Path, kind: str) -> None:
    """``models/mindalle`` or ``models/mega``, of generated files."""
    if kind == "mega":
        write_mega(folder / "released")
        files = ("source=released", "image_encoder=released/last.ckpt")
        assert main.main(["convert", "format=dalle-mega", *files, "target=models/mega", f"num_heads={HEADS}"]) == 0
        return
    write_min_dalle(folder / "released")
    with tarfile.open(folder / "1.3B.tar.gz", "w:gz") as tar:
        tar.add(folder / "released" / "1.3B", "1.3B")
    files = ("source=1.3B.tar.gz", "target=models/mindalle")
    assert main.main(["convert", "format=mindalle", *files, f"num_heads={HEADS}"]) == 0


def train(experiment: str, request: pytest.FixtureRequest, folder: Path, *more: str) -> StoryDALLE:
    make, options = SETS[experiment.split("/")[0]]
    root, kind = make(request, folder), "mega" if experiment.endswith("mega") else "mindalle"
    data = (f"data.root={root}", f"pretrained=models/{kind}", *options)
    assert main.main(["train", f"experiment={experiment}", *data, "name=first", *more]) == 0
    return StoryDALLE.from_pretrained(Path("runs", experiment, "first", "model"))


@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=[] if name in ORDINARY else [pytest.mark.slow]) for name in EXPERIMENTS]
)
def test_released_files_are_converted_and_trained_on(
    experiment: str, folder: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = "mega" if experiment.endswith("mega") else "mindalle"
    convert(folder, kind)
    base = StoryDALLE.from_pretrained(folder / "models" / kind)
    made = train(experiment, request, folder, "trainer=smoke", "data.resolution=8", "memory_limit_gb=1")
    assert "needs about 0.0 GB" in capsys.readouterr().out
    names = ADDED_NAMES[{"pororo": 9, "flintstones": 7}.get(experiment.split("/")[0], 0)]
    assert made.caption_tokenizer.added_names == names
    assert made.model.config["num_prompt_tokens"] == (32 if "prompt" in experiment else 0)
    assert list(made.model.source_attention) == [str(i) for i in range(base.model.backbone.depth)]
    block = "blocks.0.mlp.0.weight" if kind == "mindalle" else "decoder.layers.0.glu.fc0.weight"
    before, after = (model.model.backbone.get_parameter(block) for model in (base, made))
    assert torch.equal(before.half(), after.half()) == ("prompt" in experiment)
    assert made.model.source_attention["0"].proj.weight.any(), "it began at zero, and has learned"
    card = json.loads(Path("runs", experiment, "first", "model", "card.json").read_text())
    assert card["sampling"] == {"temperature": 1.0, "top_k": 256} and card["num_steps"] == 2


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_recipe_has_the_released_codes_rates_and_batch(experiment: str) -> None:
    settings = compose("train", [f"experiment={experiment}"])
    frames = settings.data_module.batch_size * settings.trainer.accumulate_grad_batches * settings.data.num_targets
    assert frames == 16
    system = settings.system
    assert (list(system.betas), system.weight_decay, system.schedule, system.clip) == ([0.9, 0.99], 0, "constant", None)
    rates = {system.learning_rate, system.source_learning_rate, system.story_learning_rate}
    assert rates == {1e-4 if experiment.startswith("pororo") else 1e-5}
    assert system.text_weight == (0 if experiment.endswith("mega") else 1)
    assert system.tuning == ("prompt" if experiment.endswith("prompt") else "full")
    assert settings.data.resolution == 256 and settings.ema_decay is None


@pytest.mark.parametrize(("data", "number"), [("pororo", 9), ("flintstones", 7), ("didemo", 0)])
def test_added_names_are_those_that_the_released_checkpoints_hold(data: str, number: int) -> None:
    settings = compose("train", [f"experiment={data}/story_dalle_full"])
    assert tuple(settings.network.added_names) == ADDED_NAMES[number]


def write_wide(folder: Path) -> None:
    """minDALL-E's archive unpacked, at full width and full vocabularies, with two blocks.

    Its VQGAN has the released one's levels and codebook at a quarter of the channels: the rest is time on a CPU.
    """
    words = write_vocabulary(folder / "1.3B" / "tokenizer", "bpe-16k-")
    vocab = folder / "1.3B" / "tokenizer" / "bpe-16k-vocab.json"
    known: dict[str, Any] = json.loads(vocab.read_text())
    vocab.write_text(json.dumps(known | {f"unused{i}": i for i in range(words, FULL.words)}))
    vqgan = taming_weights((32, 32, 64, 64, 128), 2, (4,), z=256, codes=FULL.codes, embed=256)
    torch.save({"state_dict": vqgan}, folder / "1.3B" / "stage1_last.ckpt")
    weights = {name: 0.02 * value for name, value in random_weights(stage2_shapes(FULL._replace(depth=2))).items()}
    torch.save({"state_dict": weights}, folder / "1.3B" / "stage2_last.ckpt")


@pytest.mark.slow
def test_a_full_width_model_takes_two_steps_of_the_recipe_and_logs_its_loss(
    folder: Path, request: pytest.FixtureRequest
) -> None:
    write_wide(folder / "released")
    assert main.main(["convert", "format=mindalle", "source=released", "target=models/mindalle"]) == 0
    quick = ("trainer=smoke", "trainer.accumulate_grad_batches=2", "trainer.limit_val_batches=0")
    made = train("pororo/story_dalle_full", request, folder, *quick)
    backbone = made.model.backbone
    assert (backbone.dim, backbone.num_heads, backbone.depth, backbone.image_length) == (1536, 24, 2, 256)
    assert (backbone.num_codes, backbone.text_vocab_size, made.resolution) == (16384, 16384 + 9, 256)
    assert len(made.model.source_attention) == 2
    losses = (folder / "runs/pororo/story_dalle_full/first/csv").rglob("metrics.csv")
    assert "train/loss_image" in next(losses).read_text()
