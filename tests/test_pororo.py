"""PororoSV: the stories that a released copy holds, and a name for everything that is wrong with another one."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from storydalle.stories.pictures import ClipError
from storydalle.stories.sets.pororo import PororoSV

SIDE = 16
COLORS = ("red", "lime", "blue", "yellow", "white")
EP1, EP2, OTHER, SHORT = (
    "Pororo_ENGLISH1_1_ep1",
    "Pororo_ENGLISH1_1_ep2",
    "Pororo_ENGLISH2_1_ep1",
    "Pororo_ENGLISH2_1_ep9",
)
NUM_SCENES = {EP1: 15, EP2: 6, OTHER: 5, SHORT: 4}
# Scenes that 4 others follow, in the order that folders and files have as strings. The last episode is too short.
SOURCES = [
    *(f"{EP1}/{k}" for k in (1, 10, 11, 2, 3, 4, 5, 6, 7, 8, 9)),
    *(f"{EP2}/{k}" for k in (1, 2)),
    f"{OTHER}/1",
]
TRAIN, SEEN, UNSEEN = [11, 3, 0, 4], [5, 1], [13]
STORIES = {
    "train": [
        (f"{EP1}/1", f"{EP1}/2", f"{EP1}/3", f"{EP1}/4", f"{EP1}/5"),
        (f"{EP1}/2", f"{EP1}/3", f"{EP1}/4", f"{EP1}/5", f"{EP1}/6"),
        (f"{EP1}/3", f"{EP1}/4", f"{EP1}/5", f"{EP1}/6", f"{EP1}/7"),
        (f"{EP2}/1", f"{EP2}/2", f"{EP2}/3", f"{EP2}/4", f"{EP2}/5"),
    ],
    "val": [
        (f"{EP1}/10", f"{EP1}/11", f"{EP1}/12", f"{EP1}/13", f"{EP1}/14"),
        (f"{EP1}/4", f"{EP1}/5", f"{EP1}/6", f"{EP1}/7", f"{EP1}/8"),
    ],
    "test": [(f"{OTHER}/1", f"{OTHER}/2", f"{OTHER}/3", f"{OTHER}/4", f"{OTHER}/5")],
}
SPECIAL = {
    f"{EP1}/2": ['Pororo says, "Hello."\nEddy  waves.', "A second row."],
    f"{EP1}/3": ["Loopy|Crong, together", "Another row.", "A third row."],
}


def captions_of(scene: str) -> list[str]:
    return SPECIAL.get(scene, [f"This is {scene}."])


def scenes() -> list[str]:
    return [f"{episode}/{k}" for episode, number in NUM_SCENES.items() for k in range(1, number + 1)]


def objects(*entries: Any) -> np.ndarray:
    array = np.empty(len(entries), dtype=object)
    array[:] = entries
    return array


def save(path: Path, content: Any) -> None:
    np.save(path, content, allow_pickle=True)


def write_caches(
    root: Path, stories: Sequence[Sequence[str]], entry: Callable[[str], str | bytes] = str.encode
) -> None:
    """Source paths [N] and following paths [N, f]."""
    save(root / "img_cache4.npy", np.array([entry(f"{story[0]}.png") for story in stories]))
    save(root / "following_cache4.npy", np.array([[entry(f"{clip}.png") for clip in story[1:]] for story in stories]))


def windows(num_targets: int = 4, sources: Sequence[str] = SOURCES) -> list[list[str]]:
    """By the scene numbers."""
    pairs = [(source.split("/")[0], int(source.split("/")[1])) for source in sources]
    return [[f"{episode}/{k + i}" for i in range(num_targets + 1)] for episode, k in pairs]


def write_splits(root: Path, *splits: Sequence[int]) -> None:
    save(root / "train_seen_unseen_ids.npy", objects(*(list(split) for split in splits)))


def write_table(root: Path, rows: Sequence[Sequence[str]]) -> None:
    with (root / "descriptions.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy as its authors ship it: byte paths, captions twice, dictionaries in 0-d arrays."""
    root = tmp_path / "pororo_png"
    for episode in NUM_SCENES:
        (root / episode).mkdir(parents=True)
    write_caches(root, windows())
    write_splits(root, TRAIN, SEEN, UNSEEN)
    save(root / "frames_counter.npy", np.array({f"{episode}/": number for episode, number in NUM_SCENES.items()}))
    save(root / "descriptions.npy", np.array({scene: captions_of(scene) for scene in scenes()}))
    write_table(root, [(*scene.split("/"), caption) for scene in scenes() for caption in captions_of(scene)])
    labels = {scene: np.eye(9)[i % 9] for i, scene in enumerate(scenes())}
    save(root / "labels.npy", np.array(labels))
    return root


