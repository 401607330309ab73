"""Every config composes, and says only what the code it names can take."""

import importlib.util
import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from omegaconf import OmegaConf

from storydalle.commands import main
from storydalle.commands.application import compose
from storydalle.files.conf import conf_folder, config_names
from storydalle.models.backbones.backbone import BACKBONES, Backbone
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE

EXPERIMENTS = config_names("experiment")
GROUPS = ("retrofit", "backbone", "tokenizer", "trainer", "logger", "callbacks")
PASSED_IN_CODE = {"image_tokenizer", "caption_tokenizer", "run"}  # what commands/train.py adds


def composed(command: str, *overrides: str) -> dict[str, Any]:
    config = compose(command, list(overrides))
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def targets(tree: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every node with a ``_target_``, by its place in the config."""
    if isinstance(tree, dict):
        if "_target_" in tree:
            yield path, tree
        for key, value in tree.items():
            yield from targets(value, f"{path}.{key}".lstrip("."))
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from targets(value, f"{path}[{i}]")


def accepted(target: str) -> tuple[set[str], list[str], bool]:
    """Parameters of what a ``_target_`` names, those without a default, and whether it takes any other."""
    module, _, name = target.rpartition(".")
    parameters = inspect.signature(getattr(importlib.import_module(module), name)).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    needed = [p.name for p in named if p.default is p.empty]
    return {p.name for p in named}, needed, any(p.kind is p.VAR_KEYWORD for p in parameters)


def test_every_command_has_a_config() -> None:
    assert set(main.COMMANDS) <= {path.stem for path in conf_folder().glob("*.yaml")}


@pytest.mark.parametrize("command", [name for name in main.COMMANDS if name != "train"])
def test_every_command_composes_without_settings(command: str) -> None:
    composed(command)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_names_code_that_takes_its_settings(experiment: str) -> None:
    config = composed("train", f"experiment={experiment}")
    for place, node in targets(config):
        names, needed, takes_any = accepted(node["_target_"])
        given = {key for key in node if not key.startswith("_")}
        assert takes_any or given <= names, f"{place} sets {given - names}, which {node['_target_']} does not have"
        if place == "system":  # commands/train.py gives it the network.
            needed = needed[1:]
        missing = set(needed) - given - PASSED_IN_CODE
        assert not missing, f"{place} lacks {missing} for {node['_target_']}"


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_opens_with_question_run_and_expectation(experiment: str) -> None:
    text = (conf_folder() / "experiment" / f"{experiment}.yaml").read_text()
    assert text.startswith("# @package _global_\n# Question: ")
    assert f"\n# Run: storydalle train experiment={experiment}" in text
    assert "\n# Expect: " in text


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_an_evaluation_takes_every_experiment(experiment: str) -> None:
    composed("evaluate", f"experiment={experiment}")


@pytest.mark.parametrize(
    "choice",
    [f"{group}={name}" for group in GROUPS for name in config_names(group)],
)
def test_every_choice_composes_with_an_experiment(choice: str) -> None:
    composed("train", f"experiment={EXPERIMENTS[0]}", choice)


def test_an_experiment_gives_way_to_the_command_line() -> None:
    config = composed("train", "experiment=toon/story_dalle", "retrofit=no_source", "trainer=smoke", "pretrained=here")
    assert config["network"]["retrofit"]["source_blocks"] == "none"
    assert config["pretrained"] == "here"
    assert config["system"]["max_steps"] == config["trainer"]["max_steps"] == 2


def test_an_experiment_sets_what_it_says() -> None:
    assert composed("train", "experiment=toon/story_dalle")["pretrained"] == "toon/text_to_image"


def test_the_ablation_runs_the_four_retrofits_under_names_of_their_own() -> None:
    config = compose("train", ["experiment=toon/story_dalle", "sweep=ablation"], with_hydra=True)
    assert config.hydra.sweeper.params.retrofit == "full,no_source,no_story,neither"
    assert "joblib" in config.hydra.launcher._target_
    raw = OmegaConf.to_container(config, resolve=False)
    assert isinstance(raw, dict)
    assert "retrofit" in raw["name"] and "seed" in raw["name"]


@pytest.mark.parametrize("sweep", [name for name in config_names("sweep") if name != "claims/candidates"])
def test_a_sweep_of_trainings_names_its_launcher_and_another_one_takes_its_place(sweep: str) -> None:
    asked = [f"experiment=toon/{'storyganc' if sweep == 'story_gan' else 'story_dalle'}", f"sweep={sweep}", "seed=0"]
    own = compose("train", asked, with_hydra=True).hydra.launcher
    assert "joblib" in own._target_ and own.n_jobs == 2
    assert "Basic" in compose("train", [*asked, "hydra/launcher=basic"], with_hydra=True).hydra.launcher._target_


@pytest.mark.parametrize(
    ("launcher", "remedy"),
    [
        pytest.param(
            *("submitit_slurm", 'pip install "storydalle[slurm]"'),
            marks=pytest.mark.skipif(importlib.util.find_spec("submitit") is not None, reason="submitit is here"),
        ),
        ("two_job", "did you mean two_jobs?"),
        ("cloud", "choose one of basic, joblib, slurm, slurm_here, submitit_local, submitit_slurm, two_jobs"),
    ],
)
def test_a_launcher_that_is_not_here_is_named_with_its_remedy(
    launcher: str, remedy: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main.main(["train", "-m", "experiment=toon/story_dalle", "sweep=ablation", f"hydra/launcher={launcher}"])
    assert status == 2
    assert capsys.readouterr().err.strip().endswith(remedy)


def test_the_ablation_takes_away_one_path_each() -> None:
    paths = {}
    for name in ("full", "no_source", "no_story", "neither"):
        retrofit = composed("train", "experiment=toon/story_dalle", f"retrofit={name}")["network"]["retrofit"]
        paths[name] = (retrofit["source_blocks"] != "none", retrofit["story_depth"] > 0)
    assert paths == {
        "full": (True, True),
        "no_source": (False, True),
        "no_story": (True, False),
        "neither": (False, False),
    }


@pytest.mark.parametrize("kind", ["roberta", "clip", "small"])
def test_the_caption_encoder_of_a_gan_may_be_exchanged(kind: str) -> None:
    """Nothing that was set for one is left over for the other."""
    config = composed("train", "experiment=toon/storyganc", f"caption_encoder@network.caption_encoder={kind}")
    own = composed("train", "experiment=toon/storyganc", "caption_encoder@network.caption_encoder=narrow")
    encoder = config["network"]["caption_encoder"]
    assert ("dim" in encoder) == (kind == "small")
    assert encoder.get("dim") != own["network"]["caption_encoder"]["dim"] == 128


@pytest.mark.parametrize(("name", "made"), [("mindalle", DALLE), ("mega", MegaDALLE)])
def test_the_released_backbones_have_the_sizes_of_their_class(name: str, made: type[Backbone]) -> None:
    sizes = composed("train", "experiment=toon/text_to_image", f"backbone={name}", "system.text_weight=0")["backbone"]
    defaults = inspect.signature(made).parameters
    assert BACKBONES.named(sizes.pop("kind")) is made
    assert sizes == {size: defaults[size].default for size in sizes} and "depth" in sizes


@pytest.mark.parametrize("trainer", ["fit_24gb", "fit_48gb", "cpu_tiny"])
def test_a_trainer_for_a_device_leaves_the_recipe_as_it_is(trainer: str) -> None:
    plain, fitted = (
        composed("train", "experiment=pororo/story_dalle_full", *choice) for choice in ([], [f"trainer={trainer}"])
    )
    assert fitted["trainer"]["accumulate_grad_batches"] == plain["trainer"]["accumulate_grad_batches"] == 4
    allowed = {"optimizer", "activation_checkpointing", "max_steps"}
    assert {key for key, value in fitted["system"].items() if plain["system"].get(key) != value} <= allowed
    assert fitted["data_module"] == plain["data_module"]
