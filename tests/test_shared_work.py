"""Recipes: what runs are built on is trained once, whoever needs it first, and whatever befalls whoever trains it."""

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from storydalle.commands import application, main
from storydalle.commands.application import compose, composed
from storydalle.commands.recipes import flat, literal, shared_run
from storydalle.files.dotted import value_at
from storydalle.files.reading import read_object
from storydalle.mistakes import Failure, UserError
from storydalle.training.runs import LAST, finished_models, newest_unfinished, state_of
from storydalle.training.sweeps import last_error
from tests.stub_training import JOBLIB, here, in_process, noted, run_of, stub, sweep_as_command
from tests.stub_training import sweep as stub_sweep
from tests.training import TINY

__all__ = ["here"]

EXPERIMENT = "toon/story_dalle"
RUNS = Path("runs") / EXPERIMENT
TOKENIZER = "{experiment:toon/image_tokenizer,max_steps:7}"
BACKBONE = "pretrained={experiment:toon/text_to_image,max_steps:3}"
sweep = partial(stub_sweep, experiment=EXPERIMENT)
as_command = partial(sweep_as_command, experiment=EXPERIMENT)


def ended() -> list[str]:
    return [line.removeprefix("end ") for line in noted() if line.startswith("end")]


# ------------------------------------------------------------------------------------------------ the run of a recipe


@pytest.mark.parametrize(
    "value",
    [3, 1e-5, -2.5, True, False, None, "toon/x", "a b, c", "it's", "", "3", "null", "true", "x{y}", [1, "a,b"], []],
)
def test_a_value_of_a_recipe_is_read_as_it_was_written(value: Any) -> None:
    recipe = {"experiment": "toon/image_tokenizer", "tokenizer.image.ch_mult": [1, 2], "sampling": value}
    config = compose("train", [f"experiment={EXPERIMENT}", f"pretrained={literal(recipe)}"])
    read = OmegaConf.to_container(config.pretrained)
    assert read == recipe
    assert isinstance(read, dict) and type(read["sampling"]) is type(value)


def test_groups_in_a_recipe_are_dotted_keys_and_a_recipe_in_it_stays_one() -> None:
    inner = {"experiment": "b", "data": {"resolution": 8}}
    recipe = {"experiment": "a", "system": {"learning_rate": 1, "more": {"x": 2}}, "data.seed": 3, "pretrained": inner}
    assert dict(flat(recipe)) == {
        "experiment": "a",
        "system.learning_rate": 1,
        "system.more.x": 2,
        "data.seed": 3,
        "pretrained": inner,
    }


def test_a_dotted_key_is_found_in_groups_whose_own_names_have_dots() -> None:
    tree = {"pretrained": {"data": "folder", "data.root": "here", "system": {"rate": 1}}}
    assert value_at(tree, "pretrained.data.root") == "here"
    assert value_at(tree, "pretrained.data") == "folder"
    assert value_at(tree, "pretrained.system.rate") == 1
    assert value_at(tree, "pretrained.data.other", "none") == "none" == value_at(tree, "pre", "none")


def test_equal_recipes_are_one_run_however_they_are_written() -> None:
    by = composed("train", [f"experiment={EXPERIMENT}"])

    def sha256(**recipe: object) -> str:
        return shared_run({"experiment": "toon/text_to_image", **recipe}, by).sha256

    plain = sha256()
    assert plain == sha256(max_steps=1300) == sha256(trainer={"max_steps": 1300}) == sha256(backbone="small")
    others = [sha256(max_steps=2), sha256(seed=1), sha256(pretrained={"experiment": "toon/image_tokenizer"})]
    assert len({plain, *others}) == 4


