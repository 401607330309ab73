"""FlintstonesSV: windows by the published rule, and a name for every story that is cut, crossed or left out."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from storydalle.stories.pictures import ClipError
from storydalle.stories.sets.flintstones import FlintstonesSV

SPLIT_FILE = "train-val-test_split.json"


def clip(season: int, episode: int, start: int) -> str:
    return f"s_{season:02}_e_{episode:02}_shot_{start:06}_{start + 74:06}"


def long(start: int) -> str:
    """Of the first episode: 8 clips, the last of them in val."""
    return clip(1, 2, start)


def last(start: int) -> str:
    """Of the episode that ends the sorted list: 6 clips."""
    return clip(6, 1, start)


TRAIN = [*map(long, (300, 100, 200, 400, 500, 600, 700)), *map(last, (1, 2, 3, 4, 5, 6))]
VAL = [long(800), *(clip(3, 1, start) for start in (10, 11, 12, 13, 14))]
TEST = [clip(1, 10, start) for start in (60, 50, 40, 30, 20, 10)]
ALL_CLIPS = [*TRAIN, *VAL, *TEST]
# In the order of the split file; a window runs over the sorted clips of all splits.
STORIES = {
    "train": [
        tuple(map(long, (300, 400, 500, 600, 700))),
        tuple(map(long, (100, 200, 300, 400, 500))),
        tuple(map(long, (200, 300, 400, 500, 600))),
        tuple(map(long, (400, 500, 600, 700, 800))),
        tuple(map(last, (1, 2, 3, 4, 5))),
        tuple(map(last, (2, 3, 4, 5, 6))),
    ],
    "val": [tuple(clip(3, 1, start) for start in (10, 11, 12, 13, 14))],
    "test": [
        tuple(clip(1, 10, start) for start in (20, 30, 40, 50, 60)),
        tuple(clip(1, 10, start) for start in (10, 20, 30, 40, 50)),
    ],
}
# What a copy of this size has by itself: the end of the list, and the window that val's clip ends.
SHORT = [last(start) for start in (3, 4, 5, 6)]
CROSSED = [long(400)]


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def write_splits(root: Path, name: str = SPLIT_FILE, **splits: Sequence[str]) -> None:
    write_json(root / name, {"train": TRAIN, "val": VAL, "test": TEST} | splits)


def write_captions(root: Path, captions: Mapping[str, Any], **more: Any) -> None:
    rows = [{"globalID": key, "description": text, "setting": "room"} | more for key, text in captions.items()]
    write_json(root / "flintstones_annotations_v1-0.json", rows)


def write_pickle(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def write_frames(root: Path, name: str, frames: np.ndarray) -> None:
    np.save(root / "video_frames_sampled" / f"{name}.npy", frames)


def plain_captions() -> dict[str, str]:
    return {key: f"Fred stands in {key}." for key in ALL_CLIPS}


def cached_windows() -> dict[str, list[str]]:
    """The shipped cache: short windows are in it, too."""
    windows = {story[0]: list(story[1:]) for stories in STORIES.values() for story in stories}
    ends = {last(start): [last(later) for later in range(start + 1, 7)] for start in (3, 4, 5, 6)}
    return windows | ends


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A copy as it ships."""
    root = tmp_path / "flintstones"
    (root / "video_frames_sampled").mkdir(parents=True)
    write_splits(root)
    write_captions(root, plain_captions())
    write_pickle(root / "following_cache4.pkl", cached_windows())
    write_pickle(root / "labels.pkl", {key: [i % 2, 1, 0, 0, 0, 0, 0] for i, key in enumerate(ALL_CLIPS)})
    return root


def stories(flintstones: FlintstonesSV, split: str) -> list[tuple[str, ...]]:
    return [record.clips for record in flintstones.records(split)]


def named(flintstones: FlintstonesSV, phrase: str) -> list[str]:
    return [problem.where for problem in flintstones.problems if problem.what.startswith(phrase)]


# -------------------------------------------------------------------------------------------- windows


def test_a_shipped_copy_gives_the_listed_stories_in_the_order_of_the_split_file(root: Path):
    flintstones = FlintstonesSV(root)
    assert flintstones.splits == ("train", "val", "test")
    assert {split: stories(flintstones, split) for split in flintstones.splits} == STORIES


