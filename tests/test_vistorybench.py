"""Export to ViStoryBench: the benchmark's folders, and the same frames back."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storydalle.evaluation.drawn import DrawnFrames
from storydalle.evaluation.vistorybench import export_shots

SIDE = 8
LENGTHS = {"set/test/b": 2, "set/test/a": 1}
RUN = {"method": "story_dalle", "mode": "base", "language": "en", "timestamp": "20260131_120000"}
PATH = "story_dalle/base/en/20260131_120000"


def frames(story: str, num_frames: int) -> np.ndarray:
    return np.random.default_rng([*story.encode()]).integers(0, 256, (num_frames, SIDE, SIDE, 3), dtype=np.uint8)


def stories(lengths: dict[str, int] = LENGTHS) -> Iterator[tuple[str, np.ndarray]]:
    return ((story, frames(story, length)) for story, length in lengths.items())


def export(root: Path, **options: Any) -> Path:
    return export_shots(root, **{"stories": stories(), **RUN, **options})


def files(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def opened(root: Path, lengths: dict[str, int] = LENGTHS) -> DrawnFrames:
    drawn = DrawnFrames(root, lengths, SIDE)
    assert drawn.layout == "vistorybench"
    return drawn


def assert_same(drawn: DrawnFrames, lengths: dict[str, int] = LENGTHS) -> None:
    assert drawn.survey().check() == list(lengths)
    for story, length in lengths.items():
        np.testing.assert_array_equal(drawn.read(story), frames(story, length))


def shot(root: Path, name: str, frame: np.ndarray) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame).save(root / name)


def test_an_export_has_the_folders_that_the_benchmark_reads_and_counts_shots_from_00(tmp_path):
    assert export(tmp_path) == tmp_path / PATH
    assert files(tmp_path) == [
        f"{PATH}/01/shots/shot_00.png",
        f"{PATH}/01/shots/shot_01.png",
        f"{PATH}/02/shots/shot_00.png",
        f"{PATH}/storydalle.json",
    ]
    shown = np.asarray(Image.open(tmp_path / PATH / "01" / "shots" / "shot_01.png"))
    np.testing.assert_array_equal(shown, frames("set/test/b", 2)[1])
    record = json.loads((tmp_path / PATH / "storydalle.json").read_text())
    assert record["stories"] == {"01": "set/test/b", "02": "set/test/a"}


def read_by_the_benchmark(root: Path) -> dict[str, list[Path]]:
    """The shots of each story, below all four levels, as load_outputs of ViStoryBench's read_outputs.py lists them.

    Every folder below a timestamp is a story and its name a number; its shots lie in the folder of it that is called
    so, or else in the story's own, and come in the order of the numbers in their names.
    """
    found = {}
    for run in root.glob("*/*/*/*"):
        for story in sorted((entry for entry in run.iterdir() if entry.is_dir()), key=lambda entry: int(entry.name)):
            named = [e for e in story.iterdir() if e.is_dir() and e.name.lower().endswith(("shot", "shots"))]
            pictures = [file for file in (named or [story])[0].iterdir() if file.suffix == ".png"]
            numbers = {file: [int(part) for part in re.findall("[0-9]+", file.name)] for file in pictures}
            found[story.name] = sorted(pictures, key=numbers.__getitem__)
    return found


def test_the_benchmarks_reader_finds_every_story_and_its_shots_in_order(tmp_path):
    lengths = {"set/test/b": 12, "set/test/a": 1, "31": 2}
    export(tmp_path, stories=stories(lengths))
    read = read_by_the_benchmark(tmp_path)
    for name, (story, length) in zip(("01", "02", "31"), lengths.items(), strict=True):
        for file, frame in zip(read.pop(name), frames(story, length), strict=True):
            np.testing.assert_array_equal(np.asarray(Image.open(file)), frame)
    assert not read
    export(tmp_path / "other", order="shots/story")
    with pytest.raises(ValueError, match=r"invalid literal for int.*'shots'"):
        read_by_the_benchmark(tmp_path / "other")


@pytest.mark.parametrize("order", ["shots/story", "story/shots"])
def test_an_export_is_read_back_from_any_of_its_folders(tmp_path, order):
    run = export(tmp_path, order=order)
    for root in (tmp_path, tmp_path / "story_dalle", run):
        assert_same(opened(root))


def test_stories_named_by_a_number_keep_it(tmp_path):
    lengths = {"03": 1, "17": 2}
    run = export(tmp_path, stories=stories(lengths))
    assert sorted(entry.name for entry in run.iterdir() if entry.is_dir()) == ["03", "17"]
    assert_same(opened(run, lengths), lengths)


def test_a_given_frame_is_shot_00_and_comes_back_as_no_target(tmp_path):
    run = export(tmp_path, first_is_given=True)
    drawn = opened(run, {"set/test/b": 1})
    np.testing.assert_array_equal(drawn.read("set/test/b"), frames("set/test/b", 2)[1:])


def test_stories_are_written_one_by_one(tmp_path):
    written: list[int] = []

    def watched() -> Iterator[tuple[str, np.ndarray]]:
        for pair in stories():
            written.append(len(list(tmp_path.rglob("*.png"))))
            yield pair

    export(tmp_path, stories=watched())
    assert written == [0, 2]


def test_a_folder_with_an_export_is_not_written_into(tmp_path):
    export(tmp_path)
    before = files(tmp_path)
    with pytest.raises(ValueError, match=f"{PATH} holds an export already: give another timestamp"):
        export(tmp_path, stories=stories({"other": 3}))
    assert files(tmp_path) == before
    export(tmp_path, timestamp="20260131-120001")


def test_an_export_that_fails_leaves_nothing_behind(tmp_path):
    def failing() -> Iterator[tuple[str, np.ndarray]]:
        yield from stories()
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        export(tmp_path, stories=failing())
    assert files(tmp_path) == []
    export(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"method": "a/b"}, "method='a/b' is no name of a folder"),
        ({"method": ".."}, "is no name of a folder"),
        ({"mode": "en"}, "mode='en' is no name of a folder"),
        ({"mode": ""}, "mode='' is no name"),
        ({"language": "de"}, "language='de': ViStoryBench knows en and ch"),
        ({"timestamp": "today"}, "give YYYYMMDD_HHMMSS"),
        ({"order": "shots"}, "give one of story/shots, shots/story"),
        ({"stories": []}, "there is no story to export"),
        (
            {"stories": [("a", frames("a", 1)), ("b", frames("b", 1)), ("02", frames("c", 1))]},
            "'b' and '02' would both",
        ),
    ],
)
def test_an_export_that_the_benchmark_could_not_read_is_refused(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        export(tmp_path, **options)
    assert files(tmp_path) == []


@pytest.mark.parametrize("name", ["{}/shots/shot_{:02d}.png", "shots/{}/shot-{}.png", "{}/{:02d}.png"])
@pytest.mark.parametrize("first", [0, 1])
def test_another_systems_run_is_read_by_position_with_a_note(tmp_path, name, first):
    for position, (story, length) in enumerate(LENGTHS.items(), start=1):
        for number, frame in enumerate(frames(story, length), start=first):
            shot(tmp_path, f"uno/base/en/20250824_141800/{name.format(f'{position:02d}', number)}", frame)
    shot(tmp_path, "uno/base/en/20250824_141800/01/chars/00.png", frames("someone", 1)[0])
    drawn = opened(tmp_path)
    assert_same(drawn)
    assert "position in the split's order" in drawn.notes[0]
    assert drawn.notes[1] == f"shots were counted from {first}, every one as a drawn frame"


def test_a_story_folder_called_like_a_story_is_that_story(tmp_path):
    lengths = {"02": 1, "01": 1}
    for story in lengths:
        shot(tmp_path, f"{story}/shots/shot_00.png", frames(story, 1)[0])
    assert_same(opened(tmp_path, lengths), lengths)


def test_a_missing_shot_leaves_the_later_ones_where_they_are(tmp_path):
    run = export(tmp_path, stories=stories({"a": 3}))
    (run / "01" / "shots" / "shot_01.png").unlink()
    survey = opened(run, {"a": 3}).survey()
    assert survey.problems == (("a frame 2", "missing: the story has 3, counted from 1"),)


def test_two_runs_are_not_mixed(tmp_path):
    export(tmp_path)
    export(tmp_path, mode="other")
    with pytest.raises(ValueError, match=rf"holds 2 runs, {PATH}/, .* give the folder of one"):
        DrawnFrames(tmp_path, LENGTHS, SIDE)


@pytest.mark.parametrize("record", ["[]", '{"program": "storydalle", "stories": {"01": 1}}', "{"])
def test_a_record_that_says_nothing_is_refused_by_name(tmp_path, record):
    run = export(tmp_path)
    (run / "storydalle.json").write_text(record)
    with pytest.raises(ValueError, match=r"storydalle\.json (does not say|is not JSON)"):
        opened(run)


def test_what_is_no_shot_and_what_is_of_no_story_is_named(tmp_path):
    run = export(tmp_path)
    shot(run, "shots/01/grid.png", frames("grid", 1)[0])
    shot(run, "shots/09/shot_00.png", frames("nine", 1)[0])
    assert opened(run).survey().problems == (
        ("shots/01/grid.png", "no frame: it is not called <story>/shots/shot_XX.png"),
        ("shots/09/shot_00.png", "no story: '09' is none of this split"),
    )


def test_a_position_beyond_the_split_is_named(tmp_path):
    shot(tmp_path, "03/shots/shot_00.png", frames("three", 1)[0])
    problems = opened(tmp_path).survey().problems
    assert problems[0] == ("03/shots/shot_00.png", "no story: number 03 of 2, counted from 1")
