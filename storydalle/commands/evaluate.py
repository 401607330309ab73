"""evaluate: scores of a model on ToonSV, with the ceilings that make them readable.

  storydalle evaluate experiment=toon/story_dalle
  storydalle evaluate model=runs/toon/story_dalle/2026-01-31_12-00-00/model splits='[test]' num_stories=100
  storydalle evaluate images=frames                     any system's pictures: frames/toon/test/000000/01.png, ...

Prints how well labels are read off real frames, one table a split, the path probes and the targets; writes
metrics.json and table.md.
"""

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from storydalle.commands import inputs, models, outputs
from storydalle.commands.application import Request
from storydalle.commands.mistakes import UserError, nearest, told_in_one_line
from storydalle.metrics.label_reader import LabelReader
from storydalle.metrics.label_reader_training import reading_accuracies
from storydalle.metrics.probes import measure_probes
from storydalle.metrics.record import metrics_record, toon_protocol, write_record
from storydalle.metrics.toon import ToonScores
from storydalle.metrics.toon_rows import (
    padded,
    score_copied_source,
    score_frames,
    score_real_frames,
    score_reconstructions,
)
from storydalle.metrics.toon_table import (
    COPY,
    REAL,
    RECONSTRUCTION,
    TEXT_TO_IMAGE,
    markdown,
    targets_table,
    toon_table,
)
from storydalle.sampling import FrameKey
from storydalle.stories import toon
from storydalle.stories.images import from_images
from storydalle.story_dalle import CARD_NAME, StoryDALLE

READER = "label_reader"
Frames = tuple[Tensor, dict[str, Tensor], Tensor]  # (b, f, c, h, w) in [-1, 1], true labels, mask (b, f)
RESULTS_BEGIN, RESULTS_END = "<!-- results:begin -->", "<!-- results:end -->"


def run(request: Request) -> None:
    settings, started = request.settings, time.monotonic()
    check_settings(settings)
    name = str(settings["model"] if settings["images"] is None else settings["images"])
    out = Path("evaluated") / Path(name).name if settings["out"] is None else Path(str(settings["out"])).expanduser()
    outputs.check_space(out, megabytes=10)
    reader_folder = models.zoo_folder() / READER
    with told_in_one_line(f"cannot open the label reader {reader_folder}", ValueError, OSError):
        reader = LabelReader.from_pretrained(reader_folder)
    folder = models.locate(str(settings["model"]))
    model = models.open_model(folder)
    assert isinstance(model, StoryDALLE)
    texts, records = [reader_accuracy(reader, model.resolution)], {}
    print(texts[0])
    rows: dict[str, dict[str, dict[str, float]]] = {}
    tables: list[str] = []
    for split in settings["splits"]:
        stories = toon.ToonSV(split, settings["num_stories"], resolution=model.resolution)
        scores = score_rows(reader, stories, model, name, settings)
        intervals = {row: each.compute_intervals() for row, each in scores.items()}
        rows[split] = {row: each.compute() for row, each in scores.items()}
        if settings["images"] is None:
            rows[split][name] |= probed(model, split, settings)
        texts.append(f"**{split}**, {len(stories)} stories\n\n{toon_table(rows[split])}")
        tables.append(f"**{split}**, 95 % intervals over stories\n\n{toon_table(rows[split], intervals)}")
        print(texts[-1])
        records[split] = metrics_record(
            rows[split],
            protocol=toon_protocol(
                version=str(model.card.get("data_version", "1")),
                split=split,
                num_targets=stories.num_targets,
                ids=[f"toon/{split}/{i:06d}" for i in range(len(stories))],
                resolution=model.resolution,
                reader_weights=reader_folder / models.WEIGHTS,
                sampling=vars(model.sampling()),
                metrics=ToonScores.names,
            ),
            n={row: each.counts() for row, each in scores.items()},
            intervals=intervals,
            seeds=[settings["seed"]],
            device=str(model.device),
            wall_seconds=time.monotonic() - started,
            config=f"toon/{split}",
            model=name,
            weights_sha256=models.weights_sha256(folder),
        )
    endings = [probe_table({split: each[name] for split, each in rows.items()})] if settings["images"] is None else []
    if "test" in rows:
        endings.append(targets_table(rows["test"], rows.get("unseen"), name))
    print("\n\n".join(endings))
    texts += endings
    out.mkdir(parents=True, exist_ok=True)
    text = "\n\n".join(texts)
    (out / "table.md").write_text("\n\n".join([text, *tables]) + "\n")
    for split, record in records.items():
        write_record(out / split / "metrics.json", record)
    if settings["readme"] is not None:
        fill_results(Path(str(settings["readme"])), text)
    if settings["card"]:
        fill_card(folder, rows, [toon_table(each) for each in rows.values()])
    print(f"wrote {out / 'table.md'} and {out}/<split>/metrics.json")


def check_settings(settings: dict[str, Any]) -> None:
    inputs.check_seed(settings["seed"])
    inputs.check_number("num_stories", settings["num_stories"], 1, None, whole=True)
    inputs.check_number("batch_size", settings["batch_size"], 1, None, whole=True)
    images = settings["images"]
    if images is not None and not Path(str(images)).expanduser().is_dir():
        raise UserError(f"images={images} is no folder: give one with <story id>/<number>.png in it")
    splits = settings["splits"]
    for split in splits if isinstance(splits, list) else [splits]:
        if split not in toon.SPLITS:
            raise UserError(f"{settings['data']['name']} has no split {split!r}; {nearest(str(split), toon.SPLITS)}")
    if not isinstance(splits, list):
        settings["splits"] = [splits]


