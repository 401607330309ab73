"""How speed is measured: in turn, with the spread, and with what else the machine did meanwhile."""

import itertools
import json
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from storydalle.bench import machine, measuring
from storydalle.bench.cases import FLOOR, Case, rows_of
from storydalle.bench.floors import MULTIPLYING, READING, Floor
from storydalle.bench.machine import Load
from storydalle.bench.measuring import Timing, in_turn, steps_of
from storydalle.bench.rows import BenchRow, spread_note, table
from storydalle.bench.shapes import Shape
from storydalle.commands import bench as command
from storydalle.commands.main import main
from tests.test_bench_decode import TINY


def measure_of(order: list[str], name: str, values: list[float]) -> Callable[[], list[float]]:
    def measure() -> list[float]:
        order.append(name)
        return [values[order.count(name) - 1]]

    return measure


def test_measures_take_turns_and_the_first_of_each_is_not_counted() -> None:
    order: list[str] = []
    measures = {"a": measure_of(order, "a", [99.0, 1.0, 2.0, 3.0]), "b": measure_of(order, "b", [99.0, 4.0, 4.0, 4.0])}
    found = in_turn(measures, 3)
    assert order == ["a", "b"] * 4
    assert found["a"] == Timing(2, 0.5, 3)  # quartiles 1.5 and 2.5
    assert found["b"] == Timing(4, 0, 3)


def test_what_has_run_before_needs_no_warming() -> None:
    order: list[str] = []
    measures = {name: measure_of(order, name, [1.0] * 3) for name in "ab"}
    in_turn(measures, 2, warm={"b"})
    assert order == ["a", "a", "b", "a", "b"]


def test_steps_are_timed_between_the_calls_of_progress_but_for_the_first_two(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([3.0, 10.0, 11.0, 13.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))

    def draw(progress: Callable[[int, int], None]) -> None:
        for position in range(4):
            progress(position + 1, 4)

    assert steps_of(draw)() == [1.0, 2.0]


def test_a_long_comparison_ends_after_its_seconds_but_never_before_three_rounds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = itertools.count()
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))
    for seconds, number in ((0.0, measuring.FEWEST), (2.0, measuring.FEWEST + 2), (None, 9)):
        assert in_turn({"a": lambda: [1.0]}, 9, seconds)["a"].number == number


def test_a_wide_spread_is_marked_and_explained() -> None:
    rows = [
        BenchRow("case", "calm", Timing.of([1.0, 1.0, 1.01])),
        BenchRow("case", "shaken", Timing.of([1.0, 2.0, 3.0])),
    ]
    calm, shaken = table(rows).splitlines()[2:]
    assert "unreliable" not in calm and "| 50 %, unreliable |" in shaken
    assert "1 of 2 rows" in spread_note(rows) and "15%" in spread_note(rows)
    assert BenchRow("case", "alone", Timing.of([1.0])).spread == "one value"


def test_a_table_has_the_columns_that_a_row_fills_and_each_case_once() -> None:
    timing = Timing.of([0.0125, 0.0125])
    lines = table(
        [BenchRow("one", "a", timing, 1.0), BenchRow("one", "b", timing, 2.0), BenchRow("two", "a", timing)]
    ).splitlines()
    assert lines[0] == "|  |  | measured | spread | times as fast as the first |"
    assert lines[2:] == [
        "| one | a | 12.5 ms | 0 % | 1.00 |",
        "|  | b | 12.5 ms | 0 % | 2.00 |",
        "| two | a | 12.5 ms | 0 % |  |",
    ]


def test_a_floor_takes_the_longer_of_reading_and_multiplying() -> None:
    rates = {READING: Timing(1e9, 0.1, 3), MULTIPLYING: Timing(1e10, 0.2, 3)}
    assert Floor(2e9, 1e10).timing(rates) == Timing(2, 0.1, 3)
    assert Floor(2e9, 5e10).timing(rates) == Timing(5, 0.2, 3)


def test_a_case_is_measured_beside_its_floor(shape: Shape) -> None:
    case = Case("case", {"slow": lambda: [4.0], "fast": lambda: [2.0]}, floor=Floor(1e6, 0), bytes_a_step=1_000_000)
    rows = {row.variant: row for row in rows_of(case, shape)}
    assert list(rows) == ["slow", "fast", FLOOR, READING, MULTIPLYING]
    assert (rows["slow"].ratio, rows["fast"].ratio) == (1, 2)
    assert rows["fast"].floor == rows[FLOOR].timing.median == pytest.approx(1e6 / rows[READING].timing.median)