def clips(pororo: PororoSV, split: str) -> list[tuple[str, ...]]:
    return [record.clips for record in pororo.records(split)]


def problems(pororo: PororoSV, phrase: str) -> list[tuple[str, str]]:
    return [tuple(problem) for problem in pororo.problems if problem.what.startswith(phrase)]


# -------------------------------------------------------------------------------------------- stories


def test_a_released_copy_gives_the_listed_stories_and_no_problem(root: Path):
    pororo = PororoSV(root)
    assert pororo.splits == ("train", "val", "test")
    assert {split: clips(pororo, split) for split in pororo.splits} == STORIES
    assert pororo.problems == []


def test_stories_come_in_the_order_of_their_sorted_indices(root: Path):
    """The split lists 11, 3, 0, 4."""
    assert [record.id for record in PororoSV(root).records("train")] == [f"{EP1}/1", f"{EP1}/2", f"{EP1}/3", f"{EP2}/1"]


def test_a_story_is_grouped_by_its_episode(root: Path):
    assert [record.group for record in PororoSV(root).records("train")] == [EP1, EP1, EP1, EP2]


@pytest.mark.parametrize("entry", [str.encode, str, lambda path: f"/{path}"], ids=["bytes", "str", "str from the root"])
def test_caches_of_bytes_and_of_strings_are_the_same(root: Path, entry: Callable[[str], str | bytes]):
    write_caches(root, windows(), entry)
    assert {split: clips(PororoSV(root), split) for split in STORIES} == STORIES


def test_splits_of_one_length_which_numpy_saves_as_a_table_are_read(root: Path):
    save(root / "train_seen_unseen_ids.npy", np.array([[0, 3], [5, 1], [13, 12]]))
    assert clips(PororoSV(root), "val") == STORIES["val"]


def test_episodes_in_series_folders_are_read(root: Path):
    """The key of a clip has one part more, in caches, counter, captions and labels alike."""

    def nested(path: str) -> str:
        return path.replace("Pororo_ENGLISH1_1_", "Pororo_ENGLISH1_1/").replace(
            "Pororo_ENGLISH2_1_", "Pororo_ENGLISH2_1/"
        )

    write_caches(root, windows(), lambda path: nested(path).encode())
    save(root / "frames_counter.npy", np.array({f"{nested(key)}/": number for key, number in NUM_SCENES.items()}))
    save(root / "descriptions.npy", np.array({nested(scene): captions_of(scene) for scene in scenes()}))
    save(root / "labels.npy", np.array({nested(scene): [0] * 9 for scene in scenes()}))
    (root / "descriptions.csv").unlink()
    pororo = PororoSV(root)
    assert clips(pororo, "val") == [tuple(map(nested, story)) for story in STORIES["val"]]
    assert pororo.problems == []
    assert pororo.records("test")[0].group == "Pororo_ENGLISH2_1/ep1"
    assert pororo.clip_file("Pororo_ENGLISH2_1/ep1/3") == root / "Pororo_ENGLISH2_1" / "ep1" / "3.png"
    (root / "img_cache4.npy").unlink()
    assert clips(PororoSV(root), "val") == clips(pororo, "val")


def test_a_table_without_series_serves_episodes_whose_name_occurs_once(root: Path):
    write_caches(root, windows(), lambda path: f"series/{path}")
    assert PororoSV(root).records("test")[0].captions[0] == f"This is {OTHER}/1."
    twice = [[clip if clip.startswith(OTHER) else f"b/{OTHER}/{clip[-1]}" for clip in story] for story in windows()]
    write_caches(root, [*twice[:-1], twice[-1]], lambda path: path if path.startswith("b/") else f"a/{path}")
    with pytest.raises(ValueError, match="no caption"):
        PororoSV(root)


@pytest.mark.parametrize("wrong", ["..", EP1])
def test_a_root_one_level_off_is_told_where_the_set_is(root: Path, wrong: str):
    with pytest.raises(ValueError, match=r"train_seen_unseen_ids\.npy is missing") as caught:
        PororoSV((root / wrong).resolve())
    assert str(caught.value).endswith(f"give data.root={root}")


