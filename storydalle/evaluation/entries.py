"""Entries, the rows of a table of scores: models, folders of pictures, and true frames for comparison."""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from einops import rearrange, repeat
from jaxtyping import Real
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from storydalle.evaluation.ceilings import CEILINGS, COPY, REAL, TEXT_TO_IMAGE
from storydalle.evaluation.drawn import DrawnFrames, Options, Survey, files_of_pictures
from storydalle.evaluation.evaluation_settings import EvaluationSettings
from storydalle.evaluation.judges import open_text_network
from storydalle.evaluation.splits import Split
from storydalle.files.paths import file_name, user_path
from storydalle.files.reading import object_if_whole
from storydalle.metrics.networks.clip import ImageTextNetwork
from storydalle.metrics.reranking import NearestToCaption
from storydalle.metrics.seen import Networks
from storydalle.mistakes import UserError, told_in_one_line
from storydalle.models import kinds, zoo
from storydalle.models.pretrained import PretrainedModel
from storydalle.stories.images import to_images, to_pixels, to_tensor
from storydalle.stories.resizing import at_size
from storydalle.stories.story import Stories, StoryBatch, batch_of
from storydalle.training.building import MODEL
from storydalle.training.runs import METRICS, State, state_of

if TYPE_CHECKING:
    from storydalle.models.story_dalle.model import StoryDALLE

FIRST_DRAWN = "first drawn"  # the candidate that is scored where nothing chooses
Inputs = tuple[list[str], Real[np.ndarray, "h w 3"]]  # captions, and a source frame
Choice = Callable[[Stories, int], Inputs]


def as_judged(frames: Tensor, resolution: int, interpolation: str) -> Tensor:
    """Frames ``(b, f, c, h, w)`` in [-1, 1] as if read from files for judging: 8 bits, then resized."""
    pictures = to_images(rearrange(frames, "b f c h w -> (b f) c h w"))
    sized = to_tensor(np.stack([at_size(picture, resolution, interpolation) for picture in pictures]))
    return rearrange(sized, "(b f) c h w -> b f c h w", b=len(frames))


class Entry(ABC):
    """Frames for the stories of a split, from any origin."""

    name: str

    @abstractmethod
    def frames(self, split: Split, start: int, stop: int) -> Tensor:
        """Frames of some stories, (b, f, c, h, w) in [-1, 1], of any size; padded as ``StoryBatch``."""

    def judged(self, frames: Tensor, split: Split) -> Tensor:
        """The same frames, prepared for judging."""
        return as_judged(frames, split.resolution, split.interpolation)

    @abstractmethod
    def about(self) -> dict[str, object]:
        """Facts about the system that made the frames, for the record."""


# ------------------------------------------------------------------------------------------------ models


def own_inputs(stories: Stories, index: int) -> Inputs:
    story = stories[index]
    return story.captions, story.source


class ModelEntry(Entry):
    """Frames that a model draws; ``choose`` gives the captions and the source of a story."""

    def __init__(
        self,
        name: str,
        folder: Path,
        model: PretrainedModel,
        seed: int,
        num_candidates: int = 1,
        reranker: ImageTextNetwork | None = None,
        choose: Choice = own_inputs,
    ) -> None:
        self.name, self.folder, self.model, self.seed = name, folder, model, seed
        self.num_candidates, self.reranker, self.choose = num_candidates, reranker, choose

    def frames(self, split: Split, start: int, stop: int) -> Tensor:
        stories = split.at(self.model.resolution)
        if self.choose is own_inputs:
            inputs: list[Inputs] = [
                (story.captions, story.source) for story in split.group(start, stop, self.model.resolution)
            ]
        else:
            inputs = [self.choose(stories, index) for index in range(start, stop)]
        captions, sources = [each[0] for each in inputs], to_tensor(np.stack([each[1] for each in inputs]))
        judge = None if self.reranker is None else NearestToCaption(self.reranker, captions)
        choose = None if judge is None else judge.choose
        drawn = self.model.draw_stories(captions, sources, self.seed, start, self.num_candidates, choose)
        drawn = to_tensor(to_pixels(drawn.cpu()))  # as the pictures that are saved
        return drawn[:, :, 0] if judge is None else judge.chosen(drawn)

    def varied(self, seed: int | None = None, choose: Choice = own_inputs) -> "ModelEntry":
        """The same model under another seed, or with other inputs."""
        seed = self.seed if seed is None else seed
        return ModelEntry(self.name, self.folder, self.model, seed, self.num_candidates, self.reranker, choose)

    def about(self) -> dict[str, object]:
        chosen_by = self.model.candidates_by if self.reranker is None else self.reranker.name
        return {
            "model": str(self.folder.name if self.folder.parent == zoo.zoo_folder() else self.folder),
            "resolution": self.model.resolution,
            "weights_sha256": zoo.weights_sha256(self.folder),
            "sampling": vars(self.model.sampling()),
            "best_of": self.num_candidates,
            "chosen_by": chosen_by or FIRST_DRAWN,
            "seed": seed if isinstance(seed := self.model.card.get("seed"), int) else None,
            "cost": {**recorded_cost(self.folder), "parameters": sum(each.numel() for each in self.model.parameters())},
        }