def test_a_shipped_copy_has_no_other_problem_than_its_end_and_its_crossed_window(root: Path):
    flintstones = FlintstonesSV(root)
    assert named(flintstones, "short window") == SHORT
    assert named(flintstones, "window crosses splits") == CROSSED
    assert len(flintstones.problems) == len(SHORT) + len(CROSSED)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_short_windows_at_the_end_are_left_out_of_every_split_and_named(root: Path, split: str):
    """The published loader keeps them in train."""
    end = [clip(7, 1, start) for start in range(5)]
    own = {"train": TRAIN, "val": VAL, "test": TEST}[split]
    write_splits(root, **{split: [*own, *end]})
    write_captions(root, plain_captions() | dict.fromkeys(end, "Fred."))
    (root / "following_cache4.pkl").unlink()
    flintstones = FlintstonesSV(root)
    assert stories(flintstones, split)[-1] == tuple(end)
    assert named(flintstones, "short window") == end[1:]
    assert {len(record.clips) for record in flintstones.records(split)} == {5}


def test_a_window_that_crosses_splits_is_kept_and_named_with_the_foreign_clip(root: Path):
    flintstones = FlintstonesSV(root)
    assert STORIES["train"][3] in stories(flintstones, "train")
    expected = (long(400), f"window crosses splits: {long(800)} not of train; kept")
    assert expected in flintstones.problems


def test_windows_inside_leaves_crossed_ones_out_and_names_them(root: Path):
    flintstones = FlintstonesSV(root, windows="inside")
    assert stories(flintstones, "train") == [story for story in STORIES["train"] if story[0] != long(400)]
    assert stories(flintstones, "val") == STORIES["val"] and stories(flintstones, "test") == STORIES["test"]
    assert (long(400), f"window crosses splits: {long(800)} not of train; left out") in flintstones.problems


def test_windows_of_another_kind_are_refused(root: Path):
    with pytest.raises(ValueError, match="windows=some: give one of all, inside"):
        FlintstonesSV(root, windows="some")
    with pytest.raises(ValueError, match="num_targets=0"):
        FlintstonesSV(root, num_targets=0)


def test_a_window_never_leaves_its_episode(root: Path):
    """In the sorted list the fifth clip of one episode stands before the first of the next one."""
    for num_targets in (1, 2, 3, 4):
        flintstones = FlintstonesSV(root, num_targets=num_targets)
        for split in flintstones.splits:
            assert all(len({key[:9] for key in story}) == 1 for story in stories(flintstones, split))


@pytest.mark.parametrize(
    ("num_targets", "train", "val", "test"), [(3, 5 + 3, 2, 3), (2, 6 + 4, 3, 4), (1, 7 + 5, 4, 5)]
)
def test_another_number_of_targets_gives_other_windows(root: Path, num_targets: int, train: int, val: int, test: int):
    flintstones = FlintstonesSV(root, num_targets)
    assert {len(record.clips) for split in STORIES for record in flintstones.records(split)} == {num_targets + 1}
    assert [len(flintstones.records(split)) for split in flintstones.splits] == [train, val, test]


def test_more_targets_than_the_episodes_of_a_split_have_are_refused(root: Path):
    with pytest.raises(ValueError, match="no story of 5 targets in the split val"):
        FlintstonesSV(root, num_targets=5)


def test_ids_are_sorted_as_strings(root: Path):
    """Episode 10 comes before episode 9 without a zero; within an episode no number is compared."""
    odd = ["s_8_e_9_shot_20_1", "s_8_e_9_shot_3_1", "s_8_e_9_shot_100_1", "s_8_e_9_shot_1_1", "s_8_e_9_shot_9_1"]
    write_splits(root, val=[*VAL, *odd])
    write_captions(root, plain_captions() | dict.fromkeys(odd, "Fred."))
    ordered = tuple(f"s_8_e_9_shot_{start}_1" for start in (100, 1, 20, 3, 9))
    assert stories(FlintstonesSV(root), "val")[-1] == ordered


def test_the_legacy_cut_keeps_the_first_1900_test_stories_of_the_split_file(root: Path):
    many = [clip(4, 1, start) for start in range(1910, 0, -1)]
    write_splits(root, test=many)
    write_captions(root, plain_captions() | dict.fromkeys(many, "Fred."))
    (root / "labels.pkl").unlink()
    (root / "following_cache4.pkl").unlink()
    whole, cut = FlintstonesSV(root), FlintstonesSV(root, legacy_cut=True)
    assert len(whole.records("test")) == 1906
    assert cut.records("test") == whole.records("test")[:1900]
    assert cut.records("test")[0].id == clip(4, 1, 1906)
    assert cut.records("train") == whole.records("train") and cut.records("val") == whole.records("val")
    assert ("test", "legacy cut: 6 stories behind the first 1900 are left out") in cut.problems
    assert named(whole, "legacy cut") == []


