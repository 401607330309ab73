"""Training multiplies in bf16 where the device does so fast: what is chosen, told, recorded, and kept on resuming."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from storydalle.commands import main
from storydalle.commands.application import compose
from storydalle.files.conf import conf_folder
from storydalle.metrics.networks import label_reader_training
from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.mistakes import UserError
from storydalle.tokens.vqgan import VQGAN
from storydalle.training import precision
from storydalle.training.precision import ProductSeconds, choose, resolved, speed_of
from storydalle.training.train_settings import TrainSettings
from tests.test_metrics_label_reader import plain_story

WITH_UNITS, WITHOUT = ProductSeconds(bf16=0.0001, fp32=0.0004), ProductSeconds(bf16=0.02, fp32=0.0004)
EMULATED = ProductSeconds(bf16=0.0005, fp32=0.0004)
TINY = (
    *("experiment=toon/image_tokenizer", "data.resolution=64", "data.train.num_stories=4", "data.val.num_stories=2"),
    *("tokenizer=tiny", "data_module.batch_size=2"),
    *("trainer=smoke", "name=first", "save_every=1"),
)


@pytest.mark.parametrize(
    ("seconds", "chosen"), [(WITH_UNITS, "bf16-mixed"), (WITHOUT, "32-true"), (EMULATED, "32-true")]
)
def test_auto_takes_bf16_only_where_it_is_clearly_faster(seconds: ProductSeconds, chosen: str) -> None:
    taken, told = choose("auto", speed_of(seconds))
    assert taken == chosen
    assert told == f"precision {chosen}: {seconds}"
    assert f"{1000 * seconds.bf16:.2g} ms in bf16 and 0.4 ms in fp32" in told


@pytest.mark.parametrize("asked", ["bf16-mixed", "bf16-true"])
def test_an_explicit_bf16_is_taken_and_told_only_where_it_is_slow(asked: str) -> None:
    assert choose(asked, speed_of(WITH_UNITS)) == choose(asked, speed_of(EMULATED)) == (asked, None)
    taken, told = choose(asked, speed_of(WITHOUT))
    assert taken == asked
    assert told is not None and "\n" not in told
    assert f"trainer.precision={asked}" in told and "32-true" in told and "20 ms in bf16 and 0.4 ms in fp32" in told


@pytest.mark.parametrize("asked", ["32-true", "16-mixed", "64-true"])
def test_what_has_no_bf16_is_taken_without_a_measurement(asked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_speed", None)
    assert resolved(asked, "auto") == (asked, None)


@pytest.mark.parametrize(
    ("capability", "chosen"), [((7, 5), "32-true"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")]
)
def test_a_graphics_card_is_known_by_its_generation(
    capability: tuple[int, int], chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= (8, 0))
    for accelerator in ("auto", "gpu", "cuda"):
        taken, told = resolved("auto", accelerator)
        assert taken == chosen
        assert told is not None and ".".join(map(str, capability)) in told
    monkeypatch.setattr(precision, "product_seconds", lambda: WITHOUT)
    assert resolved("auto", "cpu")[0] == "32-true"


def test_products_in_both_precisions_take_measurable_time() -> None:
    assert min(precision.product_seconds()) > 0


def test_no_config_asks_for_bf16_whatever_the_machine() -> None:
    found = {(path.stem, line.split()[1]) for path, line in precisions()}
    assert found == {("default", "auto"), ("cpu_tiny", "32-true"), ("smoke", "32-true")}
    for trainer in ("default", "fit_24gb", "fit_48gb"):
        assert compose("train", ["experiment=toon/story_dalle", f"trainer={trainer}"]).trainer.precision == "auto"


def precisions() -> Iterator[tuple[Path, str]]:
    for path in conf_folder().rglob("*.yaml"):
        yield from ((path, line) for line in path.read_text().splitlines() if line.strip().startswith("precision:"))


def test_a_run_says_and_records_its_precision_and_a_resumed_one_keeps_it_on_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def train(seconds: ProductSeconds, *more: str) -> int:
        monkeypatch.setattr(precision, "product_seconds", lambda: seconds)
        return main.main(["train", *TINY, "trainer.precision=auto", *more])

    with monkeypatch.context() as killing:
        killing.setattr(VQGAN, "save_pretrained", lambda *_: sys.exit(9))
        with contextlib.suppress(SystemExit):
            assert train(WITHOUT) != 0
    assert f"precision 32-true: {WITHOUT}\n" in capsys.readouterr().out
    assert train(WITH_UNITS, "resume=true") == 0
    assert "bf16" not in capsys.readouterr().out
    folder = Path("runs/toon/image_tokenizer/first")
    config = OmegaConf.load(folder / "config.yaml")
    assert config.trainer.precision == json.loads((folder / "metrics.json").read_text())["precision"] == "32-true"


def test_the_memory_estimate_is_that_of_the_precision_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def estimated(system: object, data: object, stories: object, settings: TrainSettings, device: object) -> None:
        seen.append(settings.precision)
        raise UserError("enough seen")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("storydalle.commands.train.check_memory", estimated)
    for name, seconds in (("one", WITHOUT), ("two", WITH_UNITS)):
        monkeypatch.setattr(precision, "product_seconds", lambda seconds=seconds: seconds)
        assert main.main(["train", *TINY, "trainer.precision=auto", f"name={name}"]) == 2
    assert seen == ["32-true", "bf16-mixed"]


def test_a_label_reader_trains_in_what_the_device_multiplies_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    class Watched(LabelReader):
        def forward(self, images: torch.Tensor) -> Any:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(images)

    for seconds in (WITHOUT, WITH_UNITS):
        monkeypatch.setattr(precision, "product_seconds", lambda seconds=seconds: seconds)
        reader = Watched(resolution=16, dims=(8, 16))
        label_reader_training.train_label_reader([plain_story(0)], steps=1, batch_size=2, reader=reader)
    assert seen == [False, True]
