"""Searches in a report: their table, what mattered, plots; and while they run."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from storydalle.mistakes import UserError
from storydalle.reporting.compared_runs import Report
from storydalle.reporting.report_searches import FoundSearch, searches_below
from storydalle.reporting.watching import Status, members, watched
from storydalle.training import studies
from storydalle.training.sweeps import read_plan, write_plan
from tests.stub_training import METRIC, RUNS
from tests.test_searches import SPACE, search, written

pytest.importorskip("optuna", reason="needs the extra search")

MATTERS = {"max_steps": [8, 9], "system.learning_rate": SPACE["system.learning_rate"]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of which each kind of end has come."""
    folder = tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["storydalle"])
        written(space=MATTERS, pruner={"name": "median", "n_startup_trials": 4}, trials=12)
        Path("raise trial-003").touch()
        with pytest.raises(Exception, match="trial-003"):
            search()
    return folder / RUNS


@pytest.fixture
def found(folder: Path) -> FoundSearch:
    (found,) = searches_below(folder)
    return found


def test_the_best_trial_comes_first_then_pruned_ones_then_failures(found: FoundSearch) -> None:
    header, *rows = found.rows()
    assert header == ["trial", "state", METRIC, "step", "max_steps", "system.learning_rate"]
    states = [row[1] for row in rows]
    assert len(rows) == 12 and states == sorted(states, key=["finished", "pruned", "failed"].index)
    assert {"finished", "pruned", "failed"} == set(states) and rows[-1][0] == "trial-003"
    values = [trial.value for trial in found.best_first if trial.state == "finished"]
    assert values == sorted(values, key=lambda value: value or 0)


def test_what_decides_the_value_is_what_mattered(found: FoundSearch) -> None:
    shares = dict(found.importances)
    assert next(iter(shares)) == "system.learning_rate" and shares["system.learning_rate"] > 0.6
    assert sum(shares.values()) == pytest.approx(1)
    assert "system.learning_rate" in found.note


def test_few_trials_do_not_tell_what_mattered(folder: Path, found: FoundSearch) -> None:
    assert "from 4 finished trials on" in found._replace(importances={}).note


def test_pruned_runs_are_in_the_table_of_their_search_alone(folder: Path, found: FoundSearch) -> None:
    report = Report.of(folder)
    pruned = {trial.name for trial in found.trials if trial.state == "pruned"}
    assert pruned and not pruned & {run.folder.name for run in report.runs}
    assert report.text().startswith(f"Search tiny, minimize {METRIC}: 12 trials, ")


def test_a_report_has_a_picture_of_a_search_and_its_page_the_plots(folder: Path, tmp_path: Path) -> None:
    assert "search.png" in Report.of(folder).write(tmp_path)
    with Image.open(tmp_path / "search.png") as picture:
        assert picture.width > 1000
    page = (tmp_path / "report.html").read_text()
    for words in ("Every trial", "What mattered", "trial-003", "share of the differences", "learning_rate"):
        assert words in page, words


def test_a_search_that_has_no_value_yet_is_drawn(found: FoundSearch, tmp_path: Path) -> None:
    from storydalle.reporting.search_plots import plot_search, search_svgs

    begun = [trial._replace(state="begun", value=None, step=None) for trial in found.trials[:1]]
    empty = found._replace(trials=begun, importances={})
    plot_search(empty, tmp_path / "search.png")
    assert all(svg.startswith("<svg") for svg in search_svgs(empty).values())
    assert empty.rows()[1][:4] == ["trial-000", "begun", "-", "-"]


def test_without_the_extra_a_report_says_what_it_does_not_show(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studies, "is_installed", lambda: False)
    assert 'Searches are not shown: a search needs the package optuna: pip install "storydalle[search]"' in (
        Report.of(folder).text()
    )


def test_trials_to_come_are_waited_for(tmp_path: Path, folder: Path) -> None:
    write_plan(tmp_path / "tiny", read_plan(folder / "tiny")[:2], num_to_come=3)
    shown = {name: watched(name, run).status for name, run in members(tmp_path).items()}
    assert list(shown) == [f"tiny/trial-{number:03}" for number in range(5)]
    assert set(shown.values()) == {Status.WAITING}
    assert {watched("", run).status for run in members(folder).values()} == {
        *(Status.FINISHED, Status.PRUNED, Status.FAILED)
    }


def test_a_damaged_study_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "study.db").write_text("no database " * 500)
    with pytest.raises((UserError, RuntimeError), match=r"study\.db: .*move it away"):
        searches_below(tmp_path)
