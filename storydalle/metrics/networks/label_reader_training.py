"""Training of the label reader on real frames with added faults, so that it also reads frames that a model drew."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from storydalle.files.records import git_state, sha256_of_file, versions, write_record
from storydalle.metrics.networks.label_reader import LOOK_HEADS, LabelLogits, LabelReader
from storydalle.stories.images import to_tensor
from storydalle.stories.story import Story
from storydalle.stories.toonsv import ToonSV2
from storydalle.stories.toonsv.labels import NUM_GUESTS, drawn_labels
from storydalle.training.precision import resolved
from storydalle.training.precision_names import AUTO, HALF

SMALL_FROM = 3  # characters of a frame are drawn small
HARD_VISITS = 4


def drawn_frames(stories: Sequence[Story]) -> tuple[UInt8[Tensor, "n h w c"], dict[str, Tensor]]:
    """Every frame of the stories, sources included, with the labels to be read."""
    frames: list[Tensor] = []
    labels: dict[str, list[Tensor]] = {}
    for i in range(len(stories)):
        story = stories[i]
        frames += [torch.from_numpy(pixels) for pixels in (story.source[None], story.frames)]
        for name, values in readable_labels(stories, i, story).items():
            labels.setdefault(name, []).append(torch.from_numpy(values))
    return torch.cat(frames), {name: torch.cat(values) for name, values in labels.items()}


def readable_labels(stories: Sequence[Story], index: int, story: Story) -> dict[str, np.ndarray]:
    """The labels of a story that its frames show, ``(f + 1, ...)``, the source's first."""
    if isinstance(stories, ToonSV2):
        return drawn_labels(stories.facts(index))
    sources = {
        name.removeprefix("source_"): value for name, value in story.labels.items() if name.startswith("source_")
    }
    return {name: np.concatenate([np.asarray(value)[None], story.labels[name]]) for name, value in sources.items()}


def roughened(images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Blur images, reduce their colours, change brightness by up to one step of these, shade patches, and add noise.

    Each image gets its own amount of these faults, which imitate reconstructions; a quarter of the images stay as they
    are.
    """
    num, channels, height, width = images.shape

    def amount(high: float) -> Tensor:
        return torch.rand(num, 1, 1, 1, generator=generator) * high

    blurred = F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    rough = torch.lerp(images, blurred, amount(1.0))
    step = amount(0.2) + 1e-3
    rough = (rough / step + amount(1.0)).round() * step
    patches = torch.randn(num, channels, height // 4, width // 4, generator=generator) * amount(0.12)
    rough = rough + F.interpolate(patches, (height, width), mode="nearest")
    rough = rough + torch.randn(images.shape, generator=generator) * amount(0.12)
    chosen = torch.rand(num, 1, 1, 1, generator=generator) < 0.75
    return torch.where(chosen, rough, images).clamp(-1, 1)


def mirrored(images: Float[Tensor, "n c h w"], generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Mirror a random half of the images, for labels that do not depend on left and right."""
    chosen = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(chosen, images.flip(-1), images)


def reading_losses(logits: LabelLogits, labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Cross-entropy of each head, where its question makes sense: looks of guests, hats of characters in the frame."""
    characters = labels["characters"]
    present = F.binary_cross_entropy_with_logits(logits["characters"].float(), characters.float(), reduction="none")
    losses = {"characters": present.sum(-1).mean()}
    for name in logits.keys() - losses:
        answers = labels[name]
        if answers.shape == characters.shape:
            answers = torch.where(characters > 0, answers, -1)
        total = F.cross_entropy(
            logits[name].float().flatten(0, -2), answers.flatten(), ignore_index=-1, reduction="sum"
        )
        losses[name] = total / (answers >= 0).sum().clamp(min=1)
    return losses


def batches(num: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless shuffled epochs of indices, last incomplete batches left out."""
    while True:
        order = torch.randperm(num, generator=generator)
        yield from order[: num - num % batch_size].split(batch_size) if num >= batch_size else [order]


def visited(labels: Mapping[str, Tensor]) -> Int[Tensor, " v"]:
    """The frames of ToonSV 2 in one epoch of training; those with small guests, the hardest, come several times."""
    guests, num_shown = labels["characters"][:, -NUM_GUESTS:], labels["characters"].sum(1)
    is_hard = (num_shown >= SMALL_FROM) & (guests > 0).any(1)
    return torch.arange(len(num_shown)).repeat_interleave(torch.where(is_hard, HARD_VISITS, 1))


def train_label_reader(
    stories: Sequence[Story],
    steps: int = 2600,
    seed: int = 0,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    reader: LabelReader | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int, dict[str, float]], None] | None = None,
    precision: str = AUTO,
) -> LabelReader:
    """Train a reader on the frames of the stories, with one cycle of the learning rate."""
    device = torch.device(device)
    precision, _ = resolved(precision, device.type)
    images, labels = drawn_frames(stories)
    if reader is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            reader = LabelReader()
    reader.to(device).train()
    optimizer = torch.optim.AdamW(reader.parameters(), lr=learning_rate, weight_decay=0.02, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / (0.05 * steps + 1)) * 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    generator = torch.Generator().manual_seed(seed)
    visits = visited(labels) if reader.settings.is_ordered else torch.arange(len(images))
    order = batches(len(visits), batch_size, generator)
    for step in range(steps):
        drawn = visits[next(order)]
        inputs = to_tensor(images[drawn])
        inputs = roughened(inputs if reader.settings.is_ordered else mirrored(inputs, generator), generator)
        inputs = inputs.to(device, memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == HALF):
            logits = reader(inputs)
        losses = reading_losses(logits, {name: values[drawn].to(device) for name, values in labels.items()})
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, {name: loss.item() for name, loss in losses.items()})
    return reader.eval()


