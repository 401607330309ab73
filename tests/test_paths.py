"""Paths as people type them, and files named after ids that strangers chose."""

import ast
import json
import os
import pwd
import tempfile
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import storydalle
from storydalle.commands.main import main
from storydalle.evaluation.drawn import DrawnFrames
from storydalle.evaluation.entries import folders_of_rows
from storydalle.evaluation.evaluation import save_frames
from storydalle.files.paths import HOMELESS, PathError, file_name, folder_of, user_path
from storydalle.files.reading import read_json
from storydalle.stories.set_stories import SetStories
from storydalle.stories.sets.folder import FolderStories
from storydalle.stories.story import StoryBatch

PACKAGE = Path(storydalle.__file__).parent
PIECES = (
    "",
    ".",
    "..",
    "/",
    "~",
    "%",
    "a",
    "A",
    " ",
    "#1",
    "%2F",
    "%7E",
    "~b",
    "\\",
    "\0",
    "\n",
    "é",
    "\udc80",
    "x" * 120,
)
IDS = sorted({"".join(parts) for parts in product(PIECES, repeat=3)})

# ------------------------------------------------------------------------------------------------ ids


def test_no_two_ids_have_one_file_and_each_is_one_name_of_a_file_system() -> None:
    names = {file_name(id) for id in IDS}
    assert len(names) == len(IDS)
    for name in names:
        assert name not in ("", ".", "..") and not {"/", "\0", "\\"} & set(name) and not name.startswith((".", "~"))
        assert len(os.fsencode(f"{name}-source.png")) <= 255


def test_no_two_ids_have_one_folder_and_each_stays_below_the_folder_of_all() -> None:
    folders = {folder_of(id) for id in IDS}
    assert len(folders) == len(IDS)
    for folder in folders:
        assert os.path.normpath(folder) == folder and not folder.startswith(("/", ".."))


@pytest.mark.parametrize("id", ["toon/test/00012", "season_1_episode_12", "pororo/test/Pororo_1_ep1/3", "own story#2"])
def test_ids_that_are_folders_keep_their_names(id: str) -> None:
    assert folder_of(id) == id


HOSTILE = ["../../../up", "/absolute", "a/../../b", "..", ".hidden", "a\0b", "x" * 300, "two\nlines"]


def test_saved_frames_of_hostile_ids_stay_inside_and_are_read_back_as_theirs(tmp_path: Path) -> None:
    ids = [f"folder/test/{id}" for id in HOSTILE]
    frames = torch.rand(len(ids), 2, 3, 8, 8) * 2 - 1
    mask = torch.ones(len(ids), 2, dtype=torch.bool)
    save_frames(
        tmp_path / "in/saved", frames, StoryBatch([["A.", "B."]] * len(ids), frames[:, 0], frames, mask, {}, ids)
    )
    assert [each.name for each in tmp_path.iterdir()] == ["in"] and len(os.listdir(tmp_path / "in")) == 1
    drawn = DrawnFrames(tmp_path / "in/saved", dict.fromkeys(ids, 2), 8)
    assert drawn.survey().check() == ids
    for i, id in enumerate(ids):
        np.testing.assert_allclose(drawn.read(id) / 127.5 - 1, frames[i].permute(0, 2, 3, 1), atol=0.01)


def test_two_models_of_one_name_are_saved_apart() -> None:
    rows = ["runs/a/full/model", "runs/b/full/model", "story_dalle", "../x"]
    names = folders_of_rows(rows)
    assert len(set(names.values())) == 4 and names["story_dalle"] == "story_dalle"
    assert not any("/" in name or name.startswith(".") for name in names.values())


