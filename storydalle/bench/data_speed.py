"""bench=data: the way of a picture from its file into a batch, beside decoding alone."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from storydalle.bench.measuring import Timing, Work, in_turn, rate_of
from storydalle.bench.rows import BenchRow, Measured, spread_note, table
from storydalle.bench.shapes import Shape
from storydalle.evaluation.entries import open_story_dalle
from storydalle.mistakes import UserError
from storydalle.models import kinds
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.stories.data import StepData
from storydalle.stories.pictures import open_picture
from storydalle.stories.set_stories import SetStories
from storydalle.stories.sets.folder import FolderStories
from storydalle.stories.toon import ToonSV
from storydalle.tokens.cache import CachedStories, StoryCodes
from storydalle.tokens.encoded_stories import EncodedStories
from storydalle.tokens.encoding import build_cache, read_clips, tables_folder
from storydalle.training.story_dalle_training import StoryDALLETraining

DECODE, READ, PREPARE, CACHE = "decode alone", "decode and resize", "decode, resize and encode", "read from the cache"
WAITING = "share of a step that waits for data"
TRAINING_STEPS = 4
CACHE_READS = 20  # of a batch, which takes next to no time


def bench_data(shape: Shape) -> Measured:
    """Frames a second, and the wait for data in training."""
    model = open_story_dalle(kinds.locate(shape.model or "story_dalle"))
    with tempfile.TemporaryDirectory() as name:
        files = write_pictures(Path(name, "pictures"), shape.num_stories, shape.picture_size)
        stories = SetStories(FolderStories(Path(name, "pictures")), "train", model.resolution)
        if len(stories) < shape.batch_size:
            raise UserError(
                f"num_stories={shape.num_stories}: the {len(stories)} of them that train fill no batch of "
                f"{shape.batch_size}; give more"
            )
        found = speeds(PictureFiles(Path(name), files, stories, model, shape))
    waiting = found.pop(WAITING).median
    rates, size = {name: rate.median for name, rate in found.items()}, shape.picture_size
    case = f"{len(files)} pictures of {size} x {size} pixels to {model.resolution}"
    rows = [
        BenchRow(case, name, rate, rate.median / rates[DECODE], "frames a second") for name, rate in found.items()
    ]  # decoding is the floor of all that reads pictures
    text = (
        f"Data; medians of {shape.rounds} rounds\n\n{table(rows)}\n\n{spread_note(rows)} "
        f"Reading the cache is {rates[CACHE] / rates[DECODE]:.0f} times as fast as decoding. "
        f"Training waits for data {100 * waiting:.2f} % of a step of {shape.batch_size} stories."
    )
    return Measured(text, {"frames_per_second": rates, "share_of_a_step_waiting": waiting}, rows)


def write_pictures(folder: Path, num_stories: int, size: int) -> list[Path]:
    """ToonSV's stories as a folder of one's own stories."""
    files = []
    for story in ToonSV("train", num_stories, resolution=size):
        own = folder / story.id.rpartition("/")[2]
        own.mkdir(parents=True)
        for i, frame in enumerate([story.source, *story.frames]):
            files.append(own / f"{i}.png")
            Image.fromarray(frame).save(files[-1])
        (own / "captions.txt").write_text("\n".join(["", *story.captions]) + "\n")
    return files


@dataclass(frozen=True)
class PictureFiles:
    """Stories as files, what reads and encodes them, and a folder for what is made of them."""

    folder: Path
    files: list[Path]
    stories: SetStories
    model: StoryDALLE
    shape: Shape

    def decode(self) -> int:
        for file in self.files:
            open_picture(file)
        return len(self.files)

    def read(self) -> int:
        clips = read_clips(self.stories, self.stories.clips(), self.shape.workers)
        return sum(len(pictures) for pictures in clips)

    def prepare(self) -> int:
        shutil.rmtree(self.folder / "again", ignore_errors=True)
        self.encode(self.folder / "again")
        return len(self.stories.clips())

    def encode(self, folder: Path) -> None:
        tokenizers = self.model.image_tokenizer, self.model.caption_tokenizer
        build_cache(self.stories, *tokenizers, folder, self.shape.workers)

    def read_cache(self) -> Work:
        """Return what reads one batch of the encoded stories, over and over."""
        folder = self.folder / "cache"
        self.encode(folder)
        cached = CachedStories(folder, tables_folder(folder, self.model.caption_tokenizer))
        shuffled = np.random.default_rng(self.shape.seed).permutation(len(cached))
        chosen = shuffled[: self.shape.batch_size].tolist()
        frames_read = int((cached.lengths[chosen] + 1).sum())

        def read() -> int:
            for _ in range(CACHE_READS):
                cached.batch(chosen)
            return CACHE_READS * frames_read

        return read

    def training_data(self) -> StepData:
        tokenizers = self.model.image_tokenizer, self.model.caption_tokenizer
        folder, batch_size = self.folder / "training", self.shape.batch_size
        data = StoryCodes(self.stories, self.stories, *tokenizers, folder, batch_size=batch_size)
        data.prepare_data()
        return data


def speeds(pictures: PictureFiles) -> dict[str, Timing]:
    """Frames a second of each step on the way, and the share of a training step that waits for data."""
    works = {DECODE: pictures.decode, READ: pictures.read, PREPARE: pictures.prepare, CACHE: pictures.read_cache()}
    data = pictures.training_data()
    rates = {name: rate_of(work) for name, work in works.items()}
    measures = {**rates, WAITING: lambda: [share_waiting(pictures.model, data)]}
    return in_turn(measures, pictures.shape.rounds, pictures.shape.seconds)


def share_waiting(model: StoryDALLE, data: StepData) -> float:
    """The part of training steps in which the next batch is not there yet."""
    system = StoryDALLETraining(model, text_weight=0)
    batches: Iterator[EncodedStories] = iter(data.train_dataloader())
    waited, started = 0.0, time.perf_counter()
    for _ in range(TRAINING_STEPS):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        logits = system.model(batch.tokens, batch.codes, batch.source[:, None], batch.mask)
        logits.image.square().mean().backward()
        system.zero_grad()
    return waited / (time.perf_counter() - started)
