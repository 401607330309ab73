"""A protocol's hash stands for what was measured: it changes with every field and with nothing else."""

import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from storydalle.commands.application import compose
from storydalle.evaluation.evaluation_settings import EvaluationSettings
from storydalle.evaluation.protocol import Network, Protocol
from storydalle.files.conf import config_names
from storydalle.files.records import differing_fields, protocol_hash
from storydalle.metrics.declared import by_name
from storydalle.mistakes import UserError

PROTOCOL = Protocol(
    name="toon",
    dataset="toon",
    version="1",
    data={"num_targets": 4, "ranges": [1, 2]},
    split="test",
    num_stories=500,
    stories="ab",
    num_targets=4,
    resolution=128,
    metrics=("labels", "pixels"),
    features=Network(name="clip", sha256="cd", resize=None),
)
CHANGED = {
    "name": "toon'",
    "dataset": "pororo",
    "version": "2",
    "data": {"num_targets": 5, "ranges": [1, 2]},
    "split": "unseen",
    "num_stories": 499,
    "stories": "ac",
    "num_targets": 3,
    "resolution": 64,
    "metrics": ("labels",),
    "frame_choice": "the first",
    "interpolation": "nearest",
    "averaging": "macro",
    "texts": "captions",
    "features": Network(name="clip", sha256="cd", resize="clean"),
    "labels": Network(name="reader", sha256="12"),
    "classifier": Network(name="reader", sha256="12"),
    "text_network": Network(name="clip", sha256="34"),
    "num_negatives": 9,
    "subset_size": 100,
    "scores": 0,
    "seed": 1,
    "left_out": "56",
}


@pytest.mark.parametrize("field", [field.name for field in fields(Protocol)])
def test_the_hash_changes_with_every_field(field: str):
    changed = replace(PROTOCOL, **{field: CHANGED[field]})
    assert changed.hash != PROTOCOL.hash
    (difference,) = differing_fields(PROTOCOL.record(), changed.record())
    assert re.split(r"\W", difference)[0] == field


def test_the_hash_does_not_depend_on_the_order_of_fields_and_metrics():
    reordered = dict(reversed(PROTOCOL.record().items()))
    assert protocol_hash(reordered) == PROTOCOL.hash
    assert replace(PROTOCOL, metrics=("pixels", "labels")).hash == PROTOCOL.hash
    assert replace(PROTOCOL, data=dict(reversed(PROTOCOL.data.items()))).hash == PROTOCOL.hash
    assert len(PROTOCOL.hash) == 64


def test_differences_name_the_fields_and_both_values():
    other = replace(PROTOCOL, resolution=64, features=Network(name="clip", sha256="zz"))
    assert differing_fields(PROTOCOL.record(), other.record()) == [
        "resolution (128, 64)",
        "features.sha256 (cd, zz)",
    ]
    assert differing_fields(PROTOCOL.record(), PROTOCOL.record()) == []


def composed(*overrides: str) -> dict[str, Any]:
    settings = OmegaConf.to_container(compose("evaluate", list(overrides)), resolve=True)
    assert isinstance(settings, dict)
    return settings


@pytest.mark.parametrize("name", config_names("protocol"))
def test_every_protocol_composes_with_its_data_and_asks_for_known_scores(name: str):
    data = name.partition("_")[0]
    protocol = EvaluationSettings.of(composed(f"data={data}", f"protocol={name}")).protocol
    assert protocol.dataset == data and protocol.name.partition("_")[0] == data
    assert set(protocol.metrics) <= set(by_name()) and len(set(protocol.metrics)) == len(protocol.metrics)
    assert name in (protocol.name, data), "a protocol is called as its file"


def test_what_a_protocol_says_of_the_data_reaches_the_data():
    assert compose("evaluate", ["data=flintstones", "protocol=flintstones_legacy"]).data.set.legacy_cut is True
    assert compose("evaluate", ["data=flintstones"]).data.set.legacy_cut is False
    assert compose("evaluate", ["data=pororo", "protocol=pororo_4-frame"]).data.set.num_targets == 3


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["data=toon", "protocol=pororo_legacy"], "protocol=pororo_legacy is for data=pororo, but data=toon was given"),
        (["leave_out=[fid]"], "no score 'fid'"),
        (["data=didemo", "protocol=didemo_legacy", "leave_out=frechet"], "leaves nothing to score"),
    ],
)
def test_settings_that_contradict_the_protocol_are_refused_by_name(overrides: list[str], said: str):
    with pytest.raises(UserError, match=said.replace("(", r"\(")):
        EvaluationSettings.of(composed(*overrides))


def test_data_without_a_protocol_is_refused_by_name():
    settings = composed()
    del settings["protocol"]
    with pytest.raises(UserError, match="no protocol is for data=toon"):
        EvaluationSettings.of(settings)


def test_the_readme_of_the_protocols_names_each_of_them():
    text = (Path(__file__).parents[1] / "conf" / "protocol" / "README.md").read_text()
    assert all(f"`{name}`" in text for name in config_names("protocol"))