def reader_accuracy(reader: LabelReader, resolution: int, num_stories: int = 100) -> str:
    """How well the ruler reads real frames that it was not trained on."""
    accuracies = reading_accuracies(reader, toon.ToonSV("val", num_stories, resolution=resolution))
    return "Labels read on held-out real frames: " + ", ".join(
        f"{name} {value:.3f}" for name, value in accuracies.items()
    )


def score_rows(
    reader: LabelReader, stories: toon.ToonSV, model: StoryDALLE, name: str, settings: dict[str, Any]
) -> dict[str, ToonScores]:
    """The ceilings, then the model."""

    def reconstruct(images: Tensor) -> Tensor:
        return model.image_tokenizer.decode(model.image_tokenizer.encode(images))

    def scored(batches: Iterator[Frames]) -> ToonScores:
        scores = ToonScores()
        for frames, labels, mask in batches:
            score_frames(reader, frames, labels, mask, scores)
        return scores

    batch_size, seed = settings["batch_size"], settings["seed"]

    rows = {
        REAL: score_real_frames(reader, stories),
        RECONSTRUCTION: score_reconstructions(reader, stories, reconstruct),
        COPY: score_copied_source(reader, stories),
    }
    if settings["text_to_image"] is not None:
        alone = models.open_model(models.locate(str(settings["text_to_image"])))
        assert isinstance(alone, StoryDALLE)
        rows[TEXT_TO_IMAGE] = scored(drawn_batches(alone, stories, batch_size, seed))
    if settings["images"] is not None:
        return rows | {name: scored(stored_batches(Path(str(settings["images"])).expanduser(), stories, batch_size))}
    return rows | {name: scored(drawn_batches(model, stories, batch_size, seed))}


def probed(model: StoryDALLE, split: str, settings: dict[str, Any]) -> dict[str, float]:
    """The path probes, with the stories' other sources drawn too."""
    stories = toon.ToonSV(split, settings["num_stories"], resolution=model.resolution, probes=True)
    return measure_probes(model, stories, settings["data"]["probes"], settings["data"]["source_probes"])


def probe_table(scores: dict[str, dict[str, float]]) -> str:
    """Rise of the loss of the true frames, in nats a frame, when one input is another story's; a line a split."""
    names = [name for name in next(iter(scores.values())) if name.startswith("probe_")]
    titles = [name.removeprefix("probe_").replace("_", " ") for name in names]
    table = markdown(
        ["nats a frame", *titles],
        ([split, *(f"{values.get(name, math.nan):+.1f}" for name in names)] for split, values in scores.items()),
    )
    return f"Loss added by a wrong input, in nats a frame (64 codes)\n\n{table}"


def stored_batches(folder: Path, stories: toon.ToonSV, batch_size: int) -> Iterator[Frames]:
    """Frames of ``folder/<story id>/*.png`` in the order of their names, resized to the stories'."""
    for start in range(0, len(stories), batch_size):
        group = stories[start : start + batch_size]
        _, frames, labels, mask = padded(group)
        pictures: list[Tensor] = []
        for story in group:
            files = sorted((folder / story.id).glob("*.png"))
            if len(files) != len(story.frames):
                raise UserError(
                    f"{folder / story.id} holds {len(files)} .png files, the story {len(story.frames)} frames"
                )
            with told_in_one_line(f"{folder / story.id} holds a picture that cannot be read", OSError):
                pictures.append(from_images([Image.open(file) for file in files], stories.resolution))
        yield torch.stack(pictures).view_as(frames), labels, mask


def drawn_batches(model: StoryDALLE, stories: toon.ToonSV, batch_size: int, seed: int) -> Iterator[Frames]:
    """Frames that the model draws, with true labels and mask; a story's frames do not depend on its batch."""
    for start in tqdm(range(0, len(stories), batch_size), desc=f"drawing {stories.split}", disable=None):
        group = stories[start : start + batch_size]
        source, frames, labels, mask = padded(group)
        num_frames = frames.shape[1]
        tokens = model.caption_tokenizer.encode([caption for story in group for caption in story.captions]).tokens
        tokens = rearrange(tokens, "(b f) t -> b f t", f=num_frames).to(model.device)
        keys = [FrameKey(seed, start + i, frame) for i in range(len(group)) for frame in range(num_frames)]
        with torch.inference_mode():
            codes = model.draw(tokens, model.image_tokenizer.encode(source.to(model.device)), keys).codes[:, 0]
            images = model.image_tokenizer.decode(codes)
        yield rearrange(images, "(b f) c h w -> b f c h w", f=num_frames), labels, mask


def fill_card(folder: Path, rows: dict[str, dict[str, dict[str, float]]], tables: list[str]) -> None:
    """Put scores and tables into the model's own card."""
    path = folder / CARD_NAME
    card = json.loads(path.read_text()) if path.is_file() else {}
    write_record(path, card | {"scores": rows, "tables": tables})


def fill_results(readme: Path, text: str) -> None:
    """Replace what stands between the two markers of a markdown file."""
    page = readme.read_text(encoding="utf-8") if readme.is_file() else ""
    before, begin, rest = page.partition(RESULTS_BEGIN)
    _, end, after = rest.partition(RESULTS_END)
    if not begin or not end:
        raise UserError(f"readme={readme} has no {RESULTS_BEGIN} and {RESULTS_END} to write between")
    readme.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")
