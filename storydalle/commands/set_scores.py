"""``evaluate`` on a story set from a folder: what can be said of drawn frames without labels, and the path probes."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, repeat
from PIL import Image
from torch import Tensor

from storydalle import strips
from storydalle.commands import inputs, models, outputs
from storydalle.commands.application import Request
from storydalle.commands.mistakes import UserError, told_in_one_line
from storydalle.commands.story_sets import chosen_split, opened, spread
from storydalle.commands.systems import drawn_batches, find_systems, open_systems, stored_batches
from storydalle.metrics.pictures import PictureScores
from storydalle.metrics.probes import measure_probes
from storydalle.metrics.record import canonical_json, metrics_record, sha256_of_file, sha256_of_text, write_record
from storydalle.metrics.toon import Interval
from storydalle.metrics.toon_table import COPY, REAL, RECONSTRUCTION, markdown
from storydalle.stories.data import batch_of
from storydalle.stories.pictures import ClipError
from storydalle.stories.set_stories import SetStories
from storydalle.stories.story_set import StorySet
from storydalle.story_dalle import StoryDALLE

COLUMNS = {
    "error": "error",
    "change": "change",
    "copied": "copied",
    "nats": "nats",
    "probe_source": "other source",
    "probe_captions": "other captions",
}
LEGEND = (
    "*Error*: mean absolute difference to the true frame, *change*: to the source, of 1 between black and white; "
    "*copied*: share of frames nearer to the source than to the true frame. *Nats*: loss of a true frame; with another "
    "story's source or captions it rises by as much as stands beside it."
)


def score_story_set(request: Request) -> None:
    """Ceilings and systems on each split: table, record, and strips to look at."""
    settings = request.settings
    inputs.check_seed(settings["seed"])
    for name in ("num_stories", "batch_size"):
        inputs.check_number(name, settings[name], 1, None, whole=True)
    if settings["card"]:
        raise UserError("card=true fills the card of a model for ToonSV, whose scores need no other data; leave it out")
    story_set = opened(settings["data"])
    wanted = settings["splits"] if isinstance(settings["splits"], list) else [settings["splits"]]
    if "splits" not in request.given:
        wanted = [split for split in wanted if split in story_set.splits] or [story_set.splits[0]]
    splits = [chosen_split(story_set, str(split), is_given=True) for split in wanted]
    folders = find_systems(settings)
    out = Path(str(settings["out"] or Path("evaluated") / story_set.name)).expanduser()
    outputs.check_space(out, megabytes=50)
    systems = open_systems(folders)

    texts, details = [], []
    for split in splits:
        stories = opened_stories(story_set, split, next(iter(systems.values())).resolution, settings)
        try:
            record = score_split(stories, systems, folders, settings)
            shown = spread(settings["preview"] if settings["images"] is None else 0, len(stories))
            drawn = draw_some(stories, shown, systems, settings["seed"])
        except ClipError as error:
            raise UserError(
                f"a picture of {story_set.name}, {split}, cannot be read ({error}): storydalle prepare names it; then "
                f"data.ids=prepared/{story_set.name} scores the stories whose pictures are whole"
            ) from error
        heading = f"**{story_set.name}, {split}**, {len(stories)} stories, protocol `{record['protocol_hash'][:12]}`"
        texts.append(f"{heading}\n\n{table(record['values'])}")
        details.append(f"{heading}, 95 % intervals over stories\n\n{table(record['values'], record['intervals'])}")
        print(texts[-1])
        write_record(out / split / "metrics.json", record)
        if shown:
            credits = list(filter(None, (story_set.credit(stories.records[i]) for i in shown)))
            write_page(out / split, drawn, f"{story_set.name}, {split}", texts[-1], credits)
    text = "\n\n".join([*texts, LEGEND])
    print(LEGEND)
    (out / "table.md").write_text("\n\n".join([text, *details]) + "\n")
    if settings["readme"] is not None:
        outputs.fill_results(Path(str(settings["readme"])), text)
    print(f"wrote {out / 'table.md'} and {out}/<split>/metrics.json, index.html")


def opened_stories(story_set: StorySet, split: str, resolution: int, settings: Mapping[str, Any]) -> SetStories:
    with told_in_one_line(""):
        return SetStories(story_set, split, resolution, settings["num_stories"], settings["data"]["ids"])


def score_split(
    stories: SetStories, systems: Mapping[str, StoryDALLE], folders: Mapping[str, Path], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The record of one split."""
    started, first = time.monotonic(), next(iter(systems.values()))
    scores = score_rows(stories, systems, settings)
    rows: dict[str, dict[str, float]] = {name: each.compute() for name, each in scores.items()}
    intervals: dict[str, dict[str, Interval]] = {name: each.compute_intervals() for name, each in scores.items()}
    if settings["images"] is None:
        for name, system in systems.items():
            rows[name] |= measure_probes(system, stories, {}, {})
    return metrics_record(
        rows,
        protocol=protocol_of(stories, settings["data"]["set"]) | {"sampling": vars(first.sampling())},
        n={name: each.counts() for name, each in scores.items()},
        intervals=intervals,
        seeds=[settings["seed"]],
        device=str(first.device),
        wall_seconds=time.monotonic() - started,
        config=f"{stories.story_set.name}/{stories.split}",
        weights_sha256={name: models.weights_sha256(folder) for name, folder in folders.items()},
    )


