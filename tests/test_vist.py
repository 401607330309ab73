"""VIST as it is released, and its photos as a user has them after years: some dead, some replaced, some damaged."""

import hashlib
import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from PIL import Image

from storydalle.stories.pictures import ClipError
from storydalle.stories.sets.vist import VIST
from storydalle.stories.story_set import Problem

CONFIG = Path(__file__).parent.parent / "conf" / "data" / "vist.yaml"
FILES = ["1.jpg", "2.png", "3.jpeg", "4.gif", "5.JPG", "6.jpg", "val/7.jpg", "val/8.jpg", "test/9.png"]
REPLACED = [f"2{i}" for i in range(6)]  # photos whose host answers with one and the same picture
HANDFUL = [f"3{i}" for i in range(5)]  # so many photos may be equal
# Story id -> album, photos; the text of photo p in story s is "s tells p" unless TEXTS says otherwise.
STORIES: dict[str, dict[str, tuple[str | None, str]]] = {
    "train": {
        "101": ("A", "1 2 3 4 5"),
        "102": ("A", "1 2 3 4 5"),  # other words for the same photos
        "103": ("B", "1 2 3 4"),
        "104": ("B", "1 2 98 4 99"),
        "105": ("B", "1 2 3 4 5 6"),
        "106": ("B", "5 4 3 2 1"),
        "107": (None, "2 3 4 5 6"),
        "108": ("C", "5 1 2 3 4"),
    },
    "val": {"201": ("D", "20 21 22 23 24"), "202": ("D", "25 1 2 3 4"), "203": ("E", "30 31 32 33 34")},
    "test": {"301": ("F", "9 8 7 2 1"), "101": ("A", "1 2 3 4 5")},
}
TEXTS = {("106", "2"): " ", ("107", "2"): "", ("101", "1"): "They  said |\nhello.", ("108", "5"): "Last in the file"}
# Photo -> its descriptions, in the file of the split. Photo 6 has none.
DESCRIPTIONS = {
    "train": [(p, f"photo {p}") for p in ("1", "2", "3", "4", "5")]
    + [("1", "a longer one"), ("1", "short"), ("2", "PHOTO Z")],
    "val": [(p, f"photo {p}") for p in (*REPLACED, *HANDFUL)] + [("3", "the longest stands in another split")],
    "test": [(p, f"photo {p}") for p in ("7", "8", "9")],
}


def write_annotations(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": [], "annotations": [[row] for row in rows]}), encoding="utf-8")


def story_rows(split: str) -> list[dict[str, Any]]:
    rows = []
    for story, (album, photos) in STORIES[split].items():
        for order, photo in enumerate(photos.split()):
            text = TEXTS.get((story, photo), f"{story} tells {photo}")
            row = {"story_id": story, "photo_flickr_id": photo, "original_text": text}
            rows.append(row | ({"album_id": album} if album else {}) | {"worker_arranged_photo_order": order})
    if split == "train":
        rows = [row for i in range(2) for row in rows[i:10:2]] + rows[10:]  # two tellers at once
        rows.append(rows.pop(next(i for i, row in enumerate(rows) if row["original_text"] == "Last in the file")))
    return rows


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "vist"
    for split in STORIES:
        write_annotations(root / "sis" / f"{split}.story-in-sequence.json", story_rows(split))
        rows = [{"photo_flickr_id": photo, "original_text": text} for photo, text in DESCRIPTIONS[split]]
        write_annotations(root / "dii" / f"{split}.description-in-isolation.json", rows)
    for i, name in enumerate(FILES):
        path = root / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (i, 0, 0)).save(path)
    for photo in (*REPLACED, *HANDFUL):
        Image.new("RGB", (20, 20), "white" if photo in REPLACED else "black").save(root / "images" / f"{photo}.jpg")
    (root / "images" / "6.jpg").write_text("<html>This photo is no longer available</html>")
    (root / "images" / "98.jpg.part").write_bytes(b"half a download")
    return root


def hashes(stories: VIST) -> dict[str, str]:
    clips = {clip for split in stories.splits for record in stories.records(split) for clip in record.clips}
    return {clip: hashlib.sha256(stories.clip_file(clip).read_bytes()).hexdigest() for clip in clips}


def test_stories_are_told_photo_by_photo_as_their_teller_arranged_them(root: Path):
    train = VIST(root).records("train")
    assert [(r.id, " ".join(r.clips), r.group) for r in train] == [
        ("101", "1 2 3 4 5", "A"),
        ("102", "1 2 3 4 5", "A"),
        ("107", "2 3 4 5 6", "story 107"),
        ("108", "5 1 2 3 4", "C"),
    ]
    told = ("They said | hello.", "101 tells 2", "101 tells 3", "101 tells 4", "101 tells 5")
    assert train[0].captions == told
    assert train[2].captions[0] == "", "a source needs no words"
    assert train[3].captions[0] == "Last in the file"


def test_every_story_is_kept_or_is_a_named_problem(root: Path):
    stories = VIST(root)
    assert stories.problems == [
        Problem("103", "short story: 4 frames of 5 (train)"),
        Problem("104", "missing photo: 98, 99 (train)"),
        Problem("105", "long story: 6 frames of 5 (train)"),
        Problem("106", "no caption: of photo 2 (train)"),
        Problem("101", "in two splits: left out here (test)"),
    ]
    num_kept = sum(len(stories.records(split)) for split in stories.splits)
    assert num_kept + len(stories.problems) == sum(map(len, STORIES.values()))