def test_a_cache_that_has_other_windows_is_named_and_not_used(root: Path):
    cached = cached_windows()
    cached[long(100)] = cached[long(100)][:3]
    del cached[long(200)]
    cached[long(600)] = [long(700), long(800), clip(1, 10, 10), clip(1, 10, 20)]
    write_pickle(root / "following_cache4.pkl", cached)
    flintstones = FlintstonesSV(root)
    assert named(flintstones, "other window") == [long(100), long(200), long(600)]
    assert {split: stories(flintstones, split) for split in STORIES} == STORIES
    assert named(FlintstonesSV(root, num_targets=3), "other window") == []


def test_a_cache_that_cannot_be_read_is_named_and_not_needed(root: Path):
    path = root / "following_cache4.pkl"
    whole = path.read_bytes()
    for content in (whole[:50], b"cos\nsystem\n(S'true'\ntR.", pickle.dumps([1]), pickle.dumps({long(100): 3})):
        path.write_bytes(content)
        flintstones = FlintstonesSV(root)
        assert named(flintstones, "unreadable") == ["following_cache4.pkl"]
        assert stories(flintstones, "train") == STORIES["train"]
    path.unlink()
    assert stories(FlintstonesSV(root), "train") == STORIES["train"]


# ---------------------------------------------------------------------------------------- split file


def test_the_older_file_name_is_read_and_named(root: Path):
    (root / SPLIT_FILE).rename(root / "train-val_split.json")
    flintstones = FlintstonesSV(root)
    assert {split: stories(flintstones, split) for split in STORIES} == STORIES
    assert named(flintstones, "older file name") == ["train-val_split.json"]
    assert flintstones.annotation_files()[0] == root / "train-val_split.json"


def test_the_newer_file_counts_where_both_are(root: Path):
    write_splits(root, "train-val_split.json", test=TEST[1:])
    flintstones = FlintstonesSV(root)
    assert stories(flintstones, "test") == STORIES["test"]
    assert named(flintstones, "older file name") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"train": TRAIN, "val": VAL}, "has no lists train, val, test"),
        ({"train": TRAIN, "val": VAL, "test": "all"}, "has no lists train, val, test"),
        (TRAIN, "has no lists train, val, test"),
        ({"train": TRAIN, "val": [], "test": TEST}, "has no clip in the split val"),
        ({"train": TRAIN, "val": [long(800)], "test": TEST}, "no story of 4 targets in the split val"),
    ],
)
def test_splits_of_another_kind_are_refused(root: Path, content: Any, message: str):
    write_json(root / SPLIT_FILE, content)
    with pytest.raises(ValueError, match=message):
        FlintstonesSV(root)


def test_ids_that_name_no_episode_are_left_out_of_the_windows_and_named(root: Path):
    bad = ["../secret", "s_01_e_02/x", "shot_1", "s_x_e_1_shot", "s_01_e_02_shot_000250_000324.npy"]
    write_splits(root, train=[*bad, *TRAIN])
    flintstones = FlintstonesSV(root)
    assert named(flintstones, "bad id") == bad
    assert stories(flintstones, "train") == STORIES["train"]


def test_a_clip_twice_in_a_split_or_in_two_of_them_is_named_and_no_story_follows_itself(root: Path):
    write_splits(root, train=[*TRAIN, long(100)], val=[*VAL, long(300)])
    flintstones = FlintstonesSV(root)
    assert named(flintstones, "clip twice") == [long(100)]
    assert named(flintstones, "clip in two splits") == [long(300)]
    assert stories(flintstones, "train") == STORIES["train"]
    assert stories(flintstones, "val") == [*STORIES["val"], STORIES["train"][0]]


@pytest.mark.parametrize("wrong", ["..", "video_frames_sampled"])
def test_a_root_one_level_off_is_told_where_the_set_is(root: Path, wrong: str):
    with pytest.raises(ValueError, match=r"train-val-test_split\.json or train-val_split\.json is missing") as caught:
        FlintstonesSV((root / wrong).resolve())
    assert str(caught.value).endswith(f"give data.root={root}")


def test_the_yaml_opens_the_set(root: Path):
    data = OmegaConf.load(Path(__file__).parent.parent / "conf" / "data" / "flintstones.yaml")
    data.root = str(root)
    opened = instantiate(OmegaConf.create({"data": data}).data.set)
    assert {split: stories(opened, split) for split in STORIES} == STORIES
    assert data.name == opened.name
    data.windows = "inside"
    inside = instantiate(OmegaConf.create({"data": data}).data.set)
    assert len(inside.records("train")) == len(STORIES["train"]) - 1


