"""report: what is one line and what is not, whose interval stands there, and tables that others can use."""

import csv
import json
import re
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from storydalle.commands import main
from storydalle.files.records import protocol_hash
from storydalle.reporting.compared_runs import Report
from storydalle.reporting.plots import plot_scores
from storydalle.reporting.report_latex import latex, latex_text
from storydalle.reporting.report_runs import METRICS
from storydalle.reporting.report_scores import OVER_BOTH, OVER_SEEDS, OVER_STORIES, Summary, families
from storydalle.reporting.report_tables import cell
from tests.reports import PROTOCOL, evaluation, log, record
from tests.test_full_disk import largest_file

Run = namedtuple("Run", "status out err")
Command = Callable[..., Run]
SAMPLING = {"temperature": 0.25, "top_k": None}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: str) -> Run:
        capsys.readouterr()
        status = main.main(list(arguments))
        return Run(status, *capsys.readouterr())

    return run


def text(runs: str = "runs", patterns: list[str] | None = None) -> str:
    return Report.of(Path(runs), patterns).text()


def tex() -> str:
    return latex(Report.of(Path("runs")).compared, None)


def assert_mistake(run: Run, *words: str) -> None:
    assert run.status == 2
    assert len(run.err.splitlines()) == 1, run.err
    for word in words:
        assert word in run.err, run.err


# ------------------------------------------------------------------------------------------------ whose interval


def test_a_report_gives_mean_and_interval_over_seeds(command: Command) -> None:
    for seed, value in enumerate((0.8, 0.9, 1.0)):
        record(f"runs/full/{seed}", config="full", seeds=[seed], protocol_hash="aa", values={"f1": value})
    record("runs/none/0", config="none", seeds=[0], protocol_hash="aa", values={"f1": 0.5, "fid": None})
    run = command("report")
    assert "| full | 3 | .900 ± .25 |" in run.out  # 4.303 * 0.1 / sqrt(3)
    assert "| none | 1 | .500 |" in run.out
    for name in ("report.md", "report.tex", "report.csv", "report.html", "scores.png"):
        assert Path("runs", name).is_file() and f"runs/{name}" in run.out


def test_one_seed_keeps_its_own_interval() -> None:
    evaluation("runs/a", values={"ours": {"f1": 0.913}}, intervals={"ours": {"f1": [0.897, 0.931]}})
    assert "| ours | 1 | .913 [.90, .93] |" in text()
    evaluation("runs/b", seed=1, values={"ours": {"f1": 0.915}}, intervals={"ours": {"f1": [0.9, 0.93]}})
    assert "| ours | 2 | .914 ± .013 |" in text()  # 12.706 * 0.001414 / sqrt(2)


def test_a_number_that_no_seed_moves_keeps_the_interval_of_its_stories() -> None:
    for seed in (0, 1):
        values = {"copy the source": {"f1": 0.7}, "ours": {"f1": 0.8 + 0.1 * seed}}
        evaluation(f"runs/{seed}", seed, values=values, intervals={"copy the source": {"f1": [0.6, 0.8]}})
    assert "| copy the source | 2 | .700 [.60, .80] |" in text()


def test_flat_values_have_flat_intervals_and_a_null_is_none() -> None:
    record("runs/a", config="full", values={"f1": 0.5, "fid": 3.0}, intervals={"f1": [0.4, 0.6], "fid": [None, None]})
    assert "| full | 1 | .500 [.40, .60] | 3.000 |" in text()