@pytest.fixture
def shape() -> Shape:
    from storydalle.commands.application import as_written
    from storydalle.settings import filled

    return filled(Shape, as_written("bench", ["rounds=3"]))


# ------------------------------------------------------------------------------------------------ the machine


def test_a_loaded_machine_is_marked() -> None:
    assert Load(0.1, 2.0, 0.1, threads=2, cores=2).is_quiet
    assert Load(3.0, 5.0, 6.0, threads=2, cores=8).is_quiet
    loaded = Load(1.0, 3.0, 1.0, threads=2, cores=2)
    assert not loaded.is_quiet and "1.0 of 2 cores busy: **the machine was loaded" in str(loaded)
    assert Load(0.1, 4.0, 0.1, threads=4, cores=2).is_quiet, "its own threads are not the load of others"


def test_others_are_busy_for_what_the_machine_worked_and_this_process_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    busy, own, clock = iter([100.0, 119.0]), iter([5.0, 8.0]), iter([0.0, 8.0])
    monkeypatch.setattr(machine, "busy_seconds", lambda: next(busy))
    monkeypatch.setattr(machine, "own_seconds", lambda: next(own))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with machine.watched() as watch:
        pass
    assert watch.load.others == (19 - 3) / 8


def test_work_of_the_machine_is_read_from_the_kernels_count(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 200 300 9999 9999 10 20 30 0 0\ncpu0 1 2 3\n")
    ticks = machine.os.sysconf("SC_CLK_TCK")
    assert machine.busy_seconds(stat) == (100 + 200 + 300 + 10 + 20 + 30) / ticks
    assert machine.busy_seconds(tmp_path / "none") is None


def test_a_processor_is_described_by_name_and_instruction_sets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor : 0\nmodel name : Some Chip\nflags : fpu avx2 avx512_bf16 ht\n")
    assert machine.of_processor("model name", cpuinfo) == "Some Chip"
    of_processor = machine.of_processor
    monkeypatch.setattr(machine, "of_processor", lambda field: of_processor(field, cpuinfo))
    assert machine.processor_name() == "Some Chip" and machine.instruction_sets() == ["avx2", "avx512_bf16"]


# ------------------------------------------------------------------------------------------------ the command


def test_a_record_holds_machine_load_threads_versions_and_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = Load(7.0, 8.0, 6.5, threads=1, cores=2)

    class Busy(machine.Watched):
        load = loaded

    monkeypatch.setattr(command, "watched", lambda: nullcontext(Busy()))
    before = torch.get_num_threads()
    assert main(["bench", *TINY, "threads=1", "out=out"]) == 0
    assert torch.get_num_threads() == before
    record = json.loads(Path("out/metrics.json").read_text())
    described = record["machine"]
    assert described["load"]["start"] == 7 and described["load"]["is_quiet"] is False
    assert described["processor"] and described["threads"] == 1 and "instruction_sets" in described
    assert {"torch", "python", "transformers"} <= described["versions"].keys()
    assert record["dtype"] and record["protocol"]["decode"]["network"]["dim"] == 32
    text = Path("out/table.md").read_text()
    assert "all times are unreliable" in text and "all times are unreliable" in capsys.readouterr().out


def test_threads_beyond_the_cores_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    number = machine.num_cores() + 1
    with machine.with_threads(number):
        assert torch.get_num_threads() == number
    assert f"note: threads={number} on {number - 1} cores" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("bench=decod", "no bench 'decod'; did you mean decode?"),
        ("threads=0", "threads=0: use a whole number, between 1 and"),
        ("rounds=0", "rounds=0: use a whole number, 1 or more"),
        ("seconds=-1", "seconds=-1"),
        ("benches=[decode,speed]", "no benches=speed"),
        ("decode.drawings=[{image_length: 0, num_candidates: 1}]", "decode.drawings.image_length=0"),
        ("model=nothing", "nothing"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_is_measured(
    given: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "write", lambda *_: pytest.fail("something is measured"))
    assert main(["bench", given]) == 2
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
