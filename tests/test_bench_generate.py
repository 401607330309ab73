"""bench=generate: the shipped model and the released program's loop draw the same strip."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from storydalle.bench import commanded, generate_speed
from storydalle.commands.main import main
from storydalle.models.kinds import locate
from storydalle.stories.toon import ToonSV


def test_the_released_loop_draws_the_shipped_models_strip() -> None:
    model = generate_speed.opened(locate("story_dalle"))
    story = ToonSV("test", 1, resolution=model.resolution)[0]
    released = generate_speed.released_strip(model, story, seed=3)
    ours = model.generate(story.captions, Image.fromarray(story.source), seed=3).frames
    assert len(released) == len(ours) == 4
    for theirs, own in zip(released, ours, strict=True):
        assert np.abs(np.asarray(theirs, int) - np.asarray(own, int)).max() <= 1  # of 255; batches round differently
    prompt = generate_speed.prompt_of(model, story, seed=3)
    codes = generate_speed.released_codes(model, prompt, model.sampling())
    assert torch.equal(codes, generate_speed.our_codes(model, prompt))


def test_the_table_has_a_call_of_the_model_and_a_new_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = []
    monkeypatch.setattr(commanded, "started", lambda folder, *words: calls.append(words))
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "bench=generate", "rounds=1"]) == 0
    told = capsys.readouterr().out
    rows = json.loads(Path("benched/generate/metrics.json").read_text())["rows"]["generate"]
    cases = {case: [row["variant"] for row in rows if row["case"] == case] for case in [row["case"] for row in rows]}
    assert cases["story_dalle: a call of the model"][:3] == ["released loop", "ours", "floor in fp32"]
    assert cases["from the start to the strip"] == [commanded.IMPORTING, "storydalle generate"]
    assert next(row for row in rows if row["variant"] == "ours")["agreement"] == 1 and "| 100.0 % |" in told
    assert [words[0] for words in calls] == ["-c", "-m"] * 2, "in turn, the warm-up first"
    assert calls[1][1:3] == ("storydalle", "generate")


def test_a_new_process_runs_this_package_and_tells_what_goes_wrong(tmp_path: Path) -> None:
    commanded.started(tmp_path, "-m", "storydalle", "--version")
    with pytest.raises(RuntimeError, match=r"ended with status 2: storydalle: no command 'drw'"):
        commanded.started(tmp_path, "-m", "storydalle", "drw")
