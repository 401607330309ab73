"""``--cfg job`` shows what the command reads, and nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass, fields

import pytest
from omegaconf import OmegaConf

from storydalle.commands.main import COMMANDS, main
from storydalle.settings import declared, references

# Groups that experiments override, so that evaluate knows them, and settings that these refer to.
OF_TRAINING = {"system", "backbone", "retrofit", "tokenizer", "trainer", "max_steps", "pretrained", "network"}


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    capsys.readouterr()
    assert main([words[0], "--cfg", "job", *words[1:]]) == 0
    tree = OmegaConf.to_container(OmegaConf.create(capsys.readouterr().out))
    assert isinstance(tree, dict)
    return tree


@pytest.mark.parametrize("command", COMMANDS)
def test_all_that_is_shown_is_read_or_referred_to(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    tree = shown(capsys, command, *(["experiment=toon/story_dalle"] if command == "train" else []))
    read = {field.name for field in fields(COMMANDS.named(command))}
    others = tree.keys() - read
    assert others <= {name.partition(".")[0] for name in references(tree)}
    assert tree.keys() & read


@pytest.mark.parametrize("more", [(), ("experiment=toon/story_dalle",), ("experiment=toon/storyganc", "seed=3")])
def test_an_evaluation_shows_nothing_of_a_training(more: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    tree = shown(capsys, "evaluate", *more)
    assert not tree.keys() & OF_TRAINING
    assert tree["protocol"]["name"] == "toon" and tree["data"]["num_targets"] == 4 and tree["leave_out"] is None


def test_a_training_shows_the_groups_that_its_network_is_made_of(capsys: pytest.CaptureFixture[str]) -> None:
    tree = shown(capsys, "train", "experiment=toon/text_to_image", "max_steps=7")
    assert tree["network"]["backbone"] == "${backbone}" and "dim" in tree["backbone"] and tree["max_steps"] == 7


def test_a_look_at_data_shows_no_probes(capsys: pytest.CaptureFixture[str]) -> None:
    assert not shown(capsys, "prepare")["data"].keys() & {"probes", "source_probes", "repeats"}


@dataclass(frozen=True)
class Inner:
    name: str


@dataclass(frozen=True)
class Outer:
    steps: int
    inner: Inner
    group: Mapping[str, object]


def test_a_part_is_declared_by_fields_and_by_what_they_refer_to() -> None:
    tree = {
        "other": 1,
        "steps": "${most}",
        "most": "${deep.down}",
        "deep": {"down": 3, "up": 4},
        "inner": {"name": "a", "unread": 0},
        "group": {"all": ["${listed}"]},
        "listed": 2,
    }
    expected = {key: value for key, value in tree.items() if key != "other"}
    assert declared(Outer, tree) == expected | {"deep": {"down": 3}, "inner": {"name": "a"}}
