"""bench=evaluate, and the choices of several benches."""

import json
from pathlib import Path

import pytest

from storydalle.bench import commanded
from storydalle.commands import bench as command
from storydalle.commands.application import as_written
from storydalle.commands.main import main
from storydalle.files.conf import config_names
from storydalle.settings import filled
from tests.tiny import tiny_story_dalle


def test_scoring_is_measured_beside_drawing_and_importing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []
    monkeypatch.setattr(commanded, "started", lambda folder, *words: calls.append(words))
    monkeypatch.chdir(tmp_path)
    tiny_story_dalle(resolution=72).save_folder("tiny")
    asked = ["bench", "bench=evaluate", "model=tiny", "num_evaluated=3", "rounds=2", "out=out"]
    assert main(asked) == 0
    rows = json.loads(Path("out/metrics.json").read_text())["rows"]["evaluate"]
    assert [row["variant"] for row in rows] == [
        "drawing their frames alone",
        commanded.IMPORTING,
        "storydalle evaluate",
    ]
    assert rows[2]["floor"] == pytest.approx(sum(row["timing"]["median"] for row in rows[:2]))
    assert [words[0] for words in calls] == ["-c", "-m"] * 3
    assert {"num_stories=3", "splits=[test]", f"model={tmp_path.resolve()}/tiny"} <= set(calls[1])
    assert "scoring 3 stories" in capsys.readouterr().out


def test_every_bench_can_be_chosen_and_all_has_all() -> None:
    chosen = {
        name: filled(command.BenchSettings, as_written("bench", [f"bench={name}"])) for name in config_names("bench")
    }
    assert set(chosen) == {*command.BENCHES, "all", "quick"}
    assert all(chosen[name].benches == (name,) for name in command.BENCHES)
    assert set(chosen["all"].benches) == set(command.BENCHES)
    quick, usual = chosen["quick"], chosen["all"]
    assert set(quick.benches) < set(usual.benches) and quick.seconds < usual.seconds
    assert quick.large.network.depth < usual.large.network.depth and quick.large.network.dim == usual.large.network.dim


def test_several_benches_are_one_table_and_only_story_gan_alone_takes_a_story_gan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = {}

    def measured(name: str) -> command.Measured:
        def bench(shape: command.Shape) -> command.Measured:
            seen[name] = shape.model
            return command.Measured(f"text of {name}", {}, [])

        return bench  # type: ignore[return-value]

    monkeypatch.chdir(tmp_path)
    for name in command.BENCHES:
        monkeypatch.setitem(command.BENCHES, name, measured(name))
    assert main(["bench", "model=story_dalle"]) == 0
    assert seen == dict.fromkeys(command.BENCHES, "story_dalle") | {"story_gan": None}
    table = Path("benched/all-model_story_dalle/table.md").read_text()
    assert all(f"\n\ntext of {name}" in table for name in command.BENCHES)
    assert main(["bench", "bench=story_gan", "model=storyganc"]) == 0 and seen["story_gan"] == "storyganc"
