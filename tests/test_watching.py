"""report watch=true: the state of every member of a sweep, from files that runs write anyway."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storydalle.commands import main
from storydalle.files import locks
from storydalle.mistakes import UserError
from storydalle.reporting.watching import Screen, Status, WatchedRun, members, steps_logged, watch, watched
from storydalle.training.sweeps import Member, write_plan

NAMES = ("waits", "runs", "killed", "failed", "done")


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Five members in all states, below ``<experiment>/by-seed``."""
    folder = tmp_path / "toon" / "story" / "by-seed"
    write_plan(folder, [Member(f"by-seed/{name}", name, ("seed=1",)) for name in NAMES])
    for name in NAMES[1:]:
        begun(folder / name)
    (folder / "failed" / "metrics.json").write_text(json.dumps({"error": "Traceback\nloss is nan"}))
    (folder / "done" / "metrics.json").write_text(json.dumps({"values": {"f1": 1.0}}))
    lock(folder / "killed", pid=2**22 + 1)
    return folder


def begun(run: Path, start: int = 100) -> None:
    """A run that was started 200 seconds ago, and has logged 100 steps since; its last row is being written."""
    (run / "csv" / "version_0").mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 1\n")
    (run / "run.json").write_text(json.dumps({"start": start, "max_steps": 1000}))
    log = run / "csv" / "version_0" / "metrics.csv"
    log.write_text("epoch,step,train/loss\n0,99,3.0\n0,199,2.0\n0,29")
    os.utime(run / "run.json", (1e9, 1e9))
    os.utime(log, (1e9 + 200, 1e9 + 200))


def lock(run: Path, pid: int) -> None:
    holder = {"command": "train", "pid": pid, "host": locks.socket.gethostname(), "since": "2026-01-01 00:00:00"}
    (run / locks.LOCK).write_text(json.dumps(holder))


def test_the_state_of_every_member_follows_from_its_files(sweep: Path) -> None:
    with locks.held(sweep / "runs", "train"):
        found = {name: watched(name, run) for name, run in members(sweep).items()}
    assert list(found) == list(NAMES), "in the order of the plan"
    assert [each.status.value for each in found.values()] == ["waiting", "running", "interrupted", "failed", "finished"]
    assert found["failed"].words == "loss is nan" and found["done"].words == "step 200 of 1000"
    assert found["killed"].words == "step 200 of 1000", "its lock is of a process that is gone"
    assert found["runs"].words.startswith("step 200 of 1000, 26.7 min left, by storydalle train (process")


def test_members_are_found_from_the_experiments_folder_too_with_runs_of_no_plan(sweep: Path) -> None:
    begun(sweep.parent / "alone")
    assert list(members(sweep.parent)) == [*(f"by-seed/{name}" for name in NAMES), "alone"]
    assert all(run.is_relative_to(sweep.parent) for run in members(sweep.parent).values())


def test_a_log_that_is_being_written_does_not_confuse(tmp_path: Path) -> None:
    assert steps_logged(tmp_path) is None
    begun(tmp_path)
    log = tmp_path / "csv" / "version_0" / "metrics.csv"
    assert steps_logged(tmp_path) == 200
    for text in ("", "epoch,step,train/loss\n", "no,steps\n1,2\n", "epoch,step,train/loss\n0,x,1\n"):
        log.write_text(text)
        assert steps_logged(tmp_path) is None
    log.write_text("epoch,step,train/loss\n" + "".join(f"0,{i},1.5\n" for i in range(3000)))
    assert steps_logged(tmp_path) == 3000


def test_elsewhere_than_on_a_terminal_a_line_is_printed_for_each_change_alone(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[str] = []

    def sleep(_: float) -> None:
        looks.append(capsys.readouterr().out)
        if len(looks) == 3:
            (sweep / "waits").mkdir()
            (sweep / "waits" / "metrics.json").write_text(json.dumps({"values": {}}))
        if len(looks) == 5:
            (sweep / "killed" / "metrics.json").write_text(json.dumps({"error": "full"}))
            (sweep / "runs" / "metrics.json").write_text(json.dumps({"values": {}}))

    monkeypatch.setattr(time, "sleep", sleep)
    watch(sweep, patience=1e9)
    assert len(looks[0].splitlines()) == 6 and looks[1] == looks[2] == looks[4] == ""
    added = "".join([*looks[1:], capsys.readouterr().out]).splitlines()
    assert [line.split()[:2] for line in added if not line.startswith(str(sweep))] == [
        *(["waits", "finished"], ["runs", "finished"], ["killed", "failed"])
    ]
    assert added[-1] == f"{sweep}: 5 runs: 3 finished, 2 failed", "and then there is nothing left to run"


def test_a_watch_ends_when_nothing_runs_for_a_while_and_on_a_signal(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    watch(sweep, every=2.0, patience=6.0)
    assert capsys.readouterr().out.splitlines()[-1].startswith("nothing is running")

    def stopped(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", stopped)
    watch(sweep)


def test_a_screen_is_drawn_over_and_holds_no_more_than_fits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("LINES", "8")
    screen = Screen(Path("runs"))
    many = [WatchedRun(f"run{i}", Status.WAITING if i else Status.RUNNING, "word " * 30) for i in range(20)]
    screen.update(many[::-1])
    first = capsys.readouterr().out
    assert len(first.splitlines()) == 7 and max(map(len, first.splitlines())) < 40
    assert first.splitlines()[1].startswith("run0 ") and first.splitlines()[-1] == "... and 15 more"
    screen.update(many[:1])
    assert capsys.readouterr().out.startswith("\x1b[7F\x1b[J")


def test_a_folder_without_runs_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="no run and no sweep"):
        watch(tmp_path)
    assert main.main(["report", f"runs={tmp_path / 'none'}", "watch=true"]) == 2
    assert "no folder runs=" in capsys.readouterr().err


def test_reports_and_watches_start_without_torch() -> None:
    code = (
        "import sys, storydalle.commands.report, storydalle.reporting.compared_runs, storydalle.reporting.report_page"
    )
    asked = subprocess.run([sys.executable, "-c", f"{code}; print('torch' in sys.modules)"], capture_output=True)
    assert asked.stdout == b"False\n", asked.stderr.decode()
