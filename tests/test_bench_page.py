"""The page of recorded benches is made from records alone."""

import json
from pathlib import Path

import pytest

from storydalle.bench import page
from storydalle.bench.measuring import Timing
from storydalle.bench.rows import BenchRow
from storydalle.commands import fill_speed
from storydalle.commands.bench import as_record
from storydalle.commands.main import main
from storydalle.mistakes import UserError
from tests.test_bench_decode import TINY

ROOT = Path(__file__).parent.parent


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty page, and one small record beside it: ``out/metrics.json``."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "experiments" / "speed"
    made.mkdir(parents=True)
    text = (ROOT / "experiments" / "speed" / "README.md").read_text(encoding="utf-8")
    before, _, after = text.partition("<!-- results:begin -->")
    made.joinpath("README.md").write_text(f"{before}<!-- results:begin -->\n<!-- results:end -->{after[-200:]}")
    return made


def test_a_page_has_every_machine_with_and_without_the_source_side_by_side(folder: Path) -> None:
    assert main(["bench", *TINY, "out=out"]) == 0
    first = json.loads(Path("out/metrics.json").read_text())
    Path("other.json").write_text(json.dumps(first | {"machine": first["machine"] | {"processor": "Other Chip"}}))
    fill_speed.main(["out/metrics.json", "other.json"])
    names = [
        f"{processor}, {first['machine']['threads']} threads"
        for processor in ("Other Chip", first["machine"]["processor"])
    ]
    text, figure = (folder / "README.md").read_text(), (folder / "ratios.svg").read_text()
    ratio = {row["case"]: row["ratio"] for row in first["rows"]["decode"] if row["variant"] == "ours"}
    case = "0.22 M, 5 codes, best of 2"
    both = " | ".join(f"{ratio[f'{case}, {source}']:.2f}" for source in ("with source", "without"))
    for name in names:
        assert f"| {case} | {name} | {both} |" in text and f"### {name}" in text
        assert f"{name}, with source" in figure and f"{name}, without" in figure
    assert text.count("released loop") >= 2 * 4 and "![Drawing codes" in text
    kept = sorted(path.name for path in folder.glob("*.json"))
    assert len(kept) == 2 and any(name.startswith("other-chip-") and "(" not in name for name in kept)
    fill_speed.main(["other.json"])
    assert (folder / "README.md").read_text() == text, "a machine has one record"


def test_a_row_is_read_as_it_was_written() -> None:
    row = BenchRow("case", "ours", Timing(1.0, None, 1), 2.0, "ms a story", 0.5, 0.25, 1.0)
    assert page.row_of(json.loads(json.dumps(as_record(row)))) == row


def test_our_default_way_counts_and_not_one_that_draws_other_codes() -> None:
    def row(variant: str, ratio: float, agreement: float | None) -> dict:
        return as_record(BenchRow("case, with source", variant, Timing(1.0, 0.0, 3), ratio, "ms", agreement=agreement))

    rows = [row("released loop", 1.0, None), row("ours", 2.0, 1.0), row("ours, bf16", 3.0, 0.1)]
    assert page.ratios({"rows": {"decode": rows}}) == {"case, with source": 2.0}


def test_what_is_no_record_of_a_bench_is_refused(folder: Path) -> None:
    Path("metrics.json").write_text('{"protocol": {"kind": "training"}}')
    with pytest.raises(UserError, match="is no record of a bench"):
        fill_speed.main(["metrics.json"])
    with pytest.raises(UserError, match="holds no record"):
        fill_speed.main([])
