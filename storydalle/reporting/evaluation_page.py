"""index.html of an evaluation: tables, plots, and the best, median and worst stories with their true frames."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from storydalle.evaluation.ceilings import CEILINGS
from storydalle.evaluation.entries import Entry
from storydalle.evaluation.evaluation import Evaluation
from storydalle.evaluation.judges import Scorecard
from storydalle.evaluation.tables import score_tables
from storydalle.evaluation.toon_table import toon_table
from storydalle.files.whole import save_picture, write_text
from storydalle.metrics.declared import Ranking, by_name, declared
from storydalle.metrics.resampling import Interval
from storydalle.metrics.story_metric import StoryMetric
from storydalle.reporting.blocks import Grid, Paragraph, blocks_of
from storydalle.reporting.continuation_page import ShownDiagnostic, shown_diagnostics, strip_of
from storydalle.reporting.pages import Plot, page
from storydalle.reporting.plots import Points, plot_bars, plot_lines
from storydalle.reporting.strips import Strip, compared_image

NUM_FAILURES = 4


class Chosen(NamedTuple):
    """A story to show: drawn frames above the true ones."""

    heading: str
    strip: Strip
    credit: str  # of its pictures; empty where nobody asks for one

    def told(self) -> str:
        return f"{self.heading}. {self.credit}" if self.credit else self.heading


class Section(NamedTuple):
    """The part of the page that shows what one system drew."""

    name: str
    chosen: list[Chosen]
    diagnostics: list[ShownDiagnostic]


def write_page(folder: Path, evaluation: Evaluation) -> dict[str, str]:
    """Write the page, and the strips that it shows as pictures of their own; return a heading for each of these."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = {name: entry for name, entry in evaluation.entries.items() if name not in CEILINGS}
    sections = [section_of(evaluation, name, entry) for name, entry in entries.items()]
    shown: dict[str, str] = {}
    for number, story in enumerate((story for section in sections for story in section.chosen), start=1):
        file = f"strip-{number}.png"
        shown[file] = story.told()
        save_picture(compared_image(story.strip), folder / file)
    content = {"tables": tables_of(evaluation), "plots": plots_of(evaluation), "facts": facts_of(evaluation)}
    write_text(folder / "index.html", page("evaluation.html", evaluation.title, sections=sections, **content))
    return shown


def section_of(evaluation: Evaluation, name: str, entry: Entry) -> Section:
    ranking, order = ranked(evaluation.scorecards[name], evaluation.split.judged.ids())
    median = order[len(order) // 2]
    diagnostics = shown_diagnostics(evaluation, name, entry, median)
    return Section(name, chosen_stories(evaluation, entry, ranking, order), list(diagnostics))


def tables_of(evaluation: Evaluation) -> list[Grid | Paragraph]:
    """Each table with the intervals of its scores."""
    shown = evaluation.rows, evaluation.intervals
    tables = [toon_table(*shown)] if evaluation.has_toon_table else []
    diagnoses = [each.text(name, with_intervals=True) for name, each in evaluation.diagnoses.items()]
    scores = score_tables(*shown, items=evaluation.items)
    return [block for table in [*tables, scores, *diagnoses] for block in blocks_of(table)]


def facts_of(evaluation: Evaluation) -> dict[str, str]:
    """Name, hash and fields of the protocol."""
    protocol = evaluation.record["protocol"]
    facts = {"protocol": f"{protocol['name']} {evaluation.record['protocol_hash']}"}
    return facts | {name: str(value) for name, value in protocol.items() if name != "name" and value is not None}


# ------------------------------------------------------------------------------------------------ plots


def plots_of(evaluation: Evaluation) -> list[Plot]:
    """Scores by position, and by character where there are characters."""
    shown = evaluation.rows, evaluation.intervals
    curves = {prefix: title for metric in declared() for prefix, title in metric.curves.items()}
    bars = {prefix: title for metric in declared() for prefix, title in metric.bars.items()}
    plots = [
        Plot(plot_lines(lines, title, "frame of the story"))
        for prefix, title in curves.items()
        if (lines := points(*shown, prefix))
    ]
    return plots + [
        Plot(plot_bars(values, title), "wide") for prefix, title in bars.items() if (values := points(*shown, prefix))
    ]


def points(
    rows: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Mapping[str, Interval]], prefix: str
) -> dict[str, Points]:
    """The scores of each row whose names have the same beginning, by the rest of their names."""
    found: dict[str, Points] = {}
    for row, scores in rows.items():
        own = {
            name.removeprefix(prefix): (value, *intervals[row].get(name, (math.nan, math.nan)))
            for name, value in scores.items()
            if name.startswith(prefix) and not math.isnan(value)
        }
        if own:
            found[row] = own
    return found


# ------------------------------------------------------------------------------------------------ strips


def chosen_stories(evaluation: Evaluation, entry: Entry, ranking: Ranking, order: Sequence[int]) -> list[Chosen]:
    """The best, the median and the worst stories of an entry."""
    places = {"best": 0, "median": len(order) // 2}
    last = range(len(order) - 1, max(len(order) - 1 - NUM_FAILURES, len(order) // 2), -1)
    places |= {"worst" if i == 0 else f"failure {i + 1}": place for i, place in enumerate(last)}
    return [
        Chosen(
            f"{entry.name}: {title} of {len(order)} stories, by {ranking.words}",
            strip_of(evaluation, entry.name, order[place]),
            evaluation.split.credit(order[place]),
        )
        for title, place in places.items()
    ]


def ranked(card: Scorecard, ids: Sequence[str]) -> tuple[Ranking, list[int]]:
    """Indices of stories from the best to the worst; equal ones by their distance to the true frames."""
    ranked_by = [(name, each.ranking) for name, each in by_name().items() if each.ranking]
    available = [(name, ranking) for name, ranking in ranked_by if name in card.metrics]
    if not available:
        return ranked_by[-1][1]._replace(words="their order in the split"), list(range(len(ids)))
    values = [story_scores(card, name, ranking, ids).tolist() for name, ranking in (available[0], available[-1])]
    return available[0][1], sorted(range(len(ids)), key=lambda i: (-values[0][i], -values[1][i], i))


def story_scores(card: Scorecard, name: str, ranking: Ranking, ids: Sequence[str]) -> Tensor:
    """The ranking's value of each story."""
    metric = card.metrics[name]
    assert isinstance(metric, StoryMetric)
    scores = metric.scores_of_sums(metric.rows_of(ids).rows.double())
    return ranking.sign * torch.stack([scores[score] for score in ranking.scores]).nanmean(0).nan_to_num()