def test_the_yaml_opens_the_set(root: Path):
    data = OmegaConf.load(Path(__file__).parent.parent / "conf" / "data" / "pororo.yaml")
    data.root = str(root)
    opened = instantiate(OmegaConf.create({"data": data}).data.set)
    assert isinstance(opened, PororoSV) and opened.num_targets == data.num_targets == 4
    assert data.name == opened.name


def test_annotation_files_are_those_that_decide_the_stories(root: Path):
    names = ["train_seen_unseen_ids.npy", "img_cache4.npy", "following_cache4.npy", "descriptions.csv", "labels.npy"]
    assert [path.name for path in PororoSV(root).annotation_files()] == names
    assert root / "frames_counter.npy" in PororoSV(root, num_targets=2).annotation_files()


def test_an_unknown_split_is_refused(root: Path):
    with pytest.raises(ValueError, match=r"split unseen of pororo has no story \(train, val, test have\)"):
        PororoSV(root).records("unseen")


# ------------------------------------------------------------------------------------------- captions


def test_captions_are_the_first_row_with_quotes_breaks_and_capitals_kept(root: Path):
    for name in ("descriptions.csv", "descriptions.npy"):
        captions = PororoSV(root).records("train")[0].captions
        assert captions[:3] == (f"This is {EP1}/1.", 'Pororo says, "Hello." Eddy waves.', "Loopy|Crong, together"), name
        (root / "descriptions.csv").unlink(missing_ok=True)


def test_captions_pickled_as_bytes_or_in_python_2_are_read(root: Path):
    (root / "descriptions.csv").unlink()
    caption = "Pororo’s café"  # noqa: RUF001
    mangled = caption.encode().decode("latin-1")
    for value in ([caption.encode()], [mangled], [caption], np.array([caption]), caption):
        save(root / "descriptions.npy", np.array({scene.encode(): value for scene in scenes()}))
        assert set(PororoSV(root).records("test")[0].captions) == {caption}


def test_a_story_without_a_target_s_caption_is_left_out_and_named(root: Path):
    write_table(root, [(*scene.split("/"), "Words.") for scene in scenes() if scene != f"{EP1}/6"])
    pororo = PororoSV(root)
    assert [record.id for record in pororo.records("train")] == [f"{EP1}/1", f"{EP2}/1"]
    assert [record.id for record in pororo.records("val")] == [f"{EP1}/10"]
    assert problems(pororo, "no caption") == [(f"{EP1}/{k}", f"no caption: of {EP1}/6") for k in (2, 3, 4)]


def test_a_story_without_its_source_s_caption_is_kept_and_named(root: Path):
    write_table(root, [(*scene.split("/"), "" if scene == f"{EP1}/1" else "Words.") for scene in scenes()])
    pororo = PororoSV(root)
    assert pororo.records("train")[0].captions == ("", "Words.", "Words.", "Words.", "Words.")
    assert [where for where, _ in problems(pororo, "no source caption")] == [f"{EP1}/1"]
    assert len(pororo.records("train")) == 4


def test_rows_that_are_none_are_named_by_their_line(root: Path):
    rows = [(*scene.split("/"), "Words.") for scene in scenes()]
    write_table(root, [("episode", "scene", "caption"), *rows[:2], (EP1, "3"), *rows[2:]])
    pororo = PororoSV(root)
    assert [where for where, _ in problems(pororo, "bad row")] == ["descriptions.csv line 1", "descriptions.csv line 4"]
    assert len(pororo.records("train")) == 4


