"""A split: the stories to be judged, at the protocol's size and at the sizes of models."""

from collections.abc import Callable, Collection, Sequence
from functools import lru_cache
from typing import NamedTuple

from storydalle.evaluation.evaluation_settings import EvaluationSettings
from storydalle.mistakes import UserError, nearest, told_in_one_line
from storydalle.settings import mapping
from storydalle.stories.drawn_worlds import WORLDS, World
from storydalle.stories.opening import chosen_split, opened, tell
from storydalle.stories.resizing import LANCZOS
from storydalle.stories.set_stories import SetStories
from storydalle.stories.story import PickedStories, Stories, Story, StoryBatch, batch_of
from storydalle.stories.story_set import StoryRecord, StorySet


class JudgedData(NamedTuple):
    """The data set whose splits are judged."""

    settings: EvaluationSettings
    splits: list[str]
    story_set: StorySet | None  # None for a world that is drawn

    @classmethod
    def of(cls, settings: EvaluationSettings) -> "JudgedData":
        """The requested splits, else those of the protocol, else one that has stories."""
        asked, splits = list(settings.splits), list(settings.splits or settings.protocol.splits)
        if "set" not in settings.data.config:
            name, known = settings.data.name, WORLDS[settings.data.name].splits
            for split in splits:
                if split not in known:
                    raise UserError(f"{name} has no split {split!r}; {nearest(split, known)}")
            return cls(settings, splits, None)
        story_set = opened(mapping("data.set", settings.data.config["set"]))
        tell(story_set.problem_notes)
        if not asked:
            had = [split for split in splits if split in story_set.splits]
            instead = "val" if "val" in story_set.splits else story_set.splits[0]  # val's stories were not trained on
            tell([] if had else [f"{' and '.join(splits)} has no story: {instead} is scored instead"])
            splits = had or [instead]
        return cls(settings, [chosen_split(story_set, split, is_given=True) for split in splits], story_set)

    @property
    def characters(self) -> Sequence[str]:
        return self.world.characters if self.story_set is None else self.story_set.characters

    @property
    def world(self) -> World:
        """The drawn world, where there is no set of stories."""
        return WORLDS[self.settings.data.name]

    def split(self, name: str) -> "Split":
        protocol = self.settings.protocol
        judged = self.stories(name, protocol.resolution, interpolation=protocol.interpolation)
        return Split(self, name, judged, lambda resolution: self.stories(name, resolution))

    def stories(self, split: str, resolution: int, whole: bool = False, interpolation: str = LANCZOS) -> Stories:
        """The stories that are judged, or the whole split."""
        number = None if whole else self.settings.num_stories or self.settings.protocol.num_stories
        data = self.settings.data
        with told_in_one_line(""):
            if self.story_set is None:
                return self.world.stories(split, number, num_targets=data.num_targets, resolution=resolution)
            ids = data.config["ids"]
            ids = None if ids is None else str(ids)
            return SetStories(self.story_set, split, resolution, number, ids, interpolation=interpolation)


class Split:
    """The stories of a split to be judged. The last batches are cached, since every entry needs them."""

    def __init__(
        self,
        data: JudgedData,
        name: str,
        judged: Stories,
        open_at: Callable[[int], Stories],
        left_out: Sequence[str] = (),
    ) -> None:
        """``left_out`` are ids of stories that are not judged because pictures of them are missing."""
        self.data, self.name, self.judged, self.left_out = data, name, judged, left_out
        self.resolution, self.interpolation = judged.resolution, data.settings.protocol.interpolation
        self.at = lru_cache(maxsize=None)(open_at)
        self.group = lru_cache(maxsize=4)(self._group)

    def __len__(self) -> int:
        return len(self.judged)

    def _group(self, start: int, stop: int, resolution: int | None = None) -> list[Story]:
        """Stories at a resolution; without one, prepared for judging."""
        return (self.judged if resolution is None else self.at(resolution))[start:stop]

    def batch(self, start: int, stop: int) -> StoryBatch:
        """Stories, prepared for judging."""
        return batch_of(self.group(start, stop))

    def picked(self, indices: Sequence[int], left_out: Sequence[str] = ()) -> "Split":
        """Some stories of the split."""

        def pick(stories: Stories) -> Stories:
            return PickedStories(stories, indices)

        return Split(self.data, self.name, pick(self.judged), lambda other: pick(self.at(other)), left_out)

    def only(self, kept: Collection[str]) -> "Split":
        """The stories of these ids; the others are left out."""
        ids = self.judged.ids()
        lost = [name for name in ids if name not in kept]
        return self.picked([i for i, name in enumerate(ids) if name in kept], lost) if lost else self

    def whole(self) -> Stories:
        """All stories of the split, also those that are not judged."""
        return self.data.stories(self.name, self.resolution, whole=True)

    def probing(self, resolution: int) -> Stories:
        """The stories with which a model's own networks are probed; a world draws other sources for them too."""
        if self.data.story_set is not None:
            return self.at(resolution)
        num_targets = self.data.settings.data.num_targets
        world = self.data.world
        return world.stories(self.name, len(self), num_targets=num_targets, resolution=resolution, probes=True)

    @property
    def clusters(self) -> dict[str, str]:
        """The episode or book of each story."""
        records = self.records()
        return {name: records[name].group if name in records else name for name in self.judged.ids()}

    @property
    def num_frames(self) -> int:
        """Of the longest story."""
        return max(len(self.judged.outline(index).captions) for index in range(len(self)))

    def credit(self, index: int) -> str:
        """The credit that must be shown with a story's true frames."""
        record = self.records().get(self.judged.outline(index).id)
        return "" if record is None or self.data.story_set is None else self.data.story_set.credit(record)

    def records(self) -> dict[str, StoryRecord]:
        """The records of a story set by the ids of their stories; none of ToonSV."""
        stories = self.judged
        while isinstance(stories, PickedStories):
            stories = stories.stories
        return dict(zip(stories.ids(), stories.records, strict=True)) if isinstance(stories, SetStories) else {}
