"""A sweep as a folder: its plan, its members' names and states; killed and continued; launched twice at once."""

import os
import signal
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from storydalle.commands import main, member_process
from storydalle.commands.typed import with_seeds
from storydalle.mistakes import Failure, UserError
from storydalle.training.sweeps import (
    Member,
    continued,
    last_error,
    proposed_names,
    read_plan,
    settings_hash,
    sweep_folder,
    swept_keys,
    why_skipped,
    with_added,
    write_plan,
)
from tests.killing import LOG, ended, living, outlived, start
from tests.stub_training import EXPERIMENT, JOBLIB, RUNS, here, in_process, noted, run_of, sweep, sweep_as_command
from tests.training import TINY, killed_after

__all__ = ["here"]

# ------------------------------------------------------------------------------------------------ plan, hash, state


def test_a_hash_depends_on_what_is_trained_and_not_on_where_or_how_it_is_started() -> None:
    settings: dict[str, Any] = {"seed": 0, "name": None, "system": {"rate": 1e-3}, "data_module": {"num_workers": 0}}
    of_settings = settings_hash(settings)
    elsewhere = {"name": "x/y", "runs": "r", "resume": True, "retry": True, "logger": {"csv": {"a": 1}}}
    assert settings_hash(settings | elsewhere) == of_settings
    assert settings_hash(settings | {"data_module": {"num_workers": 8}}) == of_settings
    for changed in ({"seed": 1}, {"system": {"rate": 1e-4}}, {"data_module": {"batch_size": 2}}, {"more": None}):
        assert settings_hash(settings | changed) != of_settings


def test_the_swept_keys_are_those_that_differ_with_the_seed_last() -> None:
    jobs = [[f"seed={seed}", f"+retrofit={name}", "max_steps=3"] for seed in (0, 1) for name in ("full", "none")]
    assert swept_keys(jobs) == ["retrofit", "seed"]
    assert swept_keys(jobs[:1]) == []


@pytest.mark.parametrize(
    ("names", "chosen", "swept", "folder"),
    [
        ([None, None], None, ["retrofit", "seed"], "by-retrofit-seed"),
        ([None, None], None, ["system.learning_rate"], "by-learning_rate"),
        ([None, None], "mine", ["seed"], "mine"),
        (["long", "long"], "mine", ["seed"], "long"),
        (["ablation/full", "ablation/none"], "mine", ["seed"], "ablation"),
        (["ablation/full"], None, [], "ablation"),
        (["a", "b"], None, ["name"], "."),
        (["a/1", "b/1"], None, ["name"], "."),
        ([None], None, [], None),
        (["one"], None, [], None),
        ([None], "mine", [], "mine"),
    ],
)
def test_a_sweep_is_named_by_its_members_folder_its_name_or_its_keys(
    names: list[str | None], chosen: str | None, swept: list[str], folder: str | None
) -> None:
    assert sweep_folder(names, chosen, swept) == folder


def label(values: Any) -> str:
    return "-".join(f"{key}{value}" for key, value in values.items())


def test_members_without_a_name_of_their_own_are_told_apart_by_their_values() -> None:
    swept = [{"rate": rate, "seed": seed} for rate in (1, 2) for seed in (0, 1)]
    expected = [f"s/rate{each['rate']}-seed{each['seed']}" for each in swept]
    assert proposed_names([None] * 4, swept, "s", label) == expected
    assert proposed_names(["s"] * 4, swept, "s", label) == expected
    names = [f"s/seed{each['seed']}" for each in swept]
    assert proposed_names(names, swept, "s", label) == [f"s/seed{each['seed']}-rate{each['rate']}" for each in swept], (
        "what a name tells is not told again"
    )
    assert proposed_names(names[:2], swept[:2], "s", label) == names[:2]