def test_tables_and_pictures_that_the_disk_has_no_room_for_leave_the_old_ones_whole() -> None:
    out, points = Path("out"), {"ours": {"f1": (0.5, 0.4, 0.6)}}
    evaluation("runs/a", values={"ours": {"f1": 0.5}})
    Report.of(Path("runs")).write(out)
    plot_scores(points, out / "scores.png")
    old = {path.name: path.read_bytes() for path in out.iterdir()}
    evaluation("runs/b", seed=1, values={"ours": {"f1": 0.6, **{f"score_{i}": i / 10 for i in range(90)}}})
    report = Report.of(Path("runs"), ["f1"])
    with largest_file(2000):
        with pytest.raises(OSError):  # the csv alone has all scores
            report.write(out)
        with pytest.raises(OSError):
            plot_scores(points, out / "scores.png")
    assert (out / "report.md").read_bytes() != old["report.md"]
    assert all((out / name).read_bytes() == old[name] for name in ("report.csv", "report.html", "scores.png"))


def test_the_csv_has_all_digits_and_says_which_interval() -> None:
    third = 1 / 3
    values = {"real frames": {"f1": third}, "ours": {"f1": 0.5, "character_f1_pip": 0.1}}
    evaluation("runs/a", values=values, intervals={"real frames": {"f1": [0.25, 0.5]}})
    evaluation("runs/b", seed=1, values={"ours": {"f1": 0.7}})
    record("runs/c", config="full", seeds=[0], error="too\nlarge")
    Report.of(Path("runs")).write(Path("out"))
    with Path("out/report.csv").open(newline="") as file:
        rows = {(row["config"], row["metric"]): row for row in csv.DictReader(file)}
    real, ours = rows["toon/test: real frames", "f1"], rows["toon/test: ours", "f1"]
    assert (float(real["mean"]), real["low"], real["high"], real["interval"]) == (third, "0.25", "0.5", OVER_STORIES)
    assert float(ours["mean"]) == pytest.approx(0.6) and ours["interval"] == OVER_SEEDS
    assert float(ours["high"]) - float(ours["mean"]) == pytest.approx(12.706 * 0.1, rel=1e-4)
    alone = rows["toon/test: ours", "character_f1_pip"]
    assert [alone[name] for name in ("low", "high", "interval", "num_seeds")] == ["", "", "", "1"]
    assert real["protocol_hash"] == protocol_hash(PROTOCOL)
    assert rows["full", ""]["failure"] == "failed: too large"


@pytest.mark.parametrize(
    ("value", "ends", "kind", "shown"),
    [
        (0.913, (0.897, 0.931), OVER_STORIES, ".913 [.90, .93]"),
        (0.9995, (0.9986, 1.0), OVER_STORIES, ".9995 [.9986, 1.0000]"),
        (1.0, (1.0, 1.0 + 1e-15), OVER_STORIES, "1.000 [1.00, 1.00]"),
        (-0.0271, (-0.05, 0.04), OVER_STORIES, "-.027 [-.05, .04]"),
        (45.31, (40.1, 51.2), OVER_STORIES, "45.3 [40.1, 51.2]"),
        (0.4, (-0.9, 1.7), OVER_SEEDS, ".400 ± 1.3"),
        (0.913, (0.897, 0.931), OVER_BOTH, ".913 (.90, .93)"),
        (0.02658, (0.0262, 0.02696), OVER_SEEDS, ".02658 ± .00038"),
        (0.0694, None, None, ".0694"),
        (384.21, None, None, "384.2"),
        (3e-7, None, None, "3.0e-07"),
        (-1e-15, None, None, ".000"),
    ],
)
def test_a_cell_has_as_many_digits_as_its_interval_allows(value: float, ends: Any, kind: Any, shown: str) -> None:
    assert cell(Summary(value, ends, kind, 1)) == shown


# ------------------------------------------------------------------------------------------------ what is one line


def test_a_report_never_mixes_protocols() -> None:
    record("runs/a", config="full", seeds=[0], protocol_hash="aaaa", values={"f1": 0.25})
    record("runs/b", config="full", seeds=[1], protocol_hash="bbbb", values={"f1": 0.75})
    out = text()
    assert out.count("Protocol") == 2
    assert ".500" not in out


