"""A report over seeds and stories: means, differences from a baseline, costs; counted by hand."""

import csv
import io
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storydalle.commands import main
from storydalle.evaluation.story_values import STORIES, read_story_values, write_story_values
from storydalle.metrics.estimates import Sample, mean_of
from storydalle.mistakes import UserError
from storydalle.reporting.compared_runs import Report
from storydalle.reporting.plots import banded
from storydalle.reporting.report_costs import told_count, told_energy, told_memory, told_time
from storydalle.reporting.report_latex import latex
from storydalle.reporting.report_scores import OVER_BOTH
from tests.reports import evaluation, record

FULL = [[0.9, 0.7, 0.8, 0.8], [1.0, 0.8, 0.8, 1.0]]  # of two seeds and four stories
NONE = [[0.6, 0.5, 0.6, 0.5], [0.6, 0.5, 0.5, 0.6]]
NEAR = [[0.9, 0.7, 0.8, 0.9], [1.0, 0.8, 0.8, 0.9]]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])


def evaluated(name: str, seed: int, stories: list[float]) -> None:
    """A run with one row, whose score is the mean of its stories."""
    folder = f"runs/{name}-{seed}"
    evaluation(folder, seed, values={name: {"f1": float(np.mean(stories)), "fid": 10.0 + seed}})
    write_story_values(Path(folder) / STORIES, {name: {"f1": np.array(stories)}})


@pytest.fixture
def three_systems() -> None:
    for name, table in (("full", FULL), ("none", NONE), ("near", NEAR)):
        for seed, stories in enumerate(table):
            evaluated(name, seed, stories)


def rows_of(report: Report) -> list[dict[str, str]]:
    report.write(Path("out"))
    return list(csv.DictReader(io.StringIO(Path("out/report.csv").read_text())))


def test_several_seeds_are_joined_over_seeds_and_stories(three_systems: None) -> None:
    text = Report.of(Path("runs")).text()
    # Means .8 and .9 of the seeds and .95, .75, .8, .9 of the stories; MS_seed = .02, MS_error = .01 / 3. The variance
    # is .0020833 (3 degrees) + .0025 (1) - .0004167 (3), of 2.2388 degrees in all, whose quantile is 3.891.
    found = mean_of(Sample(np.array([0.8, 0.9]), np.array(FULL)))
    assert found.ends() == pytest.approx((0.85 - 0.2511909, 0.85 + 0.2511909), abs=1e-6)
    assert re.search(r"\| full \| 2 \| \.85\d? \(\.60, 1\.10\) \| 10\.5 ± 6\.4 \|", text), text
    assert "(low, high): 95 % interval over seeds and stories; ±: 95 % interval of the mean over seeds." in text


def test_differences_from_a_baseline_are_paired_by_story_and_corrected(three_systems: None) -> None:
    report = Report.of(Path("runs"), ["f1"], "full")
    text = report.text()
    assert "*Difference from full*" in text and "p: two-sided, paired by story" in text
    tests = {row["config"]: row for row in rows_of(report) if row["minus"] == "full"}
    near, none = tests["toon/test: near"], tests["toon/test: none"]
    assert float(near["mean"]) == pytest.approx(0.0, abs=1e-9) and float(near["p"]) == pytest.approx(1.0)
    # The stories of none and full differ by -.35, -.25, -.25, -.35: variance .0008333 (3 degrees); the seeds of full
    # add .0025 (1) - .0004167 (3), those of none, whose means are equal, nothing. In all 1.3009 degrees, t = -5.5549.
    assert float(none["mean"]) == pytest.approx(-0.3) and none["interval"] == OVER_BOTH
    assert [float(none[end]) for end in ("low", "high")] == pytest.approx([-0.7046098, 0.1046098], abs=1e-5)
    assert float(none["p"]) == pytest.approx(0.0731715, abs=1e-5)
    assert float(none["p_holm"]) == pytest.approx(2 * float(none["p"])), "the smaller of two counts twice"
    assert float(near["p_holm"]) == 1.0
    assert "-.30" in text and "| near | .000 (" in text


def test_one_seed_is_tested_over_its_stories_alone() -> None:
    evaluated("one", 0, [0.3, 0.5, 0.9, 0.2])
    evaluated("two", 0, [0.2, 0.3, 0.8, 0.0])
    (row,) = [row for row in rows_of(Report.of(Path("runs"), ["f1"], "two")) if row["minus"]]
    assert float(row["mean"]) == pytest.approx(0.15) and float(row["p"]) == pytest.approx(0.01385, abs=1e-5)
    assert row["p"] == row["p_holm"] and row["interval"] == "Student's t over stories"
    assert "one seed says nothing of others" in Report.of(Path("runs"), ["f1"], "two").text()


def test_other_stories_or_none_leave_the_test_to_seeds_and_one_seed_to_nobody() -> None:
    evaluation("runs/a", 0, values={"a": {"f1": 0.5}})
    evaluation("runs/b", 0, values={"b": {"f1": 0.7}})
    text = Report.of(Path("runs"), None, "a").text()
    assert "| b | +.200 |" in text and "without an interval: one seed, and no values of stories" in text
    for seed, values in enumerate(((0.6, 0.7), (0.7, 0.9)), start=1):
        for name, value in zip("ab", values, strict=True):
            evaluation(f"runs/{name}{seed}", seed, values={name: {"f1": value}})
    text = Report.of(Path("runs"), None, "a").text()
    assert re.search(r"\| b \| \+\.167 ± \.25 p=\.133 \|", text), text