def test_annotation_files_are_those_that_decide_the_stories(root: Path):
    names = [SPLIT_FILE, "flintstones_annotations_v1-0.json", "labels.pkl"]
    assert [path.name for path in FlintstonesSV(root).annotation_files()] == names


def test_a_story_is_named_by_its_source_and_grouped_by_its_episode(root: Path):
    record = FlintstonesSV(root).records("test")[0]
    assert record.id == clip(1, 10, 20) and record.group == "s_01_e_10"
    with pytest.raises(ValueError, match=r"split unseen of flintstones has no story \(train, val, test have\)"):
        FlintstonesSV(root).records("unseen")


# -------------------------------------------------------------------------- captions and characters


def test_captions_keep_their_case_and_lose_their_breaks(root: Path):
    write_captions(root, plain_captions() | {clip(1, 10, 30): '  Fred says\n"Yabba | Dabba"\tDoo. '})
    captions = FlintstonesSV(root).records("test")[0].captions
    assert captions[0] == f"Fred stands in {clip(1, 10, 20)}."
    assert captions[1] == 'Fred says "Yabba | Dabba" Doo.'


@pytest.mark.parametrize("text", [None, "", "  \n", "absent"])
def test_a_story_without_a_target_s_caption_is_left_out_and_named(root: Path, text: str | None):
    captions: dict[str, Any] = plain_captions() | {clip(1, 10, 60): text}
    if text == "absent":
        del captions[clip(1, 10, 60)]
    write_captions(root, captions)
    flintstones = FlintstonesSV(root)
    assert stories(flintstones, "test") == STORIES["test"][1:]
    assert (clip(1, 10, 20), f"no caption: of {clip(1, 10, 60)}") in flintstones.problems


def test_a_story_without_its_source_s_caption_is_kept_and_named(root: Path):
    write_captions(root, plain_captions() | {clip(1, 10, 10): ""})
    flintstones = FlintstonesSV(root)
    assert [record.captions[0] for record in flintstones.records("test")][1] == ""
    assert named(flintstones, "no source caption") == [clip(1, 10, 10)]


def test_of_two_captions_of_a_clip_the_last_is_used_and_the_clip_named(root: Path):
    path = root / "flintstones_annotations_v1-0.json"
    again = [
        {"globalID": clip(1, 10, 20), "description": "Another caption."},
        {"globalID": clip(1, 10, 30), "description": f" Fred stands in {clip(1, 10, 30)}."},
    ]
    write_json(path, json.loads(path.read_text()) + again)
    flintstones = FlintstonesSV(root)
    assert flintstones.records("test")[0].captions[0] == "Another caption."
    assert named(flintstones, "two captions") == [clip(1, 10, 20)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{}", "is no list of annotations"),
        (b"[]", "is no list of annotations"),
        (b'[{"globalID": "a", "description": "b"}, {"globalID": "c"}]', "no globalID and description in its entry 1"),
        (b'[{"globalID": "a", "description": ["b"]}]', r"has \['b'\] for the description of a"),
        (b'[{"globalID": "a", "descr', "is no JSON, or truncated"),
        (b'[{"globalID": "a", "description": "caf\xe9"}]', r"is not in UTF-8 \(byte 38\): save it as text in UTF-8"),
        (None, r"flintstones_annotations_v1-0\.json is missing"),
    ],
)
def test_annotations_of_another_kind_are_refused(root: Path, content: bytes | None, message: str):
    path = root / "flintstones_annotations_v1-0.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        FlintstonesSV(root)


def test_labels_give_the_characters_of_each_clip(root: Path):
    record = FlintstonesSV(root).records("test")[1]
    first = len(TRAIN) + len(VAL)
    rows = [(first + TEST.index(key)) % 2 for key in record.clips]
    assert record.characters == tuple((row, 1, 0, 0, 0, 0, 0) for row in rows)


def test_missing_and_bad_labels_are_named_and_leave_the_number_of_stories(root: Path):
    labels: dict[str, Any] = {key: np.zeros(7, dtype=np.int64) for key in ALL_CLIPS if key != clip(1, 10, 60)}
    labels[last(6)] = [2] * 7
    write_pickle(root / "labels.pkl", labels)
    flintstones = FlintstonesSV(root)
    assert {split: stories(flintstones, split) for split in STORIES} == STORIES
    assert named(flintstones, "bad label") == [f"labels.pkl ({last(6)})"]
    assert named(flintstones, "no label") == [last(2), clip(1, 10, 20)]
    assert [record.characters is None for record in flintstones.records("test")] == [True, False]