def test_between_tables_stands_what_protocols_of_a_data_set_differ_in() -> None:
    small = PROTOCOL | {"resolution": 64, "features": {"sha256": "bb"}}
    pororo = PROTOCOL | {"dataset": "pororo", "name": "pororo"}
    for number, protocol in enumerate((PROTOCOL, small, pororo)):
        evaluation(f"runs/{number}", protocol=protocol, values={"ours": {"f1": 0.5}})
    out = text()
    first, later = sorted((PROTOCOL, small), key=protocol_hash)
    told = [line for line in out.splitlines() if " differs from " in line]
    assert told == [
        f"Protocol `{protocol_hash(later)[:12]}` differs from `{protocol_hash(first)[:12]}` in "
        f"resolution ({later['resolution']}, {first['resolution']}), "
        f"features.sha256 ({later['features']['sha256']}, {first['features']['sha256']})."
    ]
    assert out.index(told[0]) > out.index(f"Protocol `toon` `{protocol_hash(later)[:12]}`")


def test_protocols_that_differ_in_much_are_told_apart_briefly() -> None:
    evaluation("runs/a", protocol=PROTOCOL | {f"field{i}": i for i in range(30)}, values={"f1": 0.5})
    evaluation("runs/b", values={"f1": 0.5})
    (told,) = [line for line in text().splitlines() if " differs from " in line]
    assert told.count("field") == 8 and told.endswith("and 22 more.")


@pytest.mark.parametrize("edited", [{"protocol": PROTOCOL | {"resolution": 64}}, {"protocol_hash": "0" * 64}])
def test_a_record_whose_hash_is_not_its_protocols_is_refused_by_name(command: Command, edited: dict[str, Any]) -> None:
    evaluation("runs/right", values={"f1": 0.5})
    evaluation("runs/wrong", values={"f1": 0.7})
    assert command("report", "metrics=f1").status == 0
    record("runs/wrong", **(json.loads(Path("runs/wrong", METRICS).read_text()) | edited))
    assert_mistake(command("report"), "runs/wrong/metrics.json", "edited")


def test_best_of_several_is_in_the_name_of_its_row() -> None:
    systems = {"ours": {"best_of": 4, "chosen_by": "clip"}, "one (best of 2 by clip)": {"best_of": 2}}
    values = {"ours": {"f1": 0.5}, "one (best of 2 by clip)": {"f1": 0.6}, "single": {"f1": 0.4}}
    evaluation("runs/a", values=values, systems=systems | {"single": {"best_of": 1}})
    evaluation("runs/b", seed=1, values={"ours": {"f1": 0.3}}, systems={"ours": {"best_of": 1}})
    out = text()
    assert "| ours (best of 4 by clip) | 1 | .500 |" in out
    assert "| one (best of 2 by clip) | 1 | .600 |" in out
    assert "| ours | 1 | .300 |" in out and "| single | 1 | .400 |" in out


def test_runs_that_sample_differently_are_no_seeds_of_one_another() -> None:
    for seed, temperature in enumerate((0.25, 0.9)):
        systems = {"ours": {"sampling": SAMPLING | {"temperature": temperature}}}
        evaluation(f"runs/{seed}", seed, values={"ours": {"f1": 0.5 + seed / 10}}, systems=systems)
    out = text()
    assert "| ours temperature=0.25 | 1 | .500 |" in out and "| ours temperature=0.9 | 1 | .600 |" in out


def test_other_pixels_behind_one_protocol_are_told() -> None:
    evaluation("runs/a", values={"f1": 0.5}, truth_sha256="aa")
    evaluation("runs/b", seed=1, values={"f1": 0.5}, truth_sha256="aa")
    assert "do not compare" not in text()
    evaluation("runs/c", seed=2, values={"f1": 0.5}, truth_sha256="bb")
    assert "The true frames of runs/a and runs/c differ: their numbers do not compare." in text()


