"""Settings as dataclasses: what fits is taken as it is, and a mistake names key, value and remedy."""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import pytest

from storydalle.commands.application import compose
from storydalle.commands.bench import BenchSettings
from storydalle.commands.demo import DemoSettings
from storydalle.commands.generate import GenerateSettings
from storydalle.commands.prepare import PrepareSettings
from storydalle.commands.report import ReportSettings
from storydalle.mistakes import UserError
from storydalle.released.conversion_settings import ConvertSettings
from storydalle.settings import Between, Count, Number, OneOf, Seed, filled


@dataclass(frozen=True)
class Group:
    resolution: Annotated[int, Between(16, 256)]
    name: str = "toon"


@dataclass(frozen=True)
class Drawing:
    seed: Seed
    num_stories: Count | None
    share: Annotated[Number, Between(0, 1)]
    reranker: Annotated[str, OneOf(("likelihood", "clip"))]
    out: Path | None
    overwrite: bool
    splits: tuple[str, ...] | None
    captions: list[object] | str
    data: Group
    rate: float = 0.5
    other: Mapping[str, object] = field(default_factory=dict)


VALUES: dict[str, Any] = {
    "seed": 3,
    "num_stories": None,
    "share": 1,
    "reranker": "clip",
    "out": "strips",
    "overwrite": True,
    "splits": "test",
    "captions": "story.txt",
    "data": {"resolution": 64},
}


def test_values_that_fit_are_taken_as_they_are() -> None:
    made = filled(Drawing, VALUES | {"somebody": "else"})
    assert {name.name: getattr(made, name.name) for name in fields(made)} == VALUES | {
        "out": Path("strips"),
        "splits": ("test",),
        "data": Group(64),
        "rate": 0.5,
        "other": {},
    }
    assert type(made.share) is int, "a record of it is written as it was typed"
    assert type(filled(Drawing, VALUES | {"rate": 1}).rate) is float


def test_a_list_is_told_from_a_text_and_a_number_may_be_a_name() -> None:
    values = VALUES | {"captions": ["a", 3], "splits": ["val", 2024], "data": {"name": 7, "resolution": 16}}
    made = filled(Drawing, values)
    assert (made.captions, made.splits, made.data.name) == (["a", 3], ("val", "2024"), "7")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", True, "seed=True is out of range: use a whole number between 0 and 2\\*\\*63 - 1"),
        ("seed", None, "seed=None is out of range"),
        ("num_stories", 0, "num_stories=0: use a whole number, 1 or more"),
        ("num_stories", 1.5, "num_stories=1.5: use a whole number, 1 or more"),
        ("share", "hot", "share=hot: use a number, between 0 and 1"),
        ("rate", "hot", "rate=hot: use a number, of any size"),
        ("reranker", "clp", "no reranker=clp; did you mean clip?"),
        ("out", ["a"], "out=\\['a'\\]: use one path"),
        ("out", "a\0b", "zero byte"),
        ("overwrite", "yes", "overwrite=yes: use true or false"),
        ("splits", {"test": 1}, "splits={'test': 1}: use a list"),
        ("captions", None, "captions is not set: give captions=VALUE"),
        ("data", "toon", "data=toon: use settings with names"),
        ("data", {"resolution": 8}, "data.resolution=8: use a whole number, between 16 and 256"),
        ("data", {}, "data.resolution is not set: give data.resolution=VALUE"),
        ("other", 3, "other=3: use settings with names"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_key_and_a_remedy(key: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        filled(Drawing, VALUES | {key: value})


def test_a_key_that_is_missing_is_told() -> None:
    with pytest.raises(UserError, match="reranker is not set"):
        filled(Drawing, {key: value for key, value in VALUES.items() if key != "reranker"})


OF_COMMANDS: dict[str, Any] = {
    "bench": BenchSettings,
    "convert": ConvertSettings,
    "demo": DemoSettings,
    "generate": GenerateSettings,
    "prepare": PrepareSettings,
    "report": ReportSettings,
}


@pytest.mark.parametrize("command", OF_COMMANDS)
def test_a_command_reads_every_setting_that_its_config_has(command: str) -> None:
    composed = {str(key) for key in compose(command, [])}
    needed = {each.name for each in fields(OF_COMMANDS[command]) if each.default is MISSING}
    assert needed == composed