def protocol_of(stories: SetStories, options: Mapping[str, Any]) -> dict[str, Any]:
    """What must agree before two numbers on a set may stand in one column."""
    story_set = stories.story_set
    files = {file.name: sha256_of_file(file) for file in story_set.annotation_files() if file.is_file()}
    return {
        "dataset": story_set.name,
        "options": {key: value for key, value in options.items() if key not in ("_target_", "root")},
        "annotations": sha256_of_text(canonical_json(files)),
        "split": stories.split,
        "num_stories": len(stories),
        "ids_sha256": sha256_of_text(canonical_json([record.id for record in stories.records])),
        "frame_of_a_clip": "sha256 of the clip's name",
        "resolution": stories.resolution,
        "interpolation": "centre square, Lanczos",
        "metrics": sorted(COLUMNS),
    }


def score_rows(
    stories: SetStories, systems: Mapping[str, StoryDALLE], settings: Mapping[str, Any]
) -> dict[str, PictureScores]:
    """The ceilings, then the systems, which share their tokenizer's."""
    tokenizer = next(iter(systems.values())).image_tokenizer
    batch_size = settings["batch_size"]

    @torch.inference_mode()
    def reconstructed(frames: Tensor, _: Tensor) -> Tensor:
        images = tokenizer.decode(tokenizer.encode(rearrange(frames, "b f c h w -> (b f) c h w")))
        return rearrange(images, "(b f) c h w -> b f c h w", b=len(frames))

    makers: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        REAL: lambda frames, source: frames,
        RECONSTRUCTION: reconstructed,
        COPY: lambda frames, source: repeat(source, "b c h w -> b f c h w", f=frames.shape[1]),
    }
    for name, system in systems.items():
        if settings["images"] is None:
            batches = drawn_batches(system, stories, batch_size, settings["seed"])
        else:
            batches = stored_batches(Path(name).expanduser(), stories, batch_size)
        makers[name] = lambda frames, source, batches=batches: next(batches)[0].to(frames)  # type: ignore[misc]
    scores = {name: PictureScores() for name in makers}
    for start in range(0, len(stories), batch_size):
        batch = batch_of(stories[start : start + batch_size])
        for name, make in makers.items():
            scores[name].update(make(batch.frames, batch.source), batch.frames, batch.source, batch.mask)
    return scores


def table(rows: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Mapping[str, Any]] | None = None) -> str:
    """A line a row: distances with three digits, nats with one."""

    def cell(row: str, name: str) -> str:
        value, interval = rows[row].get(name), (intervals or {}).get(row, {}).get(name)
        if value is None:
            return "-"
        ends = f" [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
        return (
            f"{value:.3f}{ends}"
            if name in PictureScores.names
            else f"{value:+.1f}"
            if "probe" in name
            else f"{value:.1f}"
        )

    return markdown(["", *COLUMNS.values()], ([row, *(cell(row, name) for name in COLUMNS)] for row in rows))


def draw_some(
    stories: SetStories, indices: Sequence[int], systems: Mapping[str, StoryDALLE], seed: int
) -> dict[str, list[strips.Strip]]:
    """Strips of some stories by every system, with the true frames."""
    drawn: dict[str, list[strips.Strip]] = {name: [] for name in systems}
    for story in (stories[i] for i in indices):
        source, true = Image.fromarray(story.source), [Image.fromarray(frame) for frame in story.frames]
        for name, system in systems.items():
            frames = system.generate(story.captions, source, seed=seed).frames
            drawn[name].append(strips.Strip(story.captions, frames, source, references=true))
    return drawn


def write_page(
    folder: Path, drawn: Mapping[str, Sequence[strips.Strip]], title: str, text: str, credits: Sequence[str]
) -> None:
    """index.html with all strips, and each as a picture; whoever made the true frames is named."""
    flat = [strip for each in drawn.values() for strip in each]
    given = "The source frame and the captions are given; the frames are drawn. Beneath each stands the true frame."
    notes = [given, *(f"Source and true frames of story {i}: {credit}" for i, credit in enumerate(credits, start=1))]
    page = strips.story_page(
        flat, title, notes=notes, facts={"systems": ", ".join(drawn)}, tables=[text.split("\n\n")[1]]
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.html").write_text(page, encoding="utf-8")
    for number, strip in enumerate(flat, start=1):
        strips.compared_image(strip).save(folder / f"strip-{number}.png")
