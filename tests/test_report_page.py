"""report.html: it needs nothing but itself, and shows tables, plots, strips and failures."""

import re
from pathlib import Path

import pytest
from PIL import Image

from storydalle.files.records import protocol_hash
from storydalle.reporting.compared_runs import Report
from storydalle.reporting.report_page import short_names
from tests.reports import PROTOCOL, drawn, evaluation, log, record


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def page(*patterns: str) -> str:
    return Report.of(Path("runs"), list(patterns) or None).page(Path("out"))


def test_the_page_needs_nothing_but_itself() -> None:
    drawn("runs/a b")
    log("runs/torn/csv/version_0", "epoch,step,train/loss\n0,1,3.0\n0,2,2.0\n")
    Path("runs/torn/metrics.json").write_text("{")
    shown = page()
    for tag in re.findall(r"<[^!/][^>]*>", shown):
        assert not re.match(r"<(script|link|img|iframe|object|embed|image)\b", tag), tag
        assert not re.search(r"""\b(src|data|srcset)\s*=""", tag), tag
        for target in re.findall(r"""href\s*=\s*["']([^"']*)""", tag):
            assert target.startswith("#") or target == "../runs/a%20b/index.html"
    assert not re.search(r"url\((?!['\"]?#)|@import", shown)


def test_the_page_shows_tables_plots_and_failures() -> None:
    drawn("runs/a")
    record("runs/bad", config="full lr=9", seeds=[0], error="expected <int> | None")
    log("runs/bad/csv/version_0", "epoch,step,train/loss\n0,1,3.0\n0,2,2.0\n")
    shown = page()
    assert "&lt;ours&gt;" in shown and "<ours>" not in shown and "<toon>" not in shown
    assert "<td>.500<small>[.40, .60]</small></td>" in shown
    assert shown.count("<svg") == 5, "shares and others, drift, characters, one curve"
    for title in ("Error by frame", "F1 of each character", "train/loss", "While they trained", "Without numbers: 1"):
        assert f">{title}<" in shown
    assert "expected &lt;int&gt; | None" in shown
    assert protocol_hash(PROTOCOL | {"name": "<toon>"}) in shown and "<dt>resolution</dt><dd>128</dd>" in shown
    assert page("f1").count("<svg") == 1, "what is not asked for is not drawn"


def test_a_mean_over_seeds_stands_on_the_page_with_its_interval() -> None:
    for seed in (0, 1):
        evaluation(f"runs/{seed}", seed, values={"ours": {"f1": 0.5 + 0.001 * seed}})
    assert "<td>.5005<small>[± .0064]</small></td>" in page()


def test_long_names_stay_apart_below_a_plot() -> None:
    names = ["full", *(f"{'x' * 50}{middle}{'x' * 50}" for middle in "abc")]
    short = short_names(names, 40)
    assert short["full"] == "full" and len(set(short.values())) == 4
    assert max(map(len, short.values())) <= 45


def test_the_best_the_median_and_the_worst_strip_of_an_evaluation_stand_in_the_page() -> None:
    headings = {f"strip-{i}.png": f"ours: {kind} of 9 stories" for i, kind in enumerate(("best", "worst", "failure 2"))}
    evaluation("runs/a", values={"ours": {"f1": 0.5}}, strips=headings | {"gone.png": "ours: median of 9 stories"})
    for file in headings:
        Image.new("RGB", (40, 20), "red").save(Path("runs/a") / file)
    html = page()
    assert [f"ours: {kind} of 9 stories</h3>" in html for kind in ("best", "worst", "failure 2", "median")] == [
        *(True, True, False, False)
    ]
    assert html.count("data:image/webp") == 2