def test_where_things_are_a_recipe_takes_from_the_run_that_is_built_on_it() -> None:
    by = composed("train", ["experiment=folder/story_dalle", "data.root=mine", "runs=there", "logger=csv", "seed=5"])
    own = shared_run({"experiment": "folder/text_to_image"}, by).request.settings
    assert value_at(own, "data.root") == "mine" and own["runs"] == value_at(own, "network.runs") == "there"
    assert own["logger"] == by.settings["logger"] and own["seed"] == 0
    other = shared_run({"experiment": "toon/image_tokenizer"}, by)
    assert value_at(other.request.settings, "data.root") is None
    assert other.folder == Path("there/toon/image_tokenizer/shared") / other.sha256[:12]


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        ("{max_steps:3}", r"names no experiment: .*\{experiment:NAME"),
        ("{experiment:toon/text_to_imag}", "did you mean toon/text_to_image"),
        ("{experiment:toon/text_to_image,max_step:3}", "did you mean max_steps"),
        ("{experiment:toon/text_to_image,max_steps:0}", "max_steps"),
        ("{experiment:toon/text_to_image,name:x}", r"pretrained\.name=x: .*leave it out"),
        ("{experiment:toon/text_to_image,pretrained:{experiment:toon/image_tokeniser}}", "toon/image_tokenizer"),
        ("{experiment:toon/image_tokenizer,pretrained:{experiment:toon/clip}}", "no recipe"),
    ],
)
def test_a_recipe_that_cannot_be_trained_ends_a_sweep_before_it_begins(here: Path, recipe: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        sweep("seeds=2", f"pretrained={recipe}")
    assert list(here.iterdir()) == []


# ------------------------------------------------------------------------------------------------ once for all


def test_what_members_are_built_on_is_trained_once_and_what_that_is_built_on_before_it(here: Path) -> None:
    sweep("seeds=3", BACKBONE, f"+pretrained.pretrained={TOKENIZER}")
    assert ended() == ["image_tokenizer", "text_to_image", "seed0", "seed1", "seed2"]
    sweep("seeds=4", BACKBONE, f"+pretrained.pretrained={TOKENIZER}")
    assert ended()[5:] == ["seed3"]


def test_recipes_of_other_settings_are_trained_each(here: Path) -> None:
    sweep("seeds=2", BACKBONE, "pretrained.max_steps=3,4", f"+pretrained.pretrained={TOKENIZER}")
    assert sorted(ended()) == sorted(
        [
            "image_tokenizer",
            *["text_to_image"] * 2,
            *["max_steps3-seed0", "max_steps3-seed1", "max_steps4-seed0", "max_steps4-seed1"],
        ]
    )
    sweep("seed=0,1", "pretrained={experiment:toon/text_to_image,seed:${seed}}", "name=own")
    assert ended()[7:] == ["text_to_image", "seed0", "text_to_image", "seed1"]


def test_members_side_by_side_train_it_once_and_those_that_wait_say_so(here: Path) -> None:
    Path("long text_to_image").touch()
    done = as_command("seeds=4", BACKBONE, *JOBLIB)
    assert done.returncode == 0, done.stderr
    assert ended()[0] == "text_to_image" and sorted(ended()[1:]) == [f"seed{seed}" for seed in range(4)]
    assert noted().count("begin text_to_image") == 1
    waiting = [line for line in done.stdout.splitlines() if line.startswith("waiting for runs/toon/text_to_image/")]
    assert len(waiting) == 1 and "which storydalle train (process" in waiting[0]


def test_two_launches_at_once_train_it_once(here: Path) -> None:
    assert in_process(*[partial(sweep, "seeds=2", BACKBONE, f"name={name}") for name in ("one", "two")]) == [0, 0]
    assert ended().count("text_to_image") == noted().count("begin text_to_image") == 1
    assert len(ended()) == 5


def test_where_the_member_that_trains_it_is_killed_another_takes_over(here: Path) -> None:
    Path("kill worker text_to_image").touch()  # kills the process that started it, once
    done = as_command("seeds=2", BACKBONE, *JOBLIB)
    assert done.returncode == 1
    assert noted().count("begin text_to_image") == 2 and ended().count("text_to_image") == 1
    (last,) = [name for name in ended() if name.startswith("seed")]
    (other,) = {"seed0", "seed1"} - {last}
    assert "killed by SIGKILL" in last_error(RUNS / "by-seed" / other)
    assert as_command("seeds=2", BACKBONE, *JOBLIB, "retry=true").returncode == 0
    assert ended()[-1] == other and noted().count("begin text_to_image") == 2


@pytest.mark.parametrize(
    ("what", "why"), [("kill", "killed by SIGKILL"), ("exit", "ended with status 3"), ("raise", "No space left")]
)
def test_where_it_fails_those_that_need_it_are_marked_with_its_line_and_others_go_on(
    here: Path,
    what: str,
    why: str,
) -> None:
    Path(f"{what} text_to_image").touch()
    both = "pretrained={experiment:toon/text_to_image},text_to_image"
    with pytest.raises(Failure, match="retry=true tries again"):
        sweep("seeds=2", both, "name=s")
    failed = [path.parent for path in sorted(RUNS.glob("s/*/metrics.json")) if state_of(path.parent) == "failed"]
    assert len(failed) == 2 and len(ended()) == 2
    assert all(re.fullmatch(r"pretrained_text_to_image~[0-9a-f]{6}-seed\d", path.name) for path in failed)
    assert all("runs/toon/text_to_image/shared/" in last_error(path) and why in last_error(path) for path in failed)
    assert noted().count("begin text_to_image") == 1, "it is not tried by each of them"
    Path(f"{what} text_to_image").unlink()
    sweep("seeds=2", both, "name=s", "retry=true")
    assert len(ended()) == 2 + 3


def test_a_single_run_trains_it_too_and_again_after_a_failure(here: Path) -> None:
    command = [f"experiment={EXPERIMENT}", BACKBONE, "name=one"]
    Path("raise text_to_image").touch()
    with pytest.raises(Failure, match="No space left"):
        application.run("train", stub, command)
    Path("raise text_to_image").unlink()
    application.run("train", stub, command)
    assert ended() == ["text_to_image", "one"]


def test_a_recipe_may_name_an_experiment_of_the_users_own_folder(here: Path) -> None:
    (here / "own/experiment").mkdir(parents=True)
    text = "# @package _global_\ndefaults:\n  - /experiment/toon/text_to_image\n"
    (here / "own/experiment/mine.yaml").write_text(text)
    command = ["--config-dir", "own", f"experiment={EXPERIMENT}", "pretrained={experiment:mine}", "name=one"]
    application.run("train", stub, command)
    assert ended() == ["mine", "one"]


def test_among_the_processes_of_a_launcher_it_has_to_be_there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"train it first, storydalle train experiment=toon/text_to_image max_steps=3 "):
        sweep(BACKBONE, "name=one")


