"""VIST: stories of five photos of an album, told in sequence or described one by one (data/vist/README.md)."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from storydalle.files.paths import user_path
from storydalle.files.reading import files_of, read_json
from storydalle.files.text import clean
from storydalle.stories.pictures import open_photo
from storydalle.stories.story_set import Problem, StoryRecord, StorySet, find_root

SPLITS = ("train", "val", "test")
NUM_FRAMES = 5
SUFFIXES = (".jpg", ".png", ".jpeg", ".gif")  # The first of them wins where a photo lies there twice.
MAX_COPIES = 5  # More photos than these with the same bytes are no photos.
ANNOTATIONS = {"sis": "story-in-sequence", "dii": "description-in-isolation"}


class Sentence(NamedTuple):
    """A sentence of a story, and its photo."""

    photo: str
    text: str
    album: str
    order: int | None


class VIST(StorySet):
    """Stories of VIST whose five photos all exist; clips are photo ids.

    ``text="sis"`` tells a story; ``"dii"`` describes each photo of the same stories on its own, by the longest of its
    descriptions. ``photos`` is the folder of the photos, absolute or below ``root``: named by photo id, in it or in
    its subfolders ``train``, ``val`` and ``test``.

    The photos that still exist differ between copies, and so does the number of stories: publish the ids that
    ``storydalle prepare`` writes.
    """

    name = "vist"
    whole = "albums"

    def __init__(
        self,
        root: str | Path | None,
        num_targets: int = NUM_FRAMES - 1,
        text: str = "sis",
        photos: str | Path = "images",
    ) -> None:
        super().__init__(root)
        if not 1 <= num_targets < NUM_FRAMES:
            raise ValueError(
                f"num_targets={num_targets}: a story of VIST has a source and 1 to {NUM_FRAMES - 1} targets"
            )
        if text not in ANNOTATIONS:
            raise ValueError(f"text={text} is no text of VIST: give sis (the story) or dii (descriptions)")
        self.num_targets, self.text = num_targets, text
        name = ANNOTATIONS["sis"]
        find_root(
            self.root,
            "VIST",
            (f"train.{name}.json", f"sis/train.{name}.json"),
            f"give the folder that holds sis/train.{name}.json and the photos",
        )
        self._photos = _list_photos(self.root / user_path(photos))
        descriptions = self._descriptions() if text == "dii" else None
        self._records = {}
        for split in SPLITS:
            self._records[split] = self._stories(split, descriptions)

    def pictures(self, clip: str) -> list[Image.Image]:
        return [open_photo(self.clip_file(clip))]

    def clip_file(self, clip: str) -> Path:
        return self._photos[clip]

    def annotation_files(self) -> list[Path]:
        kinds = ("sis",) if self.text == "sis" else ("sis", "dii")
        return [self._annotation_file(kind, split) for kind in kinds for split in SPLITS]

    def replaced(self, hashes: Mapping[str, str]) -> set[str]:
        """Clips whose file is a placeholder: more than ``MAX_COPIES`` photos have the same bytes.

        ``hashes`` gives each clip the hash of its file. Only this shows a photo that its host has replaced; stories
        with one of them are to be left out, as those with a missing photo are.
        """
        copies = Counter(hashes.values())
        return {clip for clip, value in hashes.items() if copies[value] > MAX_COPIES}

    def unusable(self, hashes: Mapping[str, str]) -> list[Problem]:
        what = f"replaced photo: more than {MAX_COPIES} photos have these bytes"
        return [Problem(clip, what) for clip in sorted(self.replaced(hashes))]

    def _annotation_file(self, kind: str, split: str) -> Path:
        name = f"{split}.{ANNOTATIONS[kind]}.json"
        return self.root / name if (self.root / name).is_file() else self.root / kind / name

    def _descriptions(self) -> dict[str, str]:
        """Photo -> the longest of its descriptions, the first of equally long ones; those of all splits."""
        longest: dict[str, str] = {}
        for split in SPLITS:
            for _, row in _rows(self._annotation_file("dii", split), in_stories=False):
                if len(row.text) > len(longest.get(row.photo, "")):
                    longest[row.photo] = row.text
        return longest

    def _stories(self, split: str, descriptions: Mapping[str, str] | None) -> list[StoryRecord]:
        path = self._annotation_file("sis", split)
        stories: dict[str, list[Sentence]] = defaultdict(list)
        for story, row in _rows(path, in_stories=True):
            stories[story].append(row)
        taken = {record.id for records in self._records.values() for record in records}
        records, left_out = [], []
        for story, rows in stories.items():
            rows = _in_order(rows)
            texts = [row.text if descriptions is None else descriptions.get(row.photo, "") for row in rows]
            if what := "in two splits: left out here" if story in taken else self._fault(rows, texts):
                left_out.append(Problem(story, f"{what} ({split})"))
                continue
            rows, texts = rows[: self.num_targets + 1], texts[: self.num_targets + 1]
            group = rows[0].album or f"story {story}"
            records.append(StoryRecord(story, tuple(row.photo for row in rows), tuple(texts), group))
        self.problems += left_out
        if not records:
            why = f"; the first, {left_out[0].where}: {left_out[0].what}" if left_out else ""
            raise ValueError(f"{path} gives no story of {len(stories)}{why}")
        return records

    def _fault(self, rows: Sequence[Sentence], texts: Sequence[str]) -> str | None:
        """The reason why a story is left out. All its five photos count, whatever the number of targets."""
        if len(rows) != NUM_FRAMES:
            length = "short" if len(rows) < NUM_FRAMES else "long"
            return f"{length} story: {len(rows)} frames of {NUM_FRAMES}"
        missing = list(dict.fromkeys(row.photo for row in rows if row.photo not in self._photos))
        if missing:
            return f"missing photo: {', '.join(missing)}"
        # A source needs no text of the story; a photo without any description drops its story in every public loader.
        needed = range(NUM_FRAMES) if self.text == "dii" else range(1, NUM_FRAMES)
        silent = [rows[i].photo for i in needed if not texts[i]]
        return f"no caption: of photo {', '.join(silent)}" if silent else None


def _list_photos(folder: Path) -> dict[str, Path]:
    """Photo id -> its file."""
    photos: dict[str, Path] = {}
    for place in (folder, *(folder / split for split in SPLITS)):
        named = [(Path(name), place / name) for name in files_of(place)]
        for suffix in SUFFIXES:
            photos |= {
                name.stem: path
                for name, path in sorted(named)
                if name.suffix.lower() == suffix and name.stem not in photos
            }
    if not photos:
        raise ValueError(f"{folder} holds no photo (<photo id>.jpg): set data.photos to the folder of the photos")
    return photos


def _rows(path: Path, in_stories: bool) -> Iterable[tuple[str, Sentence]]:
    """The rows of an annotation file, with their stories if they have one."""
    content = read_json(path)
    annotations = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(annotations, list):
        raise ValueError(f"{path} has no list annotations: take the file of the VIST release")
    for index, boxed in enumerate(annotations):
        where = f"annotation {index} of {path}"
        if not (isinstance(boxed, list) and len(boxed) == 1 and isinstance(boxed[0], dict)):
            raise ValueError(f"{where} is no list of one row: take the file of the VIST release")
        row = boxed[0]
        text, order = row.get("original_text"), row.get("worker_arranged_photo_order")
        if not isinstance(text, str):
            raise ValueError(f"{where} has no original_text: take the file of the VIST release")
        story = _id(row, "story_id", where) if in_stories else ""
        photo = _id(row, "photo_flickr_id", where)
        album = _id(row, "album_id", where) if row.get("album_id") is not None else ""
        yield story, Sentence(photo, clean(text), album, order if isinstance(order, int) else None)


def _id(row: Mapping[str, object], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        raise ValueError(f"{where} has no {key}: take the file of the VIST release")
    return str(value).strip()


def _in_order(rows: list[Sentence]) -> list[Sentence]:
    """Rows in the order of the story's author, or in that of the file if it does not say."""
    if all(row.order is not None for row in rows):
        return sorted(rows, key=lambda row: row.order or 0)
    return rows
