"""Story sets for the commands: opened on the user's copy, with mistakes reported in one line."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pkgutil import resolve_name

from storydalle.mistakes import UserError, nearest, told_in_one_line
from storydalle.stories.story_set import Problem, StoryRecord, StorySet


@dataclass(frozen=True)
class ChosenData:
    """The config group ``data``: settings that draw ToonSV, or that open the user's copy of another set."""

    name: str
    resolution: int  # pixels of a frame's side
    set: Mapping[str, object] | None = None  # as ``opened`` reads it; ToonSV has none
    train: Mapping[str, object] | None = None  # absent of a set in words only
    val: Mapping[str, object] | None = None


def opened(chosen: Mapping[str, object]) -> StorySet:
    """Open the set of a config's ``data.set`` on the user's copy, and print its notes."""
    options = {key: value for key, value in chosen.items() if key != "_target_"}
    given = ", ".join(f"{key}={value}" for key, value in options.items() if key != "root")
    with (
        told_in_one_line("", ValueError),
        told_in_one_line(f"a setting of data is of the wrong kind ({given})", TypeError),
        told_in_one_line(f"data.root={options.get('root')} cannot be read", OSError),
    ):
        story_set = resolve_name(str(chosen["_target_"]))(**options)
    assert isinstance(story_set, StorySet)
    tell(story_set.notes)
    return story_set


def tell(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {note}")


def stories_of(story_set: StorySet) -> tuple[dict[str, list[StoryRecord]], list[Problem]]:
    """The stories of every split, and all problems; a split that cannot be had is one of them."""
    records: dict[str, list[StoryRecord]] = {}
    empty = []
    for split in story_set.splits:
        try:
            records[split] = story_set.records(split)
        except ValueError as error:
            records[split] = []
            empty.append(Problem(split, f"empty split: {error}"))
    if not any(records.values()):
        raise UserError(f"{story_set.name} has no story: {empty[0].what if empty else 'no split has one'}")
    return records, [*story_set.problems, *empty]


def chosen_split(story_set: StorySet, split: str, is_given: bool) -> str:
    """The split to be shown; the first one if the set lacks the default split."""
    if split in story_set.splits:
        return split
    if is_given:
        raise UserError(f"{story_set.name} has no split {split!r}; {nearest(split, story_set.splits)}")
    return story_set.splits[0]


def spread(number: int, length: int) -> list[int]:
    """At most ``number`` indices, at equal distances from the first on."""
    number = min(number, length)
    return [i * length // number for i in range(number)]