def recorded_cost(model: Path) -> Mapping[str, object]:
    """The cost of the training that made a model, where its run lies around it."""
    run = object_if_whole(model.parent / METRICS) or {}
    cost = run.get("cost")
    return cost if isinstance(cost, dict) else {}


# ------------------------------------------------------------------------------------------------ pictures


class SizedEntry(Entry):
    """Frames that already have the size for judging."""

    def judged(self, frames: Tensor, split: Split) -> Tensor:
        return frames


class FolderEntry(SizedEntry):
    """Pictures in a folder."""

    def __init__(self, name: str, drawn: DrawnFrames, survey: Survey, kept: frozenset[str]) -> None:
        """``kept`` are ids of the stories that can be scored."""
        self.name, self.drawn, self.survey, self.kept = name, drawn, survey, kept

    def frames(self, split: Split, start: int, stop: int) -> Tensor:
        stories = split.group(start, stop)
        with told_in_one_line(""):
            frames = [to_tensor(self.drawn.read(story.id)) for story in stories]
        longest = max(len(each) for each in frames)
        return torch.stack([F.pad(each, (0, 0, 0, 0, 0, 0, 0, longest - len(each))) for each in frames])

    def about(self) -> dict[str, object]:
        return {"images": self.survey.record()}


class CeilingEntry(Entry):
    """True frames passed through the part of a model that limits its quality: an upper limit for the model."""

    def __init__(self, name: str, resolution: int, limit: Callable[[Tensor], Tensor]) -> None:
        self.name, self.resolution, self.limit = name, resolution, limit

    def frames(self, split: Split, start: int, stop: int) -> Tensor:
        frames = batch_of(split.group(start, stop, self.resolution)).frames
        images = self.limit(rearrange(frames, "b f c h w -> (b f) c h w"))
        return rearrange(images, "(b f) c h w -> b f c h w", b=len(frames))

    def about(self) -> dict[str, object]:
        return {}


class MadeEntry(SizedEntry):
    """Frames made from the true ones: an upper limit or a simple baseline."""

    def __init__(self, name: str, make: Callable[[StoryBatch], Tensor]) -> None:
        self.name, self.make = name, make

    def frames(self, split: Split, start: int, stop: int) -> Tensor:
        return self.make(split.batch(start, stop))

    def about(self) -> dict[str, object]:
        return {}


# ------------------------------------------------------------------------------------------------ finding them


def entries_of(
    settings: EvaluationSettings,
    models: Mapping[str, PretrainedModel],
    folders: Mapping[str, Path],
    pictures: Sequence["FolderEntry"],
    networks: Networks,
) -> dict[str, Entry]:
    """Upper limits and baselines, then the models, then the folders of pictures."""
    entries: list[Entry] = [MadeEntry(REAL, lambda batch: batch.frames)]
    limits = {name: (model.resolution, limit) for model in models.values() for name, limit in model.ceilings().items()}
    entries += [CeilingEntry(name, *limit) for name, limit in limits.items()]
    entries.append(MadeEntry(COPY, lambda batch: repeat(batch.source, "b c h w -> b f c h w", f=batch.frames.shape[1])))
    if models and settings.data.name == "toon" and settings.text_to_image is not None:
        folder = kinds.locate(settings.text_to_image)
        entries.append(ModelEntry(TEXT_TO_IMAGE, folder, kinds.open_model(folder), settings.seed))
    reranker = None
    if settings.num_candidates > 1 and settings.reranker == "clip":
        reranker = networks.text or open_text_network(settings.protocol.text_network or "clip")
    entries += [best_entry(name, folders[name], model, settings, reranker) for name, model in models.items()]
    return {entry.name: entry for entry in [*entries, *pictures]}


def best_entry(
    name: str, folder: Path, model: PretrainedModel, settings: EvaluationSettings, reranker: ImageTextNetwork | None
) -> ModelEntry:
    """A model's entry; its row tells of how many candidates the best is scored, where something chooses among them."""
    number, chosen_by = settings.num_candidates, model.candidates_by if reranker is None else settings.reranker
    if number > 1 and chosen_by is None:
        print(f"note: {name} puts its candidates in no order, so one is drawn and scored; reranker=clip chooses")
        number = 1
    row = name if number == 1 else f"{name} (best of {number} by {chosen_by})"
    return ModelEntry(row, folder, model, settings.seed, number, reranker)


def tested_models(entries: Mapping[str, Entry]) -> dict[str, "ModelEntry"]:
    """The models to be scored, without the baseline."""
    return {name: entry for name, entry in entries.items() if isinstance(entry, ModelEntry) and name != TEXT_TO_IMAGE}


def tested_rows(entries: Mapping[str, Entry]) -> list[str]:
    """Rows of a comparison: the entries without limits and baselines, then the text-to-image model."""
    return [name for name in entries if name not in CEILINGS] + [name for name in entries if name == TEXT_TO_IMAGE]


