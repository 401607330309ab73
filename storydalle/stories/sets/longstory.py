"""flintstones-longstory: stories of 7 to 14 pages without pictures, for drawing long stories (data/longstory)."""

import re
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from storydalle.files.json_values import Json, JsonObject, as_list, as_object, as_text
from storydalle.files.paths import user_path
from storydalle.files.reading import read_json
from storydalle.files.text import clean
from storydalle.stories.pictures import ClipError
from storydalle.stories.story_set import StoryRecord, StorySet, find_root

# In the order of FlintstonesSV's labels, where "Slate" is called "Mr Slate".
CHARACTERS = ("Wilma", "Fred", "Betty", "Barney", "Dino", "Pebbles", "Slate")
_ALIASES = {"Mr. Slate": "Slate", "Mr Slate": "Slate"}
_NAME = re.compile(r"season[ _](\d+)_episode[ _](\d+)\.json")


class LongStory(NamedTuple):
    id: str  # "season_1_episode_12"
    file: Path
    season: int
    episode: int
    summary: str  # the whole story
    captions: tuple[str, ...]  # one a page
    characters: tuple[tuple[int, ...], ...]  # a page's row of 0 and 1 over ``CHARACTERS``


class LongStories(StorySet):
    """All stories as one split: one clip a page, after a source that has no text and belongs to no page."""

    name = "longstory"
    characters = CHARACTERS
    has_pictures = False

    def __init__(self, root: str | Path | None) -> None:
        super().__init__(root)
        self.stories = read_long_stories(self.root)
        self._records = {"test": [_record(story) for story in self.stories]}

    def pictures(self, clip: str) -> list[Image.Image]:
        raise ClipError(f"missing: {self.name} is words only")

    def clip_file(self, clip: str) -> Path:
        """The story's file."""
        files = {story.id: story.file for story in self.stories}
        return files[clip.partition("/")[0]]

    def annotation_files(self) -> list[Path]:
        return [story.file for story in self.stories]

    def contents(self) -> dict[str, int]:
        return {"pages": sum(len(story.captions) for story in self.stories)}


def _record(story: LongStory) -> StoryRecord:
    return StoryRecord(
        id=story.id,
        clips=tuple(f"{story.id}/{page}" for page in range(len(story.captions) + 1)),
        captions=("", *story.captions),
        group=story.id,
        characters=((0,) * len(CHARACTERS), *story.characters),
    )


def read_long_stories(root: str | Path) -> list[LongStory]:
    """All stories below ``root``, by season and episode; ValueError, naming the file, for a file of another kind."""
    root = find_root(
        user_path(root),
        "flintstones-longstory",
        ["stories/season*_episode*.json"],
        "give the folder that holds stories/",
    )
    stories: dict[str, LongStory] = {}
    for path in sorted((root / "stories").glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            story = _read_story(path)
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            reason = f"it lacks {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path} is no story of flintstones-longstory: {reason}") from error
        if story.id in stories:
            raise ValueError(f"{path} is a second file of {story.id}: keep one of them")
        stories[story.id] = story
    return sorted(stories.values(), key=lambda story: (story.season, story.episode))


def _read_story(path: Path) -> LongStory:
    match = _NAME.fullmatch(path.name)
    if match is None:
        raise ValueError("its name is not season <number>_episode_<number>.json")
    content = as_object(read_json(path))
    pages = [as_object(page) for page in as_list(content["captions_info"])]
    numbers = [page["page_id"] for page in pages]
    if not numbers or numbers != list(range(1, len(pages) + 1)):
        raise ValueError(f"its pages are {numbers}, not 1, 2, 3 and so on")
    season, episode = map(int, match.groups())
    return LongStory(
        id=f"season_{season}_episode_{episode}",
        file=path,
        season=season,
        episode=episode,
        summary=_text(content["full_story"]),
        captions=tuple(_caption(page) for page in pages),
        characters=tuple(_characters(page) for page in pages),
    )


def _caption(page: JsonObject) -> str:
    caption = _text(page["caption"])
    if not caption:
        raise ValueError(f"page {page['page_id']} has no caption")
    return caption


def _characters(page: JsonObject) -> tuple[int, ...]:
    """The characters on a page: either list may lack one of the seven, and only ``char_all_list`` has others."""
    named = set()
    for key in ("char_all_list", "char_kb_list"):
        names = page[key]
        if not isinstance(names, list):
            raise TypeError(f"{key} of page {page['page_id']} is {names!r}, no list of names")
        named |= {_ALIASES.get(_text(name), _text(name)) for name in names}
    return tuple(int(name in named) for name in CHARACTERS)


def _text(value: Json) -> str:
    return clean(as_text(value))
