"""openstory: illustrated books under open licences, cut into windows of consecutive pages (data/openstory)."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeGuard

from PIL import Image

from storydalle.files.json_values import Json, JsonObject, are_texts, as_list, as_object, as_text
from storydalle.files.reading import read_json, read_text
from storydalle.files.text import clean, parsed
from storydalle.stories.pictures import ClipError, open_picture
from storydalle.stories.story_set import Problem, StoryRecord, StorySet, find_root, fixed_choice

SPLITS = ("train", "val", "test")
TENTHS = ("train",) * 8 + ("val", "test")
TEXTS = ("narration", "description")


class Attribution(NamedTuple):
    """The credit to show with the pictures of a story; ``str`` gives it as one line."""

    title: str
    creator: str
    license: str
    source: str

    def __str__(self) -> str:
        return f'"{self.title}" by {self.creator}; {self.source}; {self.license}; images resized and re-encoded'


class Page(NamedTuple):
    image: str  # path below the root: the key of a clip
    size: tuple[int, int]  # width, height
    text: str


class OpenStory(StorySet):
    """Windows of 1 + ``num_targets`` consecutive pages of a book, one every ``stride`` pages.

    ``text`` chooses the captions: "narration", the text of the story, or "description", what the picture shows (Book
    Dash only). Windows are left out if a frame's shorter side is below ``min_side`` pixels, or its longer side is more
    than ``max_ratio`` times the shorter one. ``drop_empty`` also leaves out windows with a target without text;
    ``num_empty`` counts these in any case.
    """

    name = "openstory"
    to_fill_a_split = "the copy has too few groups of stories, or none long enough"
    whole = "books"

    def __init__(
        self,
        root: str | Path | None,
        num_targets: int = 4,
        stride: int = 1,
        text: str = "narration",
        drop_empty: bool = False,
        min_side: int = 128,
        max_ratio: float | None = 3.5,
    ) -> None:
        super().__init__(root)
        if num_targets < 1 or stride < 1:
            raise ValueError(f"num_targets={num_targets} and stride={stride}: both are 1 or more")
        if text not in TEXTS:
            raise ValueError(f"text={text} is none of {', '.join(TEXTS)}")
        if max_ratio is not None and max_ratio < 1:
            raise ValueError(f"max_ratio={max_ratio} leaves out every frame: give 1 or more, or null for no limit")
        find_root(self.root, "openstory", ["groups.json"], "give the folder that holds stories.jsonl and groups.json")
        self.num_targets, self.stride, self.text, self.drop_empty = num_targets, stride, text, drop_empty
        self.min_side, self.max_ratio = min_side, max_ratio
        self.attributions: dict[str, Attribution] = {}  # by story
        self.num_empty = 0
        self._pages: dict[str, list[Page]] = {}  # by story
        self._read_stories(self.root / "stories.jsonl")
        self._groups = self._read_groups(self.root / "groups.json")
        self._stories = {page.image: story for story, pages in self._pages.items() for page in pages}
        self._sizes = {page.image: page.size for pages in self._pages.values() for page in pages}
        self._records = {split: [] for split in SPLITS}
        for record in self._windows():
            self._records[split_of(record.group)].append(record)

    def pictures(self, clip: str) -> list[Image.Image]:
        picture, (width, height) = open_picture(self.clip_file(clip)), self._sizes[clip]
        if picture.size != (width, height):
            raise ClipError(f"wrong shape: {picture.width}x{picture.height} pixels, not {width}x{height}")
        return [picture]

    def clip_file(self, clip: str) -> Path:
        return self.root / clip

    def annotation_files(self) -> list[Path]:
        return [self.root / "stories.jsonl", self.root / "groups.json"]

    def attribution(self, record: StoryRecord) -> Attribution:
        return self.attributions[self._stories[record.clips[0]]]

    def credit(self, record: StoryRecord) -> str:
        return str(self.attribution(record))

    def contents(self) -> dict[str, int]:
        lengths = [len(pages) for pages in self._pages.values()]
        windows = sum(len(range(0, length - self.num_targets, self.stride)) for length in lengths)
        return {
            self.whole: len(lengths),
            "pages": sum(lengths),
            "groups of books that share pictures or a title": len(set(self._groups.values())),
            f"windows of 1 + {self.num_targets} pages": windows,
        }

    def _read_stories(self, path: Path) -> None:
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            if not line.strip():
                continue
            where = f"{path.name}:{number}"
            try:
                story, attribution, pages = self._row(as_object(parsed(line)))
            except (KeyError, TypeError, ValueError) as error:
                reason = f"lacks {error}" if isinstance(error, KeyError) else f"is no story: {error}"
                raise ValueError(f"{path}, line {number} {reason}; take the pack's own file") from error
            if story in self._pages:
                self.problems.append(Problem(where, f"duplicate story: {story}"))
            else:
                self._pages[story], self.attributions[story] = pages, attribution
        if not self._pages:
            raise ValueError(f"{path} holds no story: take the pack's own file")

    def _row(self, row: JsonObject) -> tuple[str, Attribution, list[Page]]:
        fields = [as_text(row[key]) for key in ("story_id", *Attribution._fields)]
        pages = []
        for page in map(as_object, as_list(row["pages"])):
            image, (width, height) = PurePosixPath(as_text(page["image"])), as_list(page["size"])
            if image.is_absolute() or ".." in image.parts:
                raise ValueError(f"{image} leaves the folder")
            if not (isinstance(width, int) and isinstance(height, int) and min(width, height) > 0):
                raise ValueError(f"{image} has the size {width!r} x {height!r}")
            text = {key: clean(as_text(page[key])) for key in TEXTS}
            pages.append(Page(str(image), (width, height), text[self.text]))
        return fields[0], Attribution(*fields[1:]), pages

    def _read_groups(self, path: Path) -> dict[str, str]:
        """Story -> its group, named after the first story of the group."""
        content = read_json(path)
        if not _are_groups(content):
            raise ValueError(f"{path} is no list of lists of story ids: take the pack's own file")
        groups: dict[str, str] = {}
        for group in content:
            for story in group:
                if story in groups:
                    raise ValueError(f"{path} names {story} twice: a story is in one group, or splits would share it")
                if story not in self._pages:
                    self.problems.append(Problem("groups.json", f"unknown story: {story} is not in stories.jsonl"))
                groups[story] = group[0]
        return groups

    def _windows(self) -> Iterator[StoryRecord]:
        length, num_windows = 1 + self.num_targets, 0
        for story, pages in self._pages.items():
            starts = range(0, len(pages) - length + 1, self.stride)
            if story not in self._groups:
                self.problems.append(Problem(story, "no group: groups.json does not name it"))
                continue
            if not starts:
                self.problems.append(Problem(story, f"short story: {len(pages)} pages, a window has {length}"))
            for start in starts:
                record = self._window(story, pages[start : start + length], start + 1)
                if record is not None:
                    num_windows += 1
                    yield record
        if self.num_empty and not self.drop_empty:
            what = f"empty text: a target of {self.num_empty} of {num_windows} windows has no {self.text}; kept"
            self.problems.append(Problem("stories.jsonl", what))

    def _window(self, story: str, pages: list[Page], first_page: int) -> StoryRecord | None:
        window = f"{story}#{first_page}"
        if degenerate := [page for page in pages if self._is_degenerate(page)]:
            image, (width, height), _ = degenerate[0]
            self.problems.append(Problem(window, f"degenerate frame: {image} has {width}x{height} pixels"))
            return None
        if empty := [page for page in pages[1:] if not page.text]:
            self.num_empty += 1
            if self.drop_empty:
                self.problems.append(Problem(window, f"empty text: {empty[0].image} has no {self.text}"))
                return None
        clips, captions = tuple(page.image for page in pages), tuple(page.text for page in pages)
        return StoryRecord(window, clips, captions, group=self._groups[story])

    def _is_degenerate(self, page: Page) -> bool:
        shorter, longer = sorted(page.size)
        return shorter < self.min_side or (self.max_ratio is not None and longer > self.max_ratio * shorter)


def split_of(group: str) -> str:
    """The split of a group, by a hash: eight tenths, one tenth and one tenth, independent of other groups."""
    return TENTHS[fixed_choice(f"openstory-256/{group}", 10)]


def _are_groups(content: Json) -> TypeGuard[list[list[str]]]:
    return isinstance(content, list) and all(are_texts(group) and group for group in content)
