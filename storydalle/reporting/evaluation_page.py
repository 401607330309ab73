"""index.html of an evaluation: tables, plots, and the best, the median and the worst stories beside the true ones."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from storydalle.evaluation.entries import System
from storydalle.evaluation.judging import Scorecard
from storydalle.evaluation.tables import score_tables
from storydalle.evaluation.toon_table import CEILINGS, toon_table
from storydalle.files.whole import save_picture, write_text
from storydalle.metrics.declared import Ranking, by_name, declared
from storydalle.metrics.resampling import Interval
from storydalle.metrics.story_metric import StoryMetric
from storydalle.metrics.toon import ToonScores
from storydalle.reporting import strips
from storydalle.reporting.continuation_page import continuation_section
from storydalle.reporting.plots import Points, plot_bars, plot_lines
from storydalle.stories.images import to_images, to_picture

if TYPE_CHECKING:
    from storydalle.evaluation.evaluation import Evaluated

NUM_FAILURES = 4


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
    tables = [toon_table(*shown)] if ToonScores.asked_as in evaluated.scoring.protocol.metrics else []
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
    shown = evaluated.rows, evaluated.intervals
    curves = {prefix: title for metric in declared() for prefix, title in metric.curves.items()}
    bars = {prefix: title for metric in declared() for prefix, title in metric.bars.items()}
    plots = [
        f"<div>{plot_lines(lines, title, 'frame of the story')}</div>"
        for prefix, title in curves.items()
        if (lines := points(*shown, prefix))
    ]
    return plots + [
        f'<div class="wide">{plot_bars(values, title)}</div>'
        for prefix, title in bars.items()
        if (values := points(*shown, prefix))
    ]


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


def strip_of(evaluated: "Evaluated", system: System, index: int) -> strips.Strip:
    """A story as the system drew it, with the true frames."""
    subjects = evaluated.subjects
    (story,) = subjects.group(index, index + 1)
    drawn = to_images(system.frames(subjects, index, index + 1)[0])[: len(story.frames)]
    true = [to_picture(frame) for frame in story.frames]
    return strips.Strip(story.captions, drawn, to_picture(story.source), references=true)
