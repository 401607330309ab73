"""The same stories as each run drew them while it trained, one below the other."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from storydalle.mistakes import told_in_one_line
from storydalle.reporting.report_scores import Comparison
from storydalle.stories.pictures import open_picture

DRAWN_IN_TRAINING = re.compile(r"step-(\d+)-story-(\d+)\.png")
MAX_LINES, MAX_STORIES = 8, 2
LARGEST = (1000, 1000)


class SharedStory(NamedTuple):
    """A story, and the strips of it that the lines of a table have, by a heading for each."""

    number: int
    strips: dict[str, Image.Image]


def shared_stories(found: Comparison) -> list[SharedStory]:
    """The last strips of the first run of each line, of the stories that several lines have drawn."""
    drawn = {line: last_strips(runs[0].folder / "strips") for line, runs in found.runs.items()}
    drawn = dict([(line, strips) for line, strips in drawn.items() if strips][:MAX_LINES])
    stories: list[SharedStory] = []
    for number in sorted({number for strips in drawn.values() for number in strips}):
        strips = {line: own[number] for line, own in drawn.items() if number in own}
        if len(strips) > 1 and len(stories) < MAX_STORIES:
            shown = {heading(line, path): opened(path) for line, path in strips.items()}
            stories.append(SharedStory(number, shown))
    return stories


def last_strips(folder: Path) -> dict[int, Path]:
    """The newest strip of each story, by its number."""
    return {number: path for _, number, path in sorted(strips_in(folder))}


def strips_in(folder: Path) -> Iterable[tuple[int, int, Path]]:
    """Step, number of the story and file of each strip."""
    for path in folder.glob("step-*-story-*.png"):
        if (name := DRAWN_IN_TRAINING.fullmatch(path.name)) and not path.is_symlink():
            yield int(name[1]), int(name[2]), path


def heading(line: str, strip: Path) -> str:
    name = DRAWN_IN_TRAINING.fullmatch(strip.name)
    return f"{line}, step {int(name[1])}" if name else line


def opened(path: Path) -> Image.Image:
    with told_in_one_line(f"{path} cannot be shown"):
        picture = open_picture(path)
    picture.thumbnail(LARGEST)
    return picture