def test_a_ceiling_that_studies_share_is_one_line() -> None:
    for study, drawn in (("paths", 0.5), ("sizes", 0.6)):
        values = {"real frames": {"f1": 1.0}, "text-to-image alone": {"f1": drawn}, "full": {"f1": 0.9}}
        evaluation(f"runs/{study}", config=f"toon/test compare={study}", values=values)
    out = text()
    assert out.count("| real frames | 1 | 1.000 |") == 1 and "real frames compare" not in out
    for study, drawn in (("paths", ".500"), ("sizes", ".600")):
        assert f"| text-to-image alone compare={study} | 1 | {drawn} |" in out, "these differ"
        assert f"| full compare={study} | 1 | .900 |" in out, "no ceiling"


def test_a_run_made_again_with_its_seed_counts_once() -> None:
    for name, value in (("a", 0.2), ("b", 0.3), ("c", 0.5)):
        record(f"runs/{name}", config="full", seeds=[int(name == "c")], values={"f1": value})
    assert "| full | 2 | .400 ± 1.3 |" in text()


def test_a_report_shows_failures_and_nested_rows() -> None:
    record("runs/bad", config="full lr=9", seeds=[0], error="expected int | None\nand got nan")
    record("runs/compared", config="toon lr=1", seeds=[0], values={"ours": {"f1": 0.8}})
    record("runs/rows", config="toon", seeds=[0], values={"real frames": {"f1": 1.0}, "ours": {"f1": 0.9}})
    Path("runs/killed").mkdir()
    Path("runs/killed/config.yaml").write_text("seed: 0")
    Path("runs/torn").mkdir()
    Path("runs/torn/metrics.json").write_text("{")
    Path("runs/list").mkdir()
    Path("runs/list/metrics.json").write_text("[]")
    out = text()
    assert r"| full lr=9 | failed: expected int \| None and got nan |" in out
    assert "| killed | not finished |" in out
    assert "| torn | metrics.json is damaged |" in out and "| list | metrics.json is damaged |" in out
    assert "No protocol recorded, all with `toon`" in out
    assert "| real frames | 1 | 1.000 |" in out
    assert "| ours lr=1 | 1 | .800 |" in out and "| ours | 1 | .900 |" in out


# ------------------------------------------------------------------------------------------------ which scores


def test_a_report_shows_the_metrics_asked_for(command: Command) -> None:
    record("runs/a", config="full", seeds=[0], values={"val/f1": 0.25, "val/nats": 3.0, "train/loss": 1.0})
    for asked in ('metrics=["val/*"]', "metrics=val/*"):
        out = command("report", asked).out
        assert "val/f1" in out and "val/nats" in out and "train/loss" not in out
    assert "train/loss" not in text()
    assert "train/loss" in text(patterns=["train/loss"])
    assert_mistake(command("report", "metrics=[val/f2]"), "val/f2", "did you mean val/f1")


def test_breakdowns_are_shown_only_where_they_are_asked_for() -> None:
    hidden = ("character_f1_pip", "error_at_1", "frame_accuracy_at_12", "clip_t_chance", "train/loss")
    evaluation("runs/a", values={"ours": dict.fromkeys(hidden, 0.5) | {"error": 0.25, "frame_accuracy_1": 0.75}})
    assert "| config | seeds | error | frame_accuracy_1 |" in text()
    for name in hidden:
        assert f"| config | seeds | {name} |" in text(patterns=[name])


def test_many_scores_are_parted_and_none_is_lost() -> None:
    names = ["character_micro_f1", "frame_accuracy_3+", "toon_kd_deviation", "fid", "odd", "hat_said", "nats_pronoun"]
    assert families(names) == {"": names}
    names += [f"setting_{i}" for i in range(9)]
    parted = families(names)
    assert sorted(name for each in parted.values() for name in each) == sorted(names)
    assert parted["Pictures"] == ["toon_kd_deviation", "fid"]
    assert parted["Other scores"] == ["odd"]
    evaluation("runs/a", values={"ours": dict.fromkeys(names, 0.5), "empty": {"odd": 0.5}})
    out = text()
    assert out.count("| ours |") == len(parted) and out.count("| empty |") == 1


