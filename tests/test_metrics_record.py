"""A record holds what is needed to trust a number, and its protocol hash what is needed to compare it."""

import json
import math
import subprocess

import pytest

from storydalle.files.records import (
    git_state,
    metrics_record,
    protocol_hash,
    versions,
    write_record,
)
from storydalle.metrics.toon import Interval


@pytest.fixture
def protocol() -> dict:
    return {"dataset": "toon", "split": "test", "metrics": ["tint", "action"]}


def test_the_protocol_hash_does_not_depend_on_the_order_of_keys(protocol) -> None:
    assert protocol_hash(dict(reversed(protocol.items()))) == protocol_hash(protocol)


def test_the_protocol_hash_is_a_sha256_that_stays() -> None:
    known = "43258cff783fe7036d8a43033f830adfc60ec037382473548ac742b888292777"
    assert protocol_hash({"b": 2, "a": 1}) == known


def test_a_record_says_where_its_numbers_come_from(protocol) -> None:
    record = metrics_record(
        {"tint": 1.0, "prop": math.nan},
        intervals={"tint": Interval(0.9, 1.0)},
        protocol=protocol,
        n={"tint": 8},
        seeds=[0, 1],
        device="cpu",
        wall_seconds=1.25,
        weights_sha256="abc",
    )
    assert record["values"] == {"tint": 1.0, "prop": None} and record["intervals"] == {"tint": [0.9, 1.0]}
    assert record["protocol_hash"] == protocol_hash(protocol) and record["weights_sha256"] == "abc"
    assert set(record) >= {"n", "seeds", "protocol", "commit", "dirty", "device", "versions", "wall_seconds"}
    assert set(versions()) >= {"python", "torch", "storydalle"}


def test_a_records_own_fields_cannot_be_overwritten(protocol) -> None:
    with pytest.raises(ValueError, match="commit"):
        metrics_record({}, protocol=protocol, n={}, seeds=[], device="cpu", wall_seconds=0.0, commit="mine")


def test_a_record_is_plain_json_on_disk(protocol, tmp_path) -> None:
    record = metrics_record({"tint": math.inf}, protocol=protocol, n={}, seeds=[0], device="cpu", wall_seconds=0.0)
    write_record(tmp_path / "run" / "metrics.json", record)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == record
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["metrics.json"]


def test_code_outside_a_checkout_has_no_commit(tmp_path) -> None:
    (tmp_path / "record.py").touch()
    assert git_state(tmp_path / "record.py") == (None, None)


def test_a_changed_checkout_is_dirty_and_a_file_it_does_not_track_is_not_its_own(tmp_path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    (tmp_path / "record.py").touch()
    git("init")
    git("add", "record.py")
    git("commit", "-m", "first")
    commit, dirty = git_state(tmp_path / "record.py")
    assert commit is not None and len(commit) == 40 and dirty is False
    (tmp_path / "installed.py").touch()
    assert git_state(tmp_path / "installed.py") == (None, None)
    (tmp_path / "record.py").write_text("changed")
    assert git_state(tmp_path / "record.py") == (commit, True)