def test_an_open_quote_that_swallows_rows_is_named(root: Path):
    text = "".join(f"{EP1},{k},{chr(34) * (k == 2)}Words.\n" for k in range(1, 16))
    rest = "".join(f"{scene.replace('/', ',')},Words.\n" for scene in scenes() if not scene.startswith(EP1))
    (root / "descriptions.csv").write_text(rest + text)
    with pytest.raises(ValueError, match="no whole story in the split val"):
        PororoSV(root)
    write_splits(root, TRAIN, [12], UNSEEN)
    assert [where for where, _ in problems(PororoSV(root), "open quote")] == ["descriptions.csv line 30"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Pororo_ENGLISH1_1_ep1,1,caf\xe9\n", r"descriptions\.csv is not in UTF-8 \(byte 27\): save it"),
        (b"", r"descriptions\.csv has no row"),
        (b"a;1;Words.\n", r"descriptions\.csv has no row of episode, scene and caption"),
        (b'a,1,"' + b"x" * 200_000 + b'"\n', r"descriptions\.csv is no table"),
    ],
)
def test_a_table_of_another_kind_is_refused(root: Path, content: bytes, message: str):
    (root / "descriptions.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        PororoSV(root)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array(["a caption"]), r"descriptions\.npy is no dictionary but ndarray"),
        (np.array({f"{EP1}/1": 3}), r"descriptions\.npy has 3 in the place of a list of captions"),
        (np.array({f"{EP1}/1": [None]}), r"descriptions\.npy has \[None\] in the place"),
        (np.array({1: ["a caption"]}), r"descriptions\.npy has a key that is no name: 1 is no string"),
    ],
)
def test_pickled_captions_of_another_kind_are_refused(root: Path, content: Any, message: str):
    (root / "descriptions.csv").unlink()
    save(root / "descriptions.npy", content)
    with pytest.raises(ValueError, match=message):
        PororoSV(root)


def test_a_copy_without_captions_is_refused(root: Path):
    (root / "descriptions.csv").unlink()
    (root / "descriptions.npy").unlink()
    with pytest.raises(ValueError, match=r"neither descriptions\.csv nor descriptions\.npy"):
        PororoSV(root)


# -------------------------------------------------------------------------------------------- windows


@pytest.mark.parametrize(
    "missing", [("img_cache4.npy",), ("following_cache4.npy",), ("img_cache4.npy", "following_cache4.npy")]
)
def test_missing_caches_are_built_by_the_rule_and_named(root: Path, missing: tuple[str, ...]):
    for name in missing:
        (root / name).unlink()
    pororo = PororoSV(root)
    assert {split: clips(pororo, split) for split in STORIES} == STORIES
    assert [where for where, _ in problems(pororo, "missing")] == [missing[0]]


def test_windows_without_cache_and_counter_are_refused(root: Path):
    (root / "img_cache4.npy").unlink()
    (root / "frames_counter.npy").unlink()
    with pytest.raises(ValueError, match=r"frames_counter\.npy is missing"):
        PororoSV(root)


def test_three_followings_are_rebuilt_as_four_and_named(root: Path):
    write_caches(root, windows(num_targets=3))
    pororo = PororoSV(root)
    assert {split: clips(pororo, split) for split in STORIES} == STORIES
    assert pororo.problems == [
        ("following_cache4.npy", "3 followings instead of 4: windows are built from frames_counter.npy")
    ]


def test_a_cache_rebuilt_for_three_followings_does_not_move_the_stories_of_the_splits(root: Path):
    """Such a cache has one source more an episode, so that an index means another story."""
    sources = [f"{e}/{k}" for e in sorted(NUM_SCENES) for k in sorted(map(str, range(1, NUM_SCENES[e] - 2)))]
    assert len(sources) == len(SOURCES) + 4
    write_caches(root, windows(3, sources), str)
    pororo = PororoSV(root)
    assert {split: clips(pororo, split) for split in STORIES} == STORIES
    assert [where for where, _ in problems(pororo, "rebuilt for 3 followings")] == ["img_cache4.npy"]


def test_another_number_of_targets_keeps_the_sources_and_follows_the_scenes(root: Path):
    pororo = PororoSV(root, num_targets=2)
    assert clips(pororo, "train") == [story[:3] for story in STORIES["train"]]
    assert pororo.problems == []


def test_more_targets_than_the_episode_has_are_a_short_window(root: Path):
    write_splits(root, TRAIN, SEEN, [13, 11])
    pororo = PororoSV(root, num_targets=5)
    assert clips(pororo, "val")[0] == tuple(f"{EP1}/{k}" for k in range(10, 16))
    assert problems(pororo, "short window") == [(f"{OTHER}/1", "short window: 4 of 5 followings")]
    assert [record.id for record in pororo.records("test")] == [f"{EP2}/1"]


def test_windows_that_the_cache_joins_otherwise_are_kept_and_named(root: Path):
    odd = windows()
    odd[0][4], odd[3][4] = f"{EP1}/7", f"{EP2}/1"
    write_caches(root, odd)
    pororo = PororoSV(root)
    assert clips(pororo, "train")[:2] == [tuple(odd[0]), tuple(odd[3])]
    assert [where for where, _ in problems(pororo, "odd window")] == [f"{EP1}/1"]
    assert [where for where, _ in problems(pororo, "window crosses episodes")] == [f"{EP1}/2"]


