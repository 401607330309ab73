"""Metrics declare themselves: what a class says is what protocols, judging, tables and pages know of it."""

import gc
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from storydalle.commands.main import main
from storydalle.metrics.consistency import Consistency
from storydalle.metrics.copy_rate import CopyRate
from storydalle.metrics.declared import Column, by_name, columns_of, declared, explanation
from storydalle.metrics.drift import PositionScores
from storydalle.metrics.seen import Seen, Truth
from storydalle.metrics.sensitivity import Diversity, InputSensitivity, Kind
from storydalle.metrics.story_metric import StoryMetric
from storydalle.metrics.topics import PICTURES, bars, declarations, details, family_patterns
from tests.test_evaluate import write_true_frames

KINDS: tuple[Kind, ...] = ("pixels", "features")
ROLES = {"features", "labels", "classifier", "text_network"}


def test_every_score_is_explained_in_two_sentences() -> None:
    metrics: list[Any] = [CopyRate(), Consistency(), PositionScores("frame_error", 3)]
    metrics += [Diversity(of) for of in KINDS]
    inputs = ("other_source", "blank_source", "shuffled_captions")
    metrics += [InputSensitivity(name, of) for name in inputs for of in KINDS]
    explained = {explanation(name) for metric in metrics for name in metric.names}
    explanations = [text for each in declared() for text in each.explanations.values()]
    assert explained == set(explanations), "none is missing, none is left over"
    for text in explanations:
        assert len(re.findall(r"\.(?: [A-Z]|$)", text)) == 2, text
    with pytest.raises(ValueError, match="no explanation of 'fid'"):
        explanation("fid")


def test_every_metric_that_a_protocol_can_ask_for_says_where_it_is_shown() -> None:
    assert len(by_name()) >= 11
    for name, each in by_name().items():
        assert each.columns or each.curves, f"{name} is in no table and no plot"
        assert each.families, f"{name} is of no family of a report"
        assert set(each.needs) <= ROLES
    assert list(family_patterns())[-2:] == ["Pictures", "Continuation"]


def test_a_report_reads_from_the_files_what_the_classes_say() -> None:
    said = [(title, pattern) for each in declared() for title, pattern in vars(each).get("families", {}).items()]
    patterns = family_patterns()
    assert all(pattern in patterns[title].split("|") or pattern in patterns[title] for title, pattern in said)
    assert set("|".join(patterns.values()).split("|")) == {part for _, pattern in said for part in pattern.split("|")}
    assert bars() == {prefix: title for each in declared() for prefix, title in each.bars.items()}
    assert details() == sorted({each.details for each in declared() if each.details})


def test_a_file_of_a_new_metric_is_enough_for_a_report(tmp_path: Path) -> None:
    lines = ["class Red(Base):", '    families: ClassVar = {"Colours": "red", PICTURES: "tone"}', "    rank = later()"]
    (tmp_path / "red.py").write_text("\n".join(lines))
    assert declarations(tmp_path) == {"families": [{"Colours": "red", "Pictures": "tone"}]}


@pytest.fixture
def toy() -> Iterator[None]:
    """A metric as another file of the room would hold it."""

    class RedShare(StoryMetric):
        """The mean of the red channel, in [0, 1]."""

        names = ("red",)
        asked_as = "toy_red"
        columns = (Column("red", "share of red", PICTURES),)
        legend: ClassVar = {PICTURES: "*share of red*: 1 where all is red"}

        def update(self, frames: Tensor, mask: Tensor, ids: Sequence[str]) -> None:
            red = (frames[:, :, 0].mean((-2, -1)) + 1) / 2 * mask  # b f
            self.add_stories(torch.stack([red.sum(1), mask.sum(1)], dim=-1)[:, None], ids)

        def judge(self, drawn: Seen, truth: Truth) -> None:
            self.update(drawn.frames, truth.batch.mask, truth.batch.ids)

    yield
    del RedShare
    gc.collect()  # else the next test would still know it


def test_a_new_metric_is_judged_and_shown_in_table_and_page_without_another_line(
    toy: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_true_frames(Path("frames"))
    settings = ["images=frames", "splits=[test]", "num_stories=3", "out=out"]
    assert main(["evaluate", *settings, "protocol.metrics=[pixels,toy_red]"]) == 0
    record = json.loads(Path("out/test/metrics.json").read_text())
    assert record["protocol"]["metrics"] == ["pixels", "toy_red"]
    low, high = record["intervals"]["frames"]["red"]
    assert 0 < low < record["values"]["frames"]["red"] < high < 1
    header = next(line for line in capsys.readouterr().out.splitlines() if "share of red" in line)
    assert header.split("|")[-2].strip() == "share of red", "a metric without a rank stands last"
    page = Path("out/test/index.html").read_text()
    assert "<th>share of red</th>" in page and "1 where all is red" in page


def test_a_metric_is_forgotten_with_its_class() -> None:
    assert "toy_red" not in by_name() and "red" not in columns_of(PICTURES)


def test_two_metrics_cannot_be_asked_for_by_one_name(toy: None) -> None:
    class Other(StoryMetric):
        asked_as = "toy_red"

    with pytest.raises(AssertionError, match="by one name"):
        by_name()
    del Other
    gc.collect()


def test_a_metric_that_no_class_declares_is_named_with_the_nearest(capsys: pytest.CaptureFixture) -> None:
    assert main(["evaluate", "images=frames", "protocol.metrics=[pixel]"]) == 2
    assert "no score 'pixel' in a protocol; did you mean pixels?" in capsys.readouterr().err