def test_a_shared_run_is_neither_the_newest_of_its_experiment_nor_resumed_as_one(here: Path) -> None:
    experiment = Path("runs/x")
    for name in ("own", "shared/ab"):
        (run_of(experiment, name, "a", values={}) / "model").mkdir()
        (experiment / name / "model/config.json").write_text("{}")
    assert finished_models(experiment) == [experiment / "own/model"]
    cut = run_of(experiment, "shared/cd", "a") / LAST
    cut.parent.mkdir()
    cut.touch()
    with pytest.raises(UserError, match="nothing to resume"):
        newest_unfinished(experiment)


def test_a_model_of_a_recipe_is_the_one_that_its_command_trains(
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    tiny = ["trainer=smoke", *TINY[:4], "logger=none"]
    of_recipe = {key: OmegaConf.create({"v": value}).v for key, value in (each.split("=") for each in TINY)}
    tokenizer = {
        "experiment": "toon/image_tokenizer",
        **{k: OmegaConf.from_dotlist([f"v={v}"]).v for k, v in of_recipe.items()},
    }
    recipe = {**tokenizer, "experiment": "toon/text_to_image", "backbone": "tiny", "pretrained": tokenizer}
    assert main.main(["train", f"experiment={EXPERIMENT}", *tiny, f"pretrained={literal(recipe)}", "name=it"]) == 0
    said = capfd.readouterr().out
    assert main.main(["train", "experiment=toon/image_tokenizer", *TINY, "name=own", "logger=none"]) == 0
    record = read_object(RUNS / "it/metrics.json")
    assert isinstance(record["shared"], list)
    backbone, images = (dict(each) for each in record["shared"] if each["what"] == "pretrained")  # type: ignore[arg-type, index]
    assert (backbone["experiment"], images["experiment"]) == ("toon/text_to_image", "toon/image_tokenizer")
    assert f"{images['where']} is trained first" in said
    assert str(images["where"]).endswith(str(images["sha256"])[:12])
    own, shared = (Path(each, "model/model.safetensors") for each in ("runs/toon/image_tokenizer/own", images["where"]))
    assert own.read_bytes() == shared.read_bytes()