def test_an_unknown_baseline_is_named_with_the_nearest(three_systems: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["report", "runs=runs", "baseline=ful"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "baseline=ful is no line" in line and "did you mean full?" in line
    assert not Path("runs/report.md").exists()
    with pytest.raises(UserError, match="full"):
        Report.of(Path("runs"), None, "")


def test_values_of_stories_that_do_not_fit_the_record_are_left_out_with_a_line(three_systems: None) -> None:
    write_story_values(Path("runs/full-1") / STORIES, {"full": {"f1": np.array([0.1, 0.2])}})
    text = Report.of(Path("runs")).text()
    assert "runs/full-1/stories.safetensors is not of the record beside it" in text
    assert "| full | 2 | .85 ± .64 |" in text.replace(".850", ".85")
    Path("runs/full-1", STORIES).write_bytes(b"torn")
    assert "runs/full-1/stories.safetensors cannot be read" in Report.of(Path("runs")).text()


def test_stories_are_read_as_they_were_written() -> None:
    rows = {"<a> b": {"f1": np.array([0.25, 0.5]), "x": np.array([1.0, 2.0])}, "c": {"f1": np.array([0.0, 1.0])}}
    write_story_values(Path("out/stories"), {**rows, "empty": {}})
    found = read_story_values(Path("out/stories"))
    assert found.keys() == rows.keys() and list(found["<a> b"]) == ["f1", "x"]
    assert found["<a> b"]["x"].tolist() == [1, 2]


def test_models_of_a_sweep_that_differ_in_the_seed_are_one_line() -> None:
    systems = {f"lr1-seed{i}": {"seed": i} for i in (0, 1)} | {"seed2": {"seed": 2}, "lr3-seed4": {"seed": 5}}
    evaluation("runs/a", values={name: {"f1": 0.5 + i / 10} for i, name in enumerate(systems)}, systems=systems)
    text = Report.of(Path("runs")).text()
    assert ": lr1 | 2 | .550 ± .64 |" in text
    assert ": lr3-seed4 | 1 | .800 |" in text, "its name tells another seed"


# ------------------------------------------------------------------------------------------------ costs, curves, strips


def trained(name: str, seed: int, **fields: object) -> None:
    record(f"runs/{name}-{seed}", config=name, seeds=[seed], values={"val/f1": 0.5 + seed / 10}, **fields)


def test_costs_have_a_table_of_their_own_and_a_plot() -> None:
    for seed in (0, 1):
        trained("small", seed, cost={"seconds": 90.0 + 60 * seed, "parameters": 1.2e6, "joules": None})
        trained("large", seed, cost={"seconds": 7200.0, "parameters": 3.4e9, "peak_megabytes": 2048})
    report = Report.of(Path("runs"))
    text = report.text()
    assert "| config | training time | parameters | peak memory |" in text
    assert "| small | 2.00 min | 1.20 M | - |" in text and "| large | 2.00 h | 3.40 G | 2.00 GB |" in text
    rows = {(row["config"], row["metric"]): row["mean"] for row in rows_of(report)}
    assert rows["small", "cost/seconds"] == "120.0" and ("small", "cost/joules") not in rows
    assert "costs.png" in {path.name for path in Path("out").iterdir()}
    assert r"\label{tab:protocol-cost}" in latex(report.compared, None)


def test_units_of_costs_follow_their_size() -> None:
    assert [told_time(each) for each in (5.0, 600.0, 86400.0)] == ["5.00 s", "10.0 min", "24.0 h"]
    assert [told_count(each) for each in (7.0, 1500.0, 1.3e9)] == ["7", "1.50 k", "1.30 G"]
    assert (told_energy(7200.0), told_energy(3.6e7), told_memory(900.0)) == ("2.00 Wh", "10.0 kWh", "900 MB")


def test_a_band_reaches_from_the_lowest_to_the_highest_seed() -> None:
    steps, mean, low, high = banded([[(0, 1.0), (10, 3.0)], [(0, 3.0), (5, 4.0)]])
    assert steps.tolist() == [0, 5, 10]
    assert mean.tolist() == [2, 3, 3] and low.tolist() == [1, 2, 3] and high.tolist() == [3, 4, 3]


def test_the_page_shows_the_same_story_of_each_member() -> None:
    for name in ("full", "none"):
        trained(name, 0)
        for step in (500, 1000):
            path = Path(f"runs/{name}-0/strips/step-{step:06d}-story-1.png")
            path.parent.mkdir(exist_ok=True)
            Image.new("RGB", (60, 20), "red").save(path)
    Image.new("RGB", (60, 20)).save("runs/full-0/strips/step-000500-story-2.png")  # nobody else drew it
    html = Report.of(Path("runs")).page(Path("out"))
    assert "Story 1 of validation" in html and "Story 2" not in html
    assert "<figcaption>full, step 1000</figcaption>" in html and "<figcaption>none, step 1000</figcaption>" in html
    assert html.count("data:image/webp") == 2
