"""Data sets can be sent to a worker process that is started afresh, as Python 3.14 starts them."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from storydalle.stories.data import BatchDataset, Frames, Step, StepData, WholeStories
from storydalle.stories.labelled_frames import LabelledFrames
from storydalle.stories.toon import ToonSV
from storydalle.tokens.cache import StoryCodes
from storydalle.tokens.captioned_frames import CaptionedStories
from tests.tiny import TinyStories, tiny_story_dalle


def frames(folder: Path) -> StepData:
    return Frames(TinyStories(4), TinyStories(3), 2, frames_per_story=2)


def whole_stories(folder: Path) -> StepData:
    stories = TinyStories(4, lengths=(1, 3), clip_frames=(1, 4))
    return WholeStories(stories, stories, 2)


def captioned(folder: Path) -> StepData:
    return CaptionedStories(TinyStories(4), TinyStories(3), tiny_story_dalle().caption_tokenizer, 2)


def labelled(folder: Path) -> StepData:
    return LabelledFrames(ToonSV("train", 4, resolution=64), ToonSV("val", 2, resolution=64), 2)


def codes(folder: Path) -> StepData:
    made, stories = tiny_story_dalle(), TinyStories(4, lengths=(1, 3), clip_frames=(1, 4))
    data = StoryCodes(stories, stories, made.image_tokenizer, made.caption_tokenizer, folder, 2)
    data.prepare_data()
    return data


MODULES: dict[str, Callable[[Path], StepData]] = {
    "frames": frames,
    "whole_stories": whole_stories,
    "captioned": captioned,
    "labelled": labelled,
    "codes": codes,
}


class Each(Dataset[Any]):
    """The first batches of several data sets: one process reads them all."""

    def __init__(self, sets: list[BatchDataset], steps: list[Step]) -> None:
        self.sets, self.steps = sets, steps

    def __len__(self) -> int:
        return len(self.sets)

    def __getitem__(self, index: int) -> Any:
        return tuple(tensors(self.sets[index][self.steps[index]]))


def tensors(batch: Any) -> list[torch.Tensor]:
    """Those of a batch, in their order."""
    if isinstance(batch, torch.Tensor):
        return [batch]
    parts = batch.values() if isinstance(batch, dict) else batch if isinstance(batch, tuple | list) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def of_all(folder: Path) -> Each:
    made = [make(folder / name) for name, make in MODULES.items()]
    training, validation = [each.training_set() for each in made], [each.validation_set() for each in made]
    return Each([*training, *validation], [Step([1, 0], 3)] * len(made) + [Step([0, 1], None)] * len(made))


@pytest.mark.parametrize("name", MODULES)
def test_a_data_set_is_sent_to_another_process_without_its_module(name: str, tmp_path: Path) -> None:
    """A module holds the trainer, and with it the model: what a worker gets is small."""
    module = MODULES[name](tmp_path)
    for dataset in (module.training_set(), module.validation_set()):
        sent = pickle.dumps(dataset)
        assert b"StepData" not in sent and type(module).__name__.encode() not in sent
        read = (each[Step([0, 1], 2)] for each in (dataset, pickle.loads(sent)))
        for expected, found in zip(*map(tensors, read), strict=True):
            assert torch.equal(expected, found)


@pytest.mark.parametrize("context", ["spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_workers_that_are_started_afresh_read_the_same(context: str, tmp_path: Path) -> None:
    data = of_all(tmp_path)
    loader = DataLoader(data, batch_size=None, num_workers=1, multiprocessing_context=context)
    for index, found in enumerate(loader):
        expected = data[index]
        assert expected and len(expected) == len(found)
        assert all(torch.equal(one, other) for one, other in zip(expected, found, strict=True))