def test_a_plan_is_read_as_it_was_written_and_grows(tmp_path: Path) -> None:
    assert read_plan(tmp_path / "s") == ()
    first = tuple(Member(f"s/seed{seed}", f"{seed}" * 64, (f"seed={seed}",)) for seed in (0, 1))
    write_plan(tmp_path / "s", first)
    assert read_plan(tmp_path / "s") == first
    asked = [*first[1:], Member("s/seed2", "2" * 64, ("seed=2",))]
    members = continued(first, asked, tmp_path)
    assert members == tuple(asked)
    assert with_added(first, members) == (*first, asked[1])


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"version": 2, "members": []}', '{"version": 1, "members": [{"name": 1}]}']
)
def test_a_plan_that_cannot_be_read_is_told_and_kept(tmp_path: Path, text: str) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UserError, match=r"sweep\.json cannot be read .*move it away"):
        read_plan(tmp_path)


def test_a_changed_config_is_a_new_member_and_overwrites_nothing(tmp_path: Path) -> None:
    old, new = "a" * 64, "b" * 64
    for settings in (old, None):  # None: a run of an earlier version, which does not say its settings
        run_of(tmp_path, "s/seed0", settings, values={})
        (member,) = continued((), [Member("s/seed0", new, ())], tmp_path)
        assert member.name == "s/seed0-bbbbbbbb"
        again = continued((member,), [Member("s/seed0", new, ())], tmp_path)
        assert again == (member,), "the same one when it is asked for again"
    planned = Member("t/seed0", old, ())
    assert continued((planned,), [Member("t/seed0", new, ())], tmp_path)[0].name == "t/seed0-bbbbbbbb"


def test_equal_settings_are_one_member_and_never_two_in_a_folder(tmp_path: Path) -> None:
    asked = [Member("s/a", "a" * 64, ("x=1",)), Member("s/b", "a" * 64, ("x=1.0",)), Member("s/a", "b" * 64, ("x=2",))]
    assert [member.name for member in continued((), asked, tmp_path)] == ["s/a", "s/a-bbbbbbbb"]


def test_a_plan_that_is_lost_is_made_again_from_the_runs_themselves(tmp_path: Path) -> None:
    run_of(tmp_path, "s/seed0", "a" * 64, values={})
    assert continued((), [Member("s/seed0", "a" * 64, ())], tmp_path)[0].name == "s/seed0"


def test_finished_members_are_skipped_and_failed_ones_unless_they_are_tried_again(tmp_path: Path) -> None:
    assert why_skipped(tmp_path / "new", retry=False) is None
    assert why_skipped(run_of(tmp_path, "cut", "a"), retry=False) is None
    failed = run_of(tmp_path, "failed", "a", error="Traceback\nno disk space left")
    said = why_skipped(failed, retry=False)
    assert said is not None and "failed: no disk space left; retry=true" in said
    assert why_skipped(failed, retry=True) is None
    done = run_of(tmp_path, "done", "a", values={})
    assert all("is finished" in (why_skipped(done, retry) or "") for retry in (False, True))


def test_a_number_of_seeds_stands_for_the_seeds_themselves() -> None:
    assert with_seeds(["-m", "seeds=3", "x=1"], True) == ["-m", "seed=0,1,2", "x=1"]
    for arguments, is_sweep, says in (
        (["seeds=3"], False, "give -m"),
        (["seeds=3", "seed=1"], True, "seeds= or seed="),
        (["seeds=0"], True, "between 1 and"),
        (["seeds=many"], True, "between 1 and"),
    ):
        with pytest.raises(UserError, match=says):
            with_seeds(arguments, is_sweep)


# ------------------------------------------------------------------------------------------------ whole sweeps


