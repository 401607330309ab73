"""index.html of an evaluation: tables, plots, and the best, the median and the worst stories beside the true ones."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from storydalle.evaluation.entries import System
from storydalle.evaluation.judging import Scorecard
from storydalle.evaluation.tables import score_tables
from storydalle.evaluation.toon_table import CEILINGS, toon_table
from storydalle.files.whole import save_picture, write_text
from storydalle.metrics.resampling import Interval
from storydalle.metrics.story_metric import StoryMetric
from storydalle.reporting import strips
from storydalle.reporting.continuation_page import continuation_section
from storydalle.reporting.plots import Points, plot_bars, plot_lines
from storydalle.stories.images import to_images, to_picture

if TYPE_CHECKING:
    from storydalle.evaluation.evaluation import Evaluated

NUM_FAILURES = 4


class Ranking(NamedTuple):
    """How stories are put in order: the mean of some of a metric's scores, or of their opposites."""

    metric: str
    scores: tuple[str, ...]
    sign: int
    words: str


RANKINGS = (
    Ranking("labels", ("character_micro_f1", "setting", "action"), 1, "the characters, setting and action read in it"),
    Ranking("characters", ("character_micro_f1",), 1, "the F1 of the characters read in it"),
    Ranking("pixels", ("error",), -1, "its distance to the true frames"),
)


def write_page(folder: Path, evaluated: "Evaluated") -> dict[str, str]:
    """The page, and the strips that it shows as pictures of their own; what each of these files shows."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = [strips.html_table(table) for table in tables_of(evaluated)]
    parts.append(f'<div class="plots">{"".join(plots_of(evaluated))}</div>')
    shown: dict[str, str] = {}
    ids = evaluated.subjects.judged.ids()
    for name, system in evaluated.systems.items():
        if name in CEILINGS:
            continue
        ranking, order = ranked(evaluated.scorecards[name], ids)
        for heading, strip, credit in chosen_strips(evaluated, system, ranking, order):
            file = f"strip-{len(shown) + 1}.png"
            shown[file] = f"{heading}. {credit}" if credit else heading
            save_picture(strips.compared_image(strip), folder / file)
            note = f'<p class="note">{strips.escaped(credit)}</p>' if credit else ""
            parts.append(f"<h2>{strips.escaped(heading)}</h2>{note}{strips.strip_section(strip)}")
        parts += continuation_section(evaluated, name, system, order[len(order) // 2])
    parts.append(footer(evaluated))
    write_text(folder / "index.html", strips.page_of(evaluated.title, parts))
    return shown


def tables_of(evaluated: "Evaluated") -> list[str]:
    """Each table with the intervals of its scores."""
    shown = evaluated.rows, evaluated.intervals
    tables = [toon_table(*shown)] if "labels" in evaluated.scoring.protocol.metrics else []
    diagnoses = [each.text(name, with_intervals=True) for name, each in evaluated.diagnoses.items()]
    return [part for table in [*tables, score_tables(*shown), *diagnoses] for part in blocks(table)]


def blocks(markdown: str) -> list[str]:
    return [block for block in markdown.split("\n\n") if block]


def footer(evaluated: "Evaluated") -> str:
    """What was measured, by what."""
    protocol = evaluated.record["protocol"]
    facts = {"protocol": f"{protocol['name']} {evaluated.record['protocol_hash']}"}
    facts |= {name: str(value) for name, value in protocol.items() if name != "name" and value is not None}
    return strips.facts_list(facts)


# ------------------------------------------------------------------------------------------------ plots


def plots_of(evaluated: "Evaluated") -> list[str]:
    """Scores by position, and by character where there are characters, as html."""
    plots = []
    for prefix, title in (("character_micro_f1_at_", "Character F1 by frame"), ("error_at_", "Error by frame")):
        lines = points(evaluated.rows, evaluated.intervals, prefix)
        if lines:
            plots.append(f"<div>{plot_lines(lines, title, 'frame of the story')}</div>")
    bars = points(evaluated.rows, evaluated.intervals, "character_f1_")
    if bars:
        plots.append(f'<div class="wide">{plot_bars(bars, "F1 of each character")}</div>')
    return plots


def points(
    rows: Mapping[str, Mapping[str, float]], intervals: Mapping[str, Mapping[str, Interval]], prefix: str
) -> dict[str, Points]:
    """The scores of each row whose names begin alike, by the rest of their names."""
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


def chosen_strips(
    evaluated: "Evaluated", system: System, ranking: Ranking, order: Sequence[int]
) -> list[tuple[str, strips.Strip, str]]:
    """The best, the median and the worst stories of a system, with a heading and a credit each."""
    places = {"best": 0, "median": len(order) // 2}
    last = range(len(order) - 1, max(len(order) - 1 - NUM_FAILURES, len(order) // 2), -1)
    places |= {"worst" if i == 0 else f"failure {i + 1}": place for i, place in enumerate(last)}
    return [
        (
            f"{system.name}: {title} of {len(order)} stories, by {ranking.words}",
            strip_of(evaluated, system, order[place]),
            evaluated.credit(order[place]),
        )
        for title, place in places.items()
    ]


def ranked(card: Scorecard, ids: Sequence[str]) -> tuple[Ranking, list[int]]:
    """Indices of stories from the best to the worst; equal ones by their distance to the true frames."""
    available = [ranking for ranking in RANKINGS if ranking.metric in card.metrics]
    if not available:
        return RANKINGS[-1]._replace(words="their order in the split"), list(range(len(ids)))
    values = [story_scores(card, ranking, ids).tolist() for ranking in (available[0], available[-1])]
    return available[0], sorted(range(len(ids)), key=lambda i: (-values[0][i], -values[1][i], i))


def story_scores(card: Scorecard, ranking: Ranking, ids: Sequence[str]) -> Tensor:
    """The ranking's value of each story."""
    metric = card.metrics[ranking.metric]
    assert isinstance(metric, StoryMetric)
    scores = metric.scores_of_sums(metric.rows_of(ids).rows.double())
    return ranking.sign * torch.stack([scores[name] for name in ranking.scores]).nanmean(0).nan_to_num()


def strip_of(evaluated: "Evaluated", system: System, index: int) -> strips.Strip:
    """A story as the system drew it, with the true frames."""
    subjects = evaluated.subjects
    (story,) = subjects.group(index, index + 1)
    drawn = to_images(system.frames(subjects, index, index + 1)[0])[: len(story.frames)]
    true = [to_picture(frame) for frame in story.frames]
    return strips.Strip(story.captions, drawn, to_picture(story.source), references=true)
