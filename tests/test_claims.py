"""Ablations for each claim of the paper: every config of conf/sweep/claims composes, and its members train."""

import itertools
from pathlib import Path

import pytest
import torch
import yaml

from storydalle.commands import application
from storydalle.files.conf import conf_folder, config_names
from storydalle.tokens.known_words import KnownWords
from storydalle.training.building import story_dalle
from tests.command_line import Command, command
from tests.tiny import GRID, tiny_story_dalle

__all__ = ["command"]

SWEEPS = config_names("sweep")
CLAIMS = [name for name in SWEEPS if name.startswith("claims/")]
OF_EVALUATIONS = ("claims/candidates",)
TRAININGS = [name for name in CLAIMS if name not in OF_EVALUATIONS]
EXPERIMENT = "experiment=toon/story_dalle"
RESOLUTION = 32 * GRID
TINY = (
    *(f"data.resolution={RESOLUTION}", "data.train.num_stories=2", "data.val.num_stories=1", "data.num_targets=2"),
    *("data_module.batch_size=2", "trainer=smoke", "system.story_warmup_steps=1", "save_every=2", "logger=none"),
)


def text_of(sweep: str) -> str:
    return (conf_folder() / "sweep" / f"{sweep}.yaml").read_text(encoding="utf-8")


def axes(sweep: str) -> dict[str, list[str]]:
    """What a sweep varies: its keys with their values."""
    params = yaml.safe_load(text_of(sweep))["hydra"]["sweeper"]["params"]
    return {key: str(values).split(",") for key, values in params.items()}


def members(sweep: str) -> list[list[str]]:
    varied = axes(sweep)
    each = itertools.product(*varied.values())
    return [[f"{key}={value}" for key, value in zip(varied, values, strict=True)] for values in each]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The folder of a text-to-image model of two blocks."""
    monkeypatch.setenv("WANDB_MODE", "disabled")
    model = tiny_story_dalle(resolution=RESOLUTION, source_blocks="none", story_depth=0)
    model.save_pretrained(tmp_path / "base")
    return "pretrained=base"


@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_sweep_opens_with_question_run_and_expectation(sweep: str) -> None:
    text = text_of(sweep)
    command = "evaluate -m" if sweep in OF_EVALUATIONS else "train -m experiment=toon/story"
    assert text.startswith("# @package _global_\n# Question: ")
    assert f"\n# Run: storydalle {command}" in text and f"sweep={sweep}" in text
    assert "\n# Expect: " in text


@pytest.mark.parametrize("sweep", TRAININGS)
def test_the_last_member_of_a_claim_trains(sweep: str, command: Command, base: str) -> None:
    *_, last = members(sweep)
    ended = command("train", EXPERIMENT, *TINY, base, *last, "name=it")
    assert ended.status == 0, ended.err


@pytest.mark.slow
@pytest.mark.parametrize("sweep", TRAININGS)
def test_every_member_of_a_claim_trains_and_ends_in_a_table(sweep: str, command: Command, base: str) -> None:
    ended = command("train", "-m", EXPERIMENT, *TINY, base, f"sweep={sweep}", "seeds=2", "hydra/launcher=basic")
    assert ended.status == 0, ended.err
    trained = list(Path("runs/toon/story_dalle", sweep).glob("*/model/config.json"))
    assert len(trained) == 2 * len(members(sweep))


def test_an_evaluation_chooses_candidates_in_both_ways(command: Command) -> None:
    seen: list[dict[str, object]] = []
    application.run("evaluate", lambda request: seen.append(request.settings), ["-m", "sweep=claims/candidates"])
    assert {settings["reranker"] for settings in seen} == {"likelihood", "clip"}
    assert len(seen) == len(members("claims/candidates")) == 4


def test_a_fresh_backbone_has_the_sizes_of_the_pretrained_one_and_none_of_its_weights(
    base: str, tmp_path: Path
) -> None:
    folder = str(tmp_path / "base")
    kept, fresh = (story_dalle(folder, "runs", {}, fresh_backbone=is_fresh) for is_fresh in (False, True))
    assert fresh.model.config == kept.model.config
    assert fresh.model.backbone.config == kept.model.backbone.config
    weights = [dict(each.model.backbone.named_parameters()) for each in (kept, fresh)]
    assert all(
        weights[0][name].shape == weights[1][name].shape and not torch.equal(weights[0][name], weights[1][name])
        for name in weights[0]
        if "emb" in name
    )
    assert fresh.words == KnownWords()
    codes = (each.image_tokenizer.state_dict() for each in (kept, fresh))
    assert all(torch.equal(one, other) for one, other in zip(*(each.values() for each in codes), strict=True))