def test_more_seeds_continue_a_sweep_and_other_settings_stand_beside_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep("seed=0,1")
    assert noted() == ["begin seed0", "end seed0", "begin seed1", "end seed1", "table by-seed"]
    assert [member.name for member in read_plan(RUNS / "by-seed")] == ["by-seed/seed0", "by-seed/seed1"]
    capsys.readouterr()
    sweep("seeds=3", "logger=none")
    assert noted()[5:] == ["begin seed2", "end seed2", "table by-seed"]
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"sweep {RUNS}/by-seed: 3 runs, 2 finished, 1 waiting"
    assert told[1:3] == [f"skipped: {RUNS}/by-seed/seed{seed} is finished" for seed in (0, 1)]
    assert told[3:] == [f"sweep {RUNS}/by-seed: 3 runs, 3 finished"]
    sweep("seed=0,1", "max_steps=7")
    changed = [line.split()[1] for line in noted()[8:] if line.startswith("end")]
    assert [name[:6] for name in changed] == ["seed0-", "seed1-"]
    assert len(read_plan(RUNS / "by-seed")) == 5


def test_a_failed_member_is_told_and_tried_again_only_when_asked(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("break").touch()
    for _ in range(2):
        with pytest.raises(Failure, match=r"mine/seed0, .*mine/seed1; retry=true tries again"):
            sweep("seed=0,1", "name=mine")
        Path("break").unlink(missing_ok=True)
    assert noted()[4:] == ["table mine"] * 2
    assert f"skipped: {RUNS}/mine/seed1 failed: it broke; retry=true tries it again" in capsys.readouterr().out
    sweep("seed=0,1", "name=mine", "retry=true")
    assert len(noted()) == 11
    assert all(why_skipped(RUNS / "mine" / f"seed{seed}", False) for seed in (0, 1))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [("sed=3", "did you mean seed"), ("system.leaning_rate=1,2", "learning_rate"), ("save_every=1,0", "save_every=0")],
)
def test_a_mistake_in_any_member_ends_a_sweep_before_it_begins(here: Path, wrong: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        sweep("seed=0,1", wrong)
    assert list(here.iterdir()) == []


def test_the_settings_of_a_sweep_are_those_of_its_first_run_with_a_list_of_all(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["train", "-m", f"experiment={EXPERIMENT}", "seed=4,5", "max_steps=7", "--cfg", "job"]) == 0
    told = capsys.readouterr().out
    shown = yaml.safe_load(told)
    assert shown["seed"] == 4 and shown["max_steps"] == 7
    assert told.splitlines()[-3:] == ["# This is the first of 2 jobs:", "#   seed=4", "#   seed=5"]
    assert list(here.iterdir()) == []
    assert main.main(["train", "-m", f"experiment={EXPERIMENT}", "seed=4,5", "--cfg", "all"]) == 2


def test_a_killed_sweep_is_continued_by_the_same_command(here: Path) -> None:
    Path("kill all").touch()
    for _ in range(2):
        assert in_process(lambda: sweep("seed=0,1")) == [-signal.SIGKILL]
        assert len(read_plan(RUNS / "by-seed")) == 2, "written before anything starts"
    Path("kill all").unlink()
    assert in_process(lambda: sweep("seed=0,1")) == [0]
    expected = ["begin seed0"] * 3 + ["end seed0", "begin seed1", "end seed1", "table by-seed"]
    assert noted() == expected
    assert in_process(lambda: sweep("seed=0,1")) == [0]
    assert noted() == [*expected, "table by-seed"]
    assert sorted(path.name for path in (RUNS / "by-seed").iterdir()) == ["seed0", "seed1", "sweep.json"]


def test_two_launches_at_once_run_each_member_once(here: Path) -> None:
    for name in ("one", "two"):
        assert in_process(*[partial(sweep, "seeds=3", f"name={name}")] * 2) == [0, 0]
    ended = [line for line in noted() if line.startswith("end")]
    assert len(ended) == 6 == len([line for line in noted() if line.startswith("begin")])
    assert len(noted()) == 12 + 4, "each launch ends in a table"


@pytest.mark.parametrize("launcher", [(), JOBLIB], ids=["basic", "joblib"])
def test_a_killed_member_and_one_on_a_full_disk_are_marked_and_the_others_go_on(
    here: Path, launcher: tuple[str, ...]
) -> None:
    Path("kill seed0").touch()
    Path("raise seed1").touch()
    assert sweep_as_command("seeds=4", *launcher).returncode == 1
    assert {line for line in noted() if line.startswith("end")} == {"end seed2", "end seed3"}
    assert noted()[-1] == "table by-seed"
    assert "killed by SIGKILL" in last_error(RUNS / "by-seed/seed0")
    assert "No space left" in last_error(RUNS / "by-seed/seed1")
    for path in here.glob("* seed*"):
        path.unlink()
    assert sweep_as_command("seeds=4", *launcher, "retry=true").returncode == 0
    assert len([line for line in noted() if line.startswith("end")]) == 4


def test_the_error_of_a_single_run_is_that_of_its_sweep(here: Path) -> None:
    Path("raise one").touch()
    with pytest.raises(OSError, match="No space left"):
        sweep("name=one")
    assert not (RUNS / "one/metrics.json").exists()


def test_a_killed_process_of_the_launcher_ends_no_sweep(here: Path) -> None:
    Path("kill worker seed0").touch()
    assert sweep_as_command("seeds=3", *JOBLIB).returncode == 0
    assert {line for line in noted() if line.startswith("end")} == {f"end seed{seed}" for seed in range(3)}


def test_no_process_outlives_a_launcher_that_is_killed(here: Path) -> None:
    Path("long seed1").write_text("60")
    launcher = start(lambda: sweep("seeds=3", *JOBLIB) or 0, here)
    while not {"begin seed1", "end seed2"} <= set(noted() if Path("log").exists() else []):
        assert living(launcher), (here / LOG).read_text()
        time.sleep(0.05)
    os.kill(launcher, signal.SIGKILL)
    assert ended(launcher, 60) == -signal.SIGKILL
    assert outlived(launcher, 30) == {}, "neither the member nor a worker without a job"
    assert "end seed1" not in noted()


def test_members_share_threads_and_have_a_device_each(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(member_process.DEVICES, "3,5")
    monkeypatch.setenv(member_process.THREADS, "64")
    assert int(member_process.shared_threads(10_000)[member_process.THREADS]) == 1
    assert int(member_process.shared_threads(1)[member_process.THREADS]) <= (os.cpu_count() or 1)
    devices, got = member_process.visible_devices(), list[str]()
    assert devices == ["3", "5"]

    def third() -> None:
        with member_process.own_device(devices, here) as environment:
            got.append(environment[member_process.DEVICES])

    with member_process.own_device(devices, here) as one, member_process.own_device(devices, here) as other:
        assert {one[member_process.DEVICES], other[member_process.DEVICES]} == {"3", "5"}
        waiting = threading.Thread(target=third)
        waiting.start()
        waiting.join(0.3)
        assert waiting.is_alive(), "no device is free"
    waiting.join(10)
    assert got and got[0] in devices


@pytest.mark.slow
def test_a_training_that_was_cut_in_a_sweep_ends_as_one_that_was_not(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    command = ["train", "-m", f"experiment={EXPERIMENT}", *TINY, "seed=0,1", "logger=none", "trainer.max_steps=4"]
    with monkeypatch.context() as patch:
        killed_after(patch, 2, lambda: os.kill(os.getppid(), signal.SIGKILL))
        assert in_process(partial(main.main, command)) == [-signal.SIGKILL]
    assert main.main(command) == main.main([*command, "name=whole"]) == 0
    told = capfd.readouterr().out  # of the members' processes, too
    assert f"resuming {RUNS}/by-seed/seed0" in told and f"writing {RUNS}/by-seed/seed1" in told
    for seed in (0, 1):
        cut, whole = (RUNS / name / f"seed{seed}" for name in ("by-seed", "whole"))
        assert (cut / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()
        assert why_skipped(cut, retry=False) == f"{cut} is finished"