@pytest.mark.parametrize("path", ["../../secret/1", "1", "a/b/c/1", f"{EP1}/one"])
def test_a_path_that_is_no_scene_is_left_out_and_named(root: Path, path: str):
    odd = windows()
    odd[0][2] = path
    write_caches(root, odd)
    pororo = PororoSV(root)
    assert clips(pororo, "train") == STORIES["train"][1:]
    assert problems(pororo, "bad path") == [(f"{EP1}/1", f"bad path: {path!r} is no <episode>/<scene>.png")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("img_cache4.npy", np.arange(14), r"img_cache4\.npy is no array of paths"),
        ("img_cache4.npy", objects(*range(14)), r"img_cache4\.npy holds something else than paths: 0 is no string"),
        ("img_cache4.npy", np.array(SOURCES[:-1]), "following_cache4.npy has 14 stories and img_cache4.npy has 13"),
        ("following_cache4.npy", np.array(SOURCES), r"following_cache4\.npy is no array of paths of 2 dimensions"),
        ("frames_counter.npy", np.array({"a/": "3"}), r"frames_counter\.npy counts something else than scenes"),
        ("frames_counter.npy", np.array([3]), r"frames_counter\.npy is no dictionary but ndarray"),
    ],
)
def test_caches_and_counters_of_another_kind_are_refused(root: Path, name: str, content: Any, message: str):
    save(root / name, content)
    with pytest.raises(ValueError, match=message):
        PororoSV(root, num_targets=3 if name == "frames_counter.npy" else 4)


# --------------------------------------------------------------------------------------------- splits


def test_an_index_out_of_range_is_named_and_never_counts_from_the_end(root: Path):
    write_splits(root, TRAIN, [*SEEN, 14, -1], UNSEEN)
    pororo = PororoSV(root)
    assert clips(pororo, "val") == STORIES["val"]
    assert problems(pororo, "index out of range") == [
        ("train_seen_unseen_ids.npy (val)", f"index out of range: {index} of 14 windows") for index in (-1, 14)
    ]


def test_a_story_twice_in_a_split_is_kept_once_and_named(root: Path):
    write_splits(root, [*TRAIN, 3], SEEN, UNSEEN)
    pororo = PororoSV(root)
    assert clips(pororo, "train") == STORIES["train"]
    assert problems(pororo, "story twice") == [(f"{EP1}/2", "story twice: again as index 3 of train")]


def test_a_story_in_two_splits_and_an_unseen_episode_in_train_are_named_as_leaks(root: Path):
    write_splits(root, TRAIN, SEEN, [*UNSEEN, 0, 12])
    pororo = PororoSV(root)
    assert problems(pororo, "story in two splits") == [(f"{EP1}/1", "story in two splits: train and test; kept")]
    assert [where for where, _ in problems(pororo, "unseen episode in train")] == [EP1, EP2]
    assert len(pororo.records("test")) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (objects([0], [1], []), "has no story in the split test"),
        (objects([0], [1]), "does not hold three lists"),
        (np.array({"train": [0]}), "does not hold three lists"),
        (objects([0], [1.0], [2]), "something else than indices in the split val"),
        (objects([0], ["1"], [2]), "something else than indices in the split val"),
        (objects([[0]], [1], [2]), "something else than indices in the split train"),
        (objects([0], 1, [2]), "has no story in the split val"),
        (objects([0], [1], [99]), r"no whole story in the split test; the last problem is .* index out of range: 99"),
    ],
)
def test_splits_of_another_kind_are_refused(root: Path, content: Any, message: str):
    save(root / "train_seen_unseen_ids.npy", content)
    with pytest.raises(ValueError, match=message):
        PororoSV(root)


def test_a_copy_with_the_older_two_way_split_only_is_told_what_is_missing(root: Path):
    (root / "train_seen_unseen_ids.npy").rename(root / "train_test_ids.npy")
    with pytest.raises(ValueError, match=r"train_seen_unseen_ids\.npy is missing"):
        PororoSV(root)


def test_no_target_is_no_story(root: Path):
    with pytest.raises(ValueError, match="num_targets=0"):
        PororoSV(root, num_targets=0)