def test_a_description_is_the_longest_of_its_photo_in_any_split(root: Path):
    stories = VIST(root, text="dii")
    assert [(r.id, r.captions) for r in stories.records("train")[:1]] == [
        ("101", ("a longer one", "photo 2", "the longest stands in another split", "photo 4", "photo 5"))
    ]
    same_photos = [r.captions for r in stories.records("train") if r.id in ("101", "102")]
    assert same_photos[0] == same_photos[1]


def test_a_photo_without_description_leaves_its_stories_out_and_words_of_a_story_are_not_needed(root: Path):
    stories = VIST(root, text="dii")
    assert Problem("107", "no caption: of photo 6 (train)") in stories.problems
    assert [r.id for r in stories.records("train")] == ["101", "102", "106", "108"]


def test_photos_are_found_by_id_with_any_suffix_and_in_folders_of_splits(root: Path):
    stories = VIST(root)
    assert {clip: stories.clip_file(clip).name for clip in "12345"} == {
        "1": "1.jpg",
        "2": "2.png",
        "3": "3.jpeg",
        "4": "4.gif",
        "5": "5.JPG",
    }
    assert stories.clip_file("9") == root / "images" / "test" / "9.png"
    (four,) = stories.pictures("4")
    assert (four.mode, four.size) == ("RGB", (40, 30))


def test_the_folder_of_the_photos_can_lie_anywhere(root: Path, tmp_path_factory: pytest.TempPathFactory):
    expected = VIST(root).records("test")
    elsewhere = tmp_path_factory.mktemp("photos") / "flickr"
    (root / "images").rename(elsewhere)
    assert VIST(root, photos=elsewhere).records("test") == expected
    with pytest.raises(ValueError, match=r"images holds no photo .*: set data.photos"):
        VIST(root)


def test_annotations_may_lie_in_the_root_itself(root: Path):
    expected = VIST(root, text="dii").records("val")
    for path in root.glob("*is/*.json"):
        path.rename(root / path.name)
    for path in root.glob("*ii/*.json"):
        path.rename(root / path.name)
    assert VIST(root, text="dii").records("val") == expected


def test_a_page_in_place_of_a_photo_is_found_when_it_is_read(root: Path):
    stories = VIST(root)
    with pytest.raises(ClipError, match=r"^corrupt"):
        stories.pictures("6")
    (root / "images" / "1.jpg").unlink()
    with pytest.raises(ClipError, match=r"^missing"):
        stories.pictures("1")


def test_photos_with_the_bytes_of_many_others_are_replaced_ones(root: Path):
    stories = VIST(root)
    assert stories.replaced(hashes(stories)) == set(REPLACED)


def test_which_photos_a_copy_has_decides_which_stories_it_gives(root: Path):
    before = VIST(root)
    assert [r.id for r in before.records("val")] == ["201", "202", "203"]
    (root / "images" / "25.jpg").unlink()
    fewer = VIST(root)
    assert [r.id for r in fewer.records("val")] == ["201", "203"]
    assert fewer.records("train") == before.records("train")


def test_fewer_targets_keep_the_same_stories(root: Path):
    stories = VIST(root, num_targets=2)
    assert [r.id for r in stories.records("train")] == [r.id for r in VIST(root).records("train")]
    assert [r.clips for r in stories.records("test")] == [("9", "8", "7")]
    for num_targets in (0, 5):
        with pytest.raises(ValueError, match=f"num_targets={num_targets}"):
            VIST(root, num_targets=num_targets)


def test_opening_a_set_reads_no_picture(root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Image, "open", None)
    stories = VIST(root)
    assert pickle.loads(pickle.dumps(stories)).records("train") == stories.records("train")
    assert len(stories.annotation_files()) == 3
    assert all(path.is_file() for path in VIST(root, text="dii").annotation_files())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "has no list annotations"),
        ('{"annotations": {}}', "has no list annotations"),
        ('{"annotations": [{"story_id": "1"}]}', "annotation 0 of .* is no list of one row"),
        ('{"annotations": [[{}, {}]]}', "is no list of one row"),
        ('{"annotations": [[{"story_id": "1", "photo_flickr_id": "1"}]]}', "has no original_text"),
        ('{"annotations": [[{"photo_flickr_id": "1", "original_text": "x"}]]}', "has no story_id"),
        ('{"annotations": [[{"story_id": "1", "photo_flickr_id": "", "original_text": "x"}]]}', "no photo_flickr_id"),
        ('{"annotations": []}', "gives no story of 0"),
        ('{"annotations": [[', "is not JSON, or truncated"),
        (None, "is missing"),
    ],
)
def test_another_layout_is_refused_in_one_line(content: str | None, message: str, root: Path):
    path = root / "sis" / "val.story-in-sequence.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        VIST(root)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_root_or_text_is_told_the_remedy(root: Path):
    with pytest.raises(ValueError, match=rf"it seems to be in {root}: give data.root={root}$"):
        VIST(root / "images")
    with pytest.raises(ValueError, match=rf"it seems to be in {root}: give data.root={root}$"):
        VIST(root.parent)
    with pytest.raises(ValueError, match="text=dis is no text of VIST: give sis"):
        VIST(root, text="dis")
    (root / "dii" / "test.description-in-isolation.json").unlink()
    assert VIST(root).records("test")
    with pytest.raises(ValueError, match=r"test.description-in-isolation.json is missing"):
        VIST(root, text="dii")


def test_the_config_opens_the_set(root: Path):
    from hydra.utils import instantiate

    config = OmegaConf.create({"data": OmegaConf.load(CONFIG)})
    config.data.root = str(root)
    assert len(instantiate(config.data.set).records("train")) == 4