def test_malicious_labels_are_refused_by_name(root: Path):
    (root / "labels.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match=r"labels\.pkl is refused: it asks for os\.system"):
        FlintstonesSV(root)


def test_without_labels_the_captions_name_the_characters_and_that_is_said(root: Path):
    (root / "labels.pkl").unlink()
    write_captions(root, plain_captions() | {clip(1, 10, 20): "Wilma meets Mr. Slate."})
    flintstones = FlintstonesSV(root)
    assert flintstones.records("test")[0].characters == ((1, 0, 0, 0, 0, 0, 1), *[(0, 1, 0, 0, 0, 0, 0)] * 4)
    assert named(flintstones, "missing") == ["labels.pkl"]


@pytest.mark.parametrize(
    ("caption", "characters"),
    [
        ("Fred and BARNEY's car", {"Fred", "Barney"}),
        ("Alfred rides a dinosaur over pebblestone", set()),
        ("Dino, Pebbles.", {"Dino", "Pebbles"}),
        ("mr slate talks", {"Mr Slate"}),
        ("Mr. Slate talks", {"Mr Slate"}),
        ("slate's office", {"Mr Slate"}),
        ("the translated slates", set()),
        ("Mr. Rubble", set()),
        ("(wilma)-betty/fred", {"Wilma", "Betty", "Fred"}),
        ("", set()),
    ],
)
def test_characters_are_whole_words_of_a_caption(caption: str, characters: set[str]):
    said = FlintstonesSV.characters_said(caption)
    assert {name for name, is_said in zip(FlintstonesSV.characters, said, strict=True) if is_said} == characters


# ------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize("order", ["C", "F"])
def test_every_frame_of_an_array_is_a_picture_in_time(root: Path, order: Any):
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), dtype=np.uint8)
    write_frames(root, long(100), np.asarray(frames, order=order))
    pictures = FlintstonesSV(root).pictures(long(100))
    assert [picture.mode for picture in pictures] == ["RGB"] * 5
    np.testing.assert_array_equal(np.stack([np.asarray(picture) for picture in pictures]), frames)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((5, 16, 16, 3)),
        np.zeros((5, 16, 16, 3), dtype=np.int8),
        np.zeros((16, 16, 3), dtype=np.uint8),
        np.zeros((5, 16, 16), dtype=np.uint8),
        np.zeros((5, 3, 16, 16), dtype=np.uint8),
        np.zeros((5, 16, 16, 4), dtype=np.uint8),
        np.zeros((0, 16, 16, 3), dtype=np.uint8),
        np.zeros((5, 1, 1, 3), dtype=np.uint8),
        np.array([None, {}], dtype=object),
        np.zeros((5, 16, 16, 3), dtype=np.uint8).view([("r", "u1"), ("g", "u1"), ("b", "u1")]),
    ],
)
def test_an_array_of_another_shape_or_kind_is_named_and_never_unpickled(root: Path, frames: np.ndarray):
    write_frames(root, long(100), frames)
    with pytest.raises(ClipError, match=r"^wrong shape: .* is no uint8 \[n, H, W, 3\]"):
        FlintstonesSV(root).pictures(long(100))


def test_damaged_files_are_told_apart(root: Path):
    flintstones = FlintstonesSV(root)
    write_frames(root, long(100), np.zeros((5, 16, 16, 3), dtype=np.uint8))
    path = flintstones.clip_file(long(100))
    whole = path.read_bytes()
    contents = {whole[:-1]: "truncated", whole[:5]: "truncated", whole[:30]: "truncated", b"": "truncated"}
    for content, what in (contents | {b"no array at all": "corrupt", pickle.dumps({}) * 9: "corrupt"}).items():
        path.write_bytes(content)
        with pytest.raises(ClipError, match=f"^{what}"):
            flintstones.pictures(long(100))
    with pytest.raises(ClipError, match=r"^missing$"):
        flintstones.pictures(long(200))


def test_a_header_that_promises_more_than_the_file_holds_takes_no_memory(root: Path):
    path = FlintstonesSV(root).clip_file(long(100))
    with path.open("wb") as stream:
        header = {"descr": "|u1", "fortran_order": False, "shape": (10**9, 128, 128, 3)}
        np.lib.format.write_array_header_1_0(stream, header)
    with pytest.raises(ClipError, match=r"^truncated: 0 bytes of 49152000000000"):
        FlintstonesSV(root).pictures(long(100))