# ----------------------------------------------------------------------------------------- characters


def test_characters_of_each_clip_are_read_in_their_order(root: Path):
    record = PororoSV(root).records("test")[0]
    assert record.characters is not None
    first = scenes().index(f"{OTHER}/1")
    assert [row.index(1) for row in record.characters] == [(first + i) % 9 for i in range(5)]
    assert {len(row) for row in record.characters} == {9}
    assert len(PororoSV.characters) == 9


def test_without_labels_stories_have_no_characters_and_that_is_said(root: Path):
    (root / "labels.npy").unlink()
    pororo = PororoSV(root)
    assert {record.characters for split in STORIES for record in pororo.records(split)} == {None}
    assert pororo.problems == [("labels.npy", "missing: the stories have no characters")]


def test_missing_and_bad_labels_are_named_and_leave_the_number_of_stories(root: Path):
    labels: dict[str, Any] = {scene: [0] * 9 for scene in scenes() if scene != f"{EP2}/3"}
    labels[f"{EP1}/14"] = [0] * 8
    save(root / "labels.npy", np.array(labels))
    pororo = PororoSV(root)
    assert [len(pororo.records(split)) for split in pororo.splits] == [4, 2, 1]
    assert [where for where, _ in problems(pororo, "bad label")] == [f"labels.npy ({EP1}/14)"]
    assert [where for where, _ in problems(pororo, "no label")] == [f"{EP2}/1", f"{EP1}/10"]
    assert pororo.records("train")[3].characters is None and pororo.records("train")[0].characters is not None


# ------------------------------------------------------------------------------------------- pictures


def write_strip(root: Path, clip: str, mode: str = "RGB", extra: int = 0, num_frames: int = 5) -> None:
    strip = Image.new("RGB", (SIDE, SIDE * num_frames + extra), "black")
    for i in range(num_frames):
        strip.paste(COLORS[i], (0, i * SIDE, SIDE, (i + 1) * SIDE))
    strip.convert(mode).save(root / f"{clip}.png")


@pytest.mark.parametrize(("num_frames", "extra"), [(1, 0), (5, 0), (3, SIDE - 1)])
def test_a_strip_is_cut_into_its_square_frames_from_the_top(root: Path, num_frames: int, extra: int):
    write_strip(root, f"{EP1}/1", extra=extra, num_frames=num_frames)
    frames = PororoSV(root).pictures(f"{EP1}/1")
    assert [frame.size for frame in frames] == [(SIDE, SIDE)] * num_frames
    expected = [Image.new("RGB", (1, 1), color).getpixel((0, 0)) for color in COLORS[:num_frames]]
    assert [frame.getcolors() for frame in frames] == [[(SIDE * SIDE, color)] for color in expected]


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_frames_are_rgb_whatever_the_file_is(root: Path, mode: str):
    write_strip(root, f"{EP1}/1", mode)
    assert {frame.mode for frame in PororoSV(root).pictures(f"{EP1}/1")} == {"RGB"}


def test_a_frame_slightly_wider_than_high_is_one_frame(root: Path):
    Image.new("RGB", (SIDE + 3, SIDE)).save(root / EP1 / "1.png")
    assert [frame.size for frame in PororoSV(root).pictures(f"{EP1}/1")] == [(SIDE, SIDE)]


@pytest.mark.parametrize("size", [(1, 1), (4, 200), (5 * SIDE, SIDE)])
def test_a_picture_that_is_no_vertical_strip_has_a_wrong_shape(root: Path, size: tuple[int, int]):
    Image.new("RGB", size).save(root / EP1 / "1.png")
    with pytest.raises(ClipError, match=f"^wrong shape: {size[0]}x{size[1]}"):
        PororoSV(root).pictures(f"{EP1}/1")


def test_damaged_files_are_told_apart(root: Path):
    pororo = PororoSV(root)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (SIDE * 5, SIDE, 3), dtype=np.uint8)).save(root / EP1 / "2.png")
    whole = (root / EP1 / "2.png").read_bytes()
    (root / EP1 / "2.png").write_bytes(whole[: len(whole) // 2])
    (root / EP1 / "3.png").write_bytes(b"no picture")
    for scene, what in ((1, "missing"), (2, "truncated"), (3, "corrupt")):
        with pytest.raises(ClipError, match=f"^{what}"):
            pororo.pictures(f"{EP1}/{scene}")
