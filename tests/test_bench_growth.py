"""bench=growth: what grows along each axis, and the exponents that are fitted."""

import json
from pathlib import Path

import pytest

from storydalle.bench.growth import exponent
from storydalle.commands.main import main
from tests.test_bench_decode import TINY
from tests.tiny import tiny_story_dalle

SIZES = (
    *("growth.frames=[1,2]", "growth.candidates=[1,3]", "growth.stories=[1,4]", "growth.widths=[16,32]"),
    "growth.set_sizes=[1,2]",
)


def test_an_exponent_is_the_slope_of_the_logarithms() -> None:
    sizes = [1, 2, 4, 8]
    assert exponent(sizes, [3.0 * size**1.5 for size in sizes]) == pytest.approx(1.5)
    assert exponent(sizes, [7.0] * 4) == pytest.approx(0, abs=1e-9)
    assert exponent(sizes, [0.0, 1.0, 2.0, 3.0]) is None


def test_each_axis_has_times_memory_and_exponents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_story_dalle(resolution=72).save_folder("tiny")
    asked = [*TINY, "bench=growth", "rounds=1", "model=tiny", *SIZES, "out=out"]
    assert main(["bench", *asked[1:]]) == 0
    record = json.loads(Path("out/metrics.json").read_text())
    rows, exponents = record["rows"]["growth"], record["values"]["growth"]["exponents"]
    assert list(exponents) == [
        "drawing, by frames of the story",
        "drawing, by candidates",
        "drawing, by weights of the transformer",
        "training, by stories of the batch",
        "preparing, by stories of the data set",
    ]
    assert [row["variant"] for row in rows][:4] == ["1", "2", "1", "3"]
    assert all(row["timing"]["median"] > 0 and row["peak_bytes"] > 0 for row in rows)
    assert all(found["time"] is not None for found in exponents.values())
    assert 0.5 < exponents["training, by stories of the batch"]["memory"] < 1.1
    assert "| exponent of | time | peak memory |" in capsys.readouterr().out


def test_growth_needs_two_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "bench=growth", "growth.frames=[4]"]) == 2
    assert "growth.frames=[4]: growth needs two sizes or more" in capfd.readouterr().err