def reading_accuracies(
    reader: LabelReader,
    stories: Sequence[Story],
    change: Callable[[Tensor], Tensor] | None = None,
    batch_size: int = 256,
) -> dict[str, float]:
    """The share of correct answers of each head on real frames, sources included; nan if there was no question.

    Hats are only counted for characters in the frame; ``hat_worn`` only for those who wear one. ``change`` is applied
    to the images first, for instance a tokenizer.
    """
    images, labels = drawn_frames(stories)
    device = next(reader.parameters()).device
    read: list[dict[str, Tensor]] = []
    for part in images.split(batch_size):
        inputs = to_tensor(part).to(device)
        read.append(reader.read(inputs if change is None else change(inputs)))
    predicted = {name: torch.cat([labels_read[name] for labels_read in read]).cpu() for name in read[0]}
    right = {name: values == labels[name] for name, values in predicted.items()}
    characters = labels["characters"] > 0
    asked = {name: torch.ones_like(values) for name, values in right.items()}
    asked |= {name: characters for name in reader.settings.own} | {name: labels[name] >= 0 for name in LOOK_HEADS}
    right["cast"], asked["cast"] = right["characters"].all(-1), characters.any(-1)
    for name, with_one, without in (("prop", "prop", "prop_none"), ("hat", "hat_worn", "hat_none")):
        there, is_asked = labels[name] > 0, asked[name]
        right |= {with_one: right[name], without: right[name]}
        asked |= {with_one: is_asked & there, without: is_asked & ~there}
    return {name: (right[name][asked[name]].double().mean()).item() for name in asked}


def measured(reader: LabelReader, stories: Sequence[Story], checks: Mapping[str, Sequence[Story]]) -> dict[str, object]:
    """Entries of the card: the reader's size, its training stories, and its accuracies on other stories."""
    first, last = stories[0], stories[len(stories) - 1]
    return {
        "parameters": sum(parameter.numel() for parameter in reader.parameters()),
        "data": {"first": first.id, "last": last.id, "num_stories": len(stories)}
        | {"resolution": int(first.source.shape[0])},
        "accuracies": {name: reading_accuracies(reader, held_out) for name, held_out in checks.items()},
        "num_stories": {name: len(held_out) for name, held_out in checks.items()},
    }


def make_label_reader(
    folder: Path | str,
    stories: Sequence[Story],
    checks: Mapping[str, Sequence[Story]],
    steps: int = 2600,
    seed: int = 0,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    reader: LabelReader | None = None,
    device: str | torch.device = "cpu",
    progress: Callable[[int, dict[str, float]], None] | None = None,
) -> dict[str, object]:
    """Train a reader, save it, and write ``card.json``: recipe, data, and its accuracies on each of ``checks``.

    Accuracies are those of the saved weights, read back on the CPU.
    """
    folder = Path(folder)
    precision, _ = resolved(AUTO, torch.device(device).type)
    start, start_of_process = time.perf_counter(), time.process_time()
    reader = train_label_reader(stories, steps, seed, batch_size, learning_rate, reader, device, progress, precision)
    wall, cpu = time.perf_counter() - start, time.process_time() - start_of_process
    reader.save_pretrained(folder)
    reader = LabelReader.from_pretrained(folder)
    commit, dirty = git_state(Path(__file__))
    card = {
        "task": "reads the labels of ToonSV's frames",
        "recipe": {"steps": steps, "seed": seed, "batch_size": batch_size, "learning_rate": learning_rate},
        **measured(reader, stories, checks),
        "weights_sha256": sha256_of_file(folder / "model.safetensors"),
        "device": str(device),
        "precision": precision,
        "threads": torch.get_num_threads(),
        "commit": commit,
        "dirty": dirty,
        "versions": versions(),
        "wall_seconds": round(wall, 1),
        "cpu_seconds": round(cpu, 1),
    }
    write_record(folder / "card.json", card)
    return card