def folders_of_rows(rows: Iterable[str]) -> dict[str, str]:
    """A folder name for each row: the last part of its model's path, or the whole path if two rows share that."""
    shortest = {row: Path(row).parent.name if Path(row).name == MODEL else Path(row).name for row in rows}
    shared = Counter(shortest.values())
    return {row: file_name(short if short and shared[short] == 1 else row) for row, short in shortest.items()}


# ------------------------------------------------------------------------------------------------ folders


def check_folders(settings: EvaluationSettings) -> None:
    """Refuse, before any work, folders that are not there or hold nothing."""
    with told_in_one_line(""):
        for folder in settings.images:
            files_of_pictures(user_path(folder))


def open_folders(settings: EvaluationSettings, split: Split) -> list[FolderEntry]:
    """The folders of pictures to score; each is surveyed, and its problems are reported."""
    options: Options = {"interpolation": split.interpolation, "scored": split.judged.ids()}
    options["others"] = OtherSplits(settings.data.name, split.name)
    if settings.stories_per_batch is not None:
        options["stories_per_batch"] = settings.stories_per_batch
    whole = split.whole() if settings.images else split.judged
    return [open_folder(folder, settings, whole, options) for folder in settings.images]


def open_folder(folder: str, settings: EvaluationSettings, whole_split: Stories, options: Options) -> FolderEntry:
    with told_in_one_line(""):
        drawn = DrawnFrames.of(folder, whole_split, settings.layout, **options)
        survey = surveyed(drawn)
        kept = survey.check(settings.allow_partial)
    for note in survey.notes:
        print(f"note: {folder}: {note}")
    return FolderEntry(folder, drawn, survey, frozenset(kept))


def without_gaps(split: Split, pictures: Sequence[FolderEntry]) -> Split:
    """The stories that are complete in all folders."""
    kept = set(split.judged.ids()).intersection(*(entry.kept for entry in pictures))
    if not kept:
        raise UserError(f"images={[entry.name for entry in pictures]}: no story is whole in all of them")
    return split.only(kept)


class OtherSplits(Container[str]):
    """The ids of stories in other splits, whose pictures may be in the same folder."""

    def __init__(self, dataset: str, split: str) -> None:
        self.dataset, self.split = dataset, split

    def __contains__(self, story: object) -> bool:
        dataset, _, rest = str(story).partition("/")
        return dataset == self.dataset and "/" in rest and rest.partition("/")[0] != self.split


def surveyed(drawn: DrawnFrames) -> Survey:
    with tqdm(desc="looking at the pictures", unit="story", disable=None, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return drawn.survey(progress=advance)


# ------------------------------------------------------------------------------------------------ models


def find_models(settings: EvaluationSettings) -> dict[str, Path]:
    """The folders of the models to score, by the names of their rows: those named, then a sweep's (``compare``)."""
    return {name: kinds.locate(name) for name in settings.model} | swept_models(settings.compare)


def swept_models(compare: str | None) -> dict[str, Path]:
    if compare is None:
        return {}
    runs = user_path(compare)
    found = sorted(path.parent for path in runs.glob(f"**/{MODEL}/{zoo.CONFIG_NAME}"))
    whole = [folder for folder in found if state_of(folder.parent) is not State.PRUNED]  # of runs as long as the others
    if not whole:
        raise UserError(f"compare={runs} holds no model: give the folder of a sweep's finished runs")
    names = {folder.parent.relative_to(runs).as_posix(): folder for folder in whole}
    return dict(sorted(names.items(), key=lambda item: not item[0].startswith("full")))  # what the others differ from


def open_models(folders: Mapping[str, Path], compare: str | None) -> dict[str, PretrainedModel]:
    """Models by the names of their rows; those of a sweep must draw in the same way to be compared."""
    opened = {name: kinds.open_model(folder) for name, folder in folders.items()}
    check_alike({name: opened[name] for name in swept_models(compare)})
    return opened


def check_alike(opened: Mapping[str, PretrainedModel]) -> None:
    """Refuse models that draw at different sizes, or with different sampling: their rows could not be compared."""
    if not opened:
        return
    (first, one), *others = opened.items()
    for name, other in others:
        for setting, values in {
            "resolution": (one.resolution, other.resolution),
            "sampling": (one.sampling(), other.sampling()),
        }.items():
            if values[0] != values[1]:
                raise UserError(
                    f"{first} and {name} differ in {setting} ({values[0]} and {values[1]}): "
                    "put the same into their card.json, or compare them apart"
                )


def open_story_dalle(folder: Path) -> "StoryDALLE":
    """A StoryDALL-E, for its image tokenizer; other kinds of models are refused."""
    from storydalle.models.story_dalle.model import StoryDALLE

    model = kinds.open_model(folder)
    if not isinstance(model, StoryDALLE):
        raise UserError(f"model={folder} is no StoryDALL-E: give one, whose image tokenizer is needed here")
    return model