def test_prepare_writes_hostile_ids_inside_its_folder_and_training_finds_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("own").mkdir()
    rows = []
    for number, id in enumerate(["../../up", "a/b", "a_b", "a~b"]):
        names = [f"{number}-{i}.png" for i in range(2)]
        for name in names:
            Image.new("RGB", (16, 16), (50 * number, 9, 9)).save(Path("own") / name)
        rows.append({"id": id, "frames": names, "captions": ["One.", "Two."], "split": "train"})
    Path("own/stories.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    settings = ["data=folder", "data.root=own", "split=train", "preview=4", "out=prepared", "data.resolution=16"]
    assert main(["prepare", *settings]) == 0
    assert [each.name for each in tmp_path.iterdir()] == ["work"]
    assert len(list(Path("prepared/strips").glob("*.png"))) == 4, "one strip a story"
    assert len(SetStories(FolderStories("own"), "train", 16, ids_folder="prepared")) == 4


# ------------------------------------------------------------------------------------------------ paths


@cache
def calls_of(path: Path) -> list[str]:
    return [ast.unparse(node) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]


def test_homes_are_looked_up_in_one_place_and_every_setting_goes_through_it() -> None:
    for path in PACKAGE.rglob("*.py"):
        for call in calls_of(path):
            assert ".expanduser(" not in call or path.name == "paths.py", f"{path}: {call}"
            assert not call.startswith(("Path(settings[", "Path(str(settings[")), f"{path}: {call}"


def test_a_path_is_what_was_typed_but_for_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/homes/me")
    assert user_path("~/x") == Path("/homes/me/x") and user_path("~") == Path("/homes/me")
    for text in ("a/~", "./~x", "2024_11_26", "x~", "/a b"):
        assert user_path(text) == Path(text)


UNKNOWN = "~nosuchuser/x"
SETTINGS = {
    "demo": ["out", "model"],
    "generate": ["captions", "source", "story", "out", "model"],
    "train": ["runs", "pretrained"],
    "evaluate": ["images", "images=[.,X]", "save", "model", "compare", "out", "readme", "export", "runs", "data.ids"],
    "prepare": ["out", "data.root", "pretrained", "shards"],
    "convert": ["source", "target", "image_encoder"],
    "report": ["runs", "out", "readme"],
    "bench": ["out", "readme", "model"],
}
GROUPS = {"train": ["experiment=toon/text_to_image"], "evaluate": ["data=folder"], "prepare": ["data=folder"]}
GROUPS |= {"bench": ["bench=data"], "convert": ["format=mindalle", "source=.", "target=new"]}


ASKED = [(command, setting, UNKNOWN) for command, names in SETTINGS.items() for setting in names]
ASKED += [(command, names[0], "a\0b") for command, names in SETTINGS.items()]
ASKED += [(command, names[-1], "x" * 300) for command, names in SETTINGS.items()]


@pytest.mark.parametrize(("command", "setting", "value"), ASKED)
def test_a_path_that_cannot_be_is_one_line(
    command: str,
    setting: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = setting.replace("X", f"'{value}'") if "=" in setting else f"{setting}={value}"
    assert main([command, *GROUPS.get(command, []), given]) == 2
    err = capfd.readouterr().err
    assert len(err.splitlines()) == 1 and any(
        said in err for said in ("nosuchuser", "zero byte", "too long for a file")
    ), err
    assert not list(tmp_path.iterdir())


def test_a_user_whom_the_machine_does_not_know_works_without_a_home(tmp_path: Path, monkeypatch, capfd) -> None:
    """As in a container that runs under a bare number."""

    def unknown(*_: object) -> None:
        raise KeyError("uid not found")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setenv(HOMELESS, "")  # so that both are put back
    monkeypatch.delenv(HOMELESS)
    monkeypatch.delenv("HOME", raising=False)
    assert main(["demo", "out=~/demo"]) == 2
    note, said = capfd.readouterr().err.splitlines()
    assert note.startswith("note: this user has no home") and "the path ~/demo begins with ~" in said
    assert Path.home().is_dir() and not list(Path.home().iterdir())
    assert main(["report", "runs=~"]) == 2, "the lent home is not the user's"


# ------------------------------------------------------------------------------------------------ JSON


@pytest.mark.parametrize("text", ["a\0b", "x" * 300, "a/" * 3000, "\ud800", "~nosuchuser", "~nosuchuser/a"])
def test_what_no_file_can_be_called_is_refused(text: str) -> None:
    with pytest.raises(PathError):
        user_path(text)


def test_json_is_read_in_one_place() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "text.py":
            assert not [call for call in calls_of(path) if call.startswith(("json.load", "json.JSONDecoder"))], path


@pytest.mark.parametrize(
    "content", ["[" * 10**5, '{"a":' * 10**5, "[" * 200 + "]" * 200, "1" * 5000, "{", "\0", "\udc80"]
)
def test_json_that_nobody_can_walk_through_is_refused_by_name(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"x\.json is not"):
        read_json(tmp_path / "x.json")


def test_devices_folders_and_files_of_gigabytes_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 2**40)
    os.mkfifo(tmp_path / "pipe")
    for path, said in ((Path("/dev/zero"), "no file"), (tmp_path / "pipe", "no file"), (tmp_path, "no file")):
        with pytest.raises(ValueError, match=said):
            read_json(path)
    with pytest.raises(ValueError, match=f"{2**40} bytes, more than"):
        read_json(tmp_path / "large")