# ------------------------------------------------------------------------------------------------ files


def tabulars(page: str) -> list[list[str]]:
    """The rows of each tabular."""
    return [
        [line for line in body.splitlines() if line.endswith(r"\\")]
        for body in re.findall(r"\\begin{tabular}.*?\\end{tabular}", page, re.DOTALL)
    ]


def test_latex_is_a_booktabs_table_a_protocol_with_all_signs_escaped() -> None:
    evaluation("runs/a", values={"a_b & 50% #1 {x} ~^\\ <|>": {"f1": -0.5}, "[b]": {"f1": 0.5, "nats": 3.0}})
    evaluation("runs/b", protocol=PROTOCOL | {"name": "toon_64"}, values={"ours": {"f1": 0.5}})
    shown = tex()
    assert shown.count(r"\begin{table}") == shown.count(r"\toprule") == shown.count(r"\bottomrule") == 2
    assert rf"\texttt{{toon}} \texttt{{{protocol_hash(PROTOCOL)[:12]}}}" in shown and r"\texttt{toon\_64}" in shown
    assert shown.count("{") - shown.count(r"\{") == shown.count("}") - shown.count(r"\}")
    assert {len(re.findall(r"(?<!\\)&", row)) for rows in tabulars(shown) for row in rows} == {1, 2}
    special = r"a\_b \& 50\% \#1 \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} "
    assert f"{special}{latex_text('<|>')} & $-$.500 & -- " in shown
    assert "\n{[}b{]} & .500 & 3.000 " in shown, "a bracket at the start of a row would be an option of the last one"


def test_latex_columns_fit_between_the_margins() -> None:
    evaluation("runs/a", values={row: {f"score{i}": i / 10 for i in range(9)} for row in ("ours", "theirs")})
    (table,) = tabulars(tex())
    assert table[0] == r" & ours & theirs \\", "scores become rows where there are more of them"
    assert table[9] == r"score8 & .800 & .800 \\"
    evaluation("runs/a", values={f"system{i}": {f"score{j}": 0.5 for j in range(9)} for i in range(12)})
    parts = tabulars(tex())
    assert [rows[0].count("&") for rows in parts] == [4, 4, 1] and {len(rows) for rows in parts} == {13}


def test_a_report_draws_scores_and_curves(command: Command) -> None:
    record("runs/a", config="full", seeds=[0], values={"f1": 0.25})
    log("runs/a/csv/version_0", "epoch,step,train/loss,val/f1\n0,1,3.0,\n0,1,,0.1\n0,3,2.0,0.2\n")
    log("runs/a/csv/version_10", "epoch,step,train/loss\n0,3,1.5\n0,5,1.0\n")
    from storydalle.reporting.curves import read_curves

    assert read_curves(Path("runs/a")) == {
        "train/loss": [(1, 3.0), (3, 1.5), (5, 1.0)],
        "val/f1": [(1, 0.1), (3, 0.2)],
    }
    assert "scores.png, runs/curves.png" in command("report").out
    for name in ("scores", "curves"):
        with Image.open(f"runs/{name}.png") as picture:
            assert len(picture.convert("RGB").getcolors(1_000_000)) > 50


def test_a_report_goes_between_the_markers_of_a_readme(command: Command) -> None:
    record("runs/a", config="full", seeds=[0], values={"val/f1": 0.25})
    Path("README.md").write_text("before\n<!-- results:begin -->\n<!-- results:end -->\nafter\n")
    out = command("report", "readme=README.md").out
    table = next(line for line in out.splitlines() if line.startswith("| full |"))
    assert table in Path("README.md").read_text()


def test_a_report_of_nothing_is_one_line(command: Command) -> None:
    Path("runs").mkdir()
    assert_mistake(command("report"), "metrics.json")
