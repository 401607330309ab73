"""A folder with one story: numbered pictures, and captions.txt, one text file for each picture, or metadata."""

from pathlib import Path
from typing import NamedTuple

from storydalle.files.reading import read_text
from storydalle.files.text import clean, split_lines
from storydalle.stories.own_story import OwnStory, RefusedStory, checked_captions, in_order, is_picture, natural_order
from storydalle.stories.sets.frame_tables import TablePlace, read_frame_table
from storydalle.stories.story_set import Problem

CAPTIONS = "captions.txt"
METADATA = ("metadata.jsonl", "metadata.csv")


class FolderFiles(NamedTuple):
    """The entries of a folder by their possible role in a story, without hidden ones."""

    pictures: list[Path]
    captions: list[Path]  # captions.txt, however it is capitalised
    tables: list[Path]
    texts: list[Path]  # other .txt files
    folders: list[Path]
    others: list[Path]

    @classmethod
    def of(cls, folder: Path) -> "FolderFiles":
        found = cls([], [], [], [], [], [])
        for path in sorted(folder.iterdir(), key=lambda path: natural_order(path.name)):
            name = path.name.casefold()
            if name.startswith("."):
                continue
            if path.is_dir():
                found.folders.append(path)
            elif is_picture(path):
                found.pictures.append(path)
            elif name == CAPTIONS:
                found.captions.append(path)
            elif name in METADATA:
                found.tables.append(path)
            elif path.suffix.casefold() == ".txt":
                found.texts.append(path)
            else:
                found.others.append(path)
        return found

    @property
    def texts_of_pictures(self) -> list[Path]:
        stems = {picture.stem for picture in self.pictures}
        return [text for text in self.texts if text.stem in stems]

    @property
    def captioned_by(self) -> list[Path]:
        """The files that captions can be read from; of several texts only the first."""
        return [*self.captions, *self.tables, *self.texts_of_pictures[:1]]


def read_story_folder(id: str, split: str | None, files: FolderFiles) -> tuple[list[OwnStory], list[Problem]]:
    """The story of a folder (none, or several if its metadata has a column ``story``), and its problems."""
    is_paired = files.captioned_by == files.texts_of_pictures[:1] != []
    strays = files.others if is_paired else {*files.others, *files.texts} - {*files.texts_of_pictures}
    problems = [Problem(f"{id}/{path.name}", "not a picture: it is no frame of the story") for path in strays]
    problems += [Problem(f"{id}/{path.name}", "a folder in a story: nothing in it is read") for path in files.folders]
    problems.sort()
    try:
        if not files.captioned_by:
            raise RefusedStory(f"no captions: {CAPTIONS} is missing")
        if len(files.captioned_by) > 1:
            one, other = (path.name for path in files.captioned_by[:2])
            raise RefusedStory(f"two lists of captions: {one} and {other}; keep one")
        if files.tables:
            stories, found = read_frame_table(files.tables[0], TablePlace(f"{id}/", is_story=True, split=split))
            return stories, [*problems, *found]
        return [(_by_texts if is_paired else _by_lines)(id, split, files)], problems
    except RefusedStory as refused:
        return [], [*problems, Problem(refused.where or id, str(refused))]


def written_lines(path: Path) -> list[str]:
    """Cleaned lines of a text file, without empty lines at the end."""
    lines = [clean(line) for line in split_lines(read_text(path))]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def _by_lines(id: str, split: str | None, files: FolderFiles) -> OwnStory:
    where = f"{id}/{files.captions[0].name}"
    try:
        frames = in_order([picture.name for picture in files.pictures])
        captions = checked_captions(written_lines(files.captions[0]), len(frames))
    except RefusedStory as refused:
        line = f":{refused.line}" if refused.line else ""
        raise RefusedStory(str(refused), where=refused.where or f"{where}{line}") from refused
    return OwnStory(id, where, split, tuple(f"{id}/{frame}" for frame in frames), captions)


def _by_texts(id: str, split: str | None, files: FolderFiles) -> OwnStory:
    """Captions from text files with the names of the pictures; that of the source may be missing."""
    frames = in_order([picture.name for picture in files.pictures])
    texts: dict[str, Path] = {}
    stems = {picture.stem for picture in files.pictures}
    for text in files.texts:
        if text.stem not in stems:
            raise RefusedStory("no picture of its name: add it, or take the text away", where=f"{id}/{text.name}")
        if text.stem in texts:
            raise RefusedStory(f"a text twice: {texts[text.stem].name} and {text.name}", where=f"{id}/{text.name}")
        texts[text.stem] = text
    captions = [_only_line(texts[stem], id) if (stem := Path(frame).stem) in texts else "" for frame in frames]
    try:
        captions = list(checked_captions(captions, len(frames)))
    except RefusedStory as refused:
        stem = Path(frames[refused.line - 1]).stem if refused.line else ""
        raise RefusedStory(str(refused), where=f"{id}/{stem}.txt" if stem else id) from refused
    return OwnStory(id, id, split, tuple(f"{id}/{frame}" for frame in frames), tuple(captions))


def _only_line(text: Path, id: str) -> str:
    lines = [line for line in written_lines(text) if line]
    if len(lines) > 1:
        raise RefusedStory(f"{len(lines)} lines: a picture's text is its one caption", where=f"{id}/{text.name}:2")
    return lines[0] if lines else ""
