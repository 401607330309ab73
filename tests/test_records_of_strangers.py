"""Records and folders that a stranger made: what a command writes over and reads because of them, and what not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from storydalle.commands import generate
from storydalle.commands.main import main
from storydalle.files import outputs
from storydalle.files.conf import conf_folder
from storydalle.mistakes import UserError
from storydalle.models import kinds
from storydalle.reporting import pages, strips
from storydalle.settings import filled
from tests.tiny import tiny_story_dalle

MODEL = tiny_story_dalle(resolution=72)
CAPTIONS = ["Pip waves.", "Pip jumps."]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder, and a strip in it that generate drew with a tiny model."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(kinds, "open_model", lambda folder: MODEL)
    monkeypatch.setattr(strips, "strip_image", lambda strip: Image.new("RGB", (1, 1)))  # pages take longest
    monkeypatch.setattr(strips, "save_gif", lambda strip, path, seconds: path.write_bytes(b"GIF"))
    monkeypatch.setattr(pages, "story_page", lambda *parts, **more: "")
    Image.new("RGB", (16, 16), "red").save("frame.png")
    assert main(["generate", f"captions={json.dumps(CAPTIONS)}", "source=frame.png", "out=strip"]) == 0
    return tmp_path / "work"


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink() or path.is_file()}


def refused(capsys: pytest.CaptureFixture, *settings: str) -> str:
    capsys.readouterr()
    assert main(["generate", *settings]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1, said
    return said


# ------------------------------------------------------------------------------------------------ what is removed


def test_a_record_cannot_have_files_removed_that_no_command_wrote(folder: Path) -> None:
    own = names(Path("strip"))
    precious = ["thesis.tex", "frames/notes.txt", "frames/1.png", "frames/01.PNG", "Strip.png", "strip.pdf"]
    precious += ["sub/01.png", ".hidden", "frames/sub/01.png", "strip-1.png"]
    for name in precious:
        (Path("strip") / name).parent.mkdir(exist_ok=True)
        (Path("strip") / name).write_text("years of work")
    outside = folder / "outside.png"
    outside.write_text("years of work")
    listed = [*own, *precious, "../outside.png", str(outside), "frames/../../outside.png", "", ".", "frames", 7, "a\0b"]
    edited(Path("strip/story.json"), files=listed)
    assert main(["generate", "story=strip/story.json", "seed=3", "overwrite=true"]) == 0
    assert names(Path("strip")) == own | set(precious) and outside.is_file()
    assert all((Path("strip") / name).read_text() == "years of work" for name in precious)


def test_what_a_record_lists_of_our_own_names_is_removed_when_it_is_stale(folder: Path) -> None:
    assert main(["generate", "story=strip/story.json", "num_candidates=2", "out=strip"]) == 0
    assert "frames/01-2.png" in names(Path("strip"))
    assert main(["generate", "story=strip/story.json", "num_candidates=1", "out=strip"]) == 0
    assert "frames/01-2.png" not in names(Path("strip"))


def test_files_behind_links_are_neither_removed_nor_written_over(folder: Path, capsys: pytest.CaptureFixture) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    for name in ("01.png", "02.png", "03.png", "09.png"):
        (elsewhere / name).write_text("years of work")
    for path in Path("strip/frames").iterdir():
        path.unlink()
    Path("strip/frames").rmdir()
    Path("strip/frames").symlink_to(elsewhere)
    edited(Path("strip/story.json"), source=None, files=["story.json", "strip.png", "frames/09.png", "frames/01.png"])
    assert "holds other files (frames)" in refused(capsys, "story=strip/story.json")
    said = refused(capsys, "story=strip/story.json", "overwrite=true")
    assert "out=strip has a link in place of the folder frames" in said
    assert all(path.read_text() == "years of work" for path in elsewhere.iterdir()) and len(names(elsewhere)) == 4
    assert Path("strip/strip.png").is_file()


def test_a_link_in_the_place_of_a_file_is_replaced_and_what_it_leads_to_is_kept(folder: Path) -> None:
    for name in ("thesis", "other"):
        (folder / name).write_text("years of work")
    Path("strip/strip.png").unlink()
    Path("strip/strip.png").symlink_to(folder / "thesis")
    Path("strip/frames/09.png").symlink_to(folder / "other")
    edited(Path("strip/story.json"), files=[*names(Path("strip")), "frames/09.png"])
    assert main(["generate", "story=strip/story.json", "overwrite=true"]) == 0
    assert (folder / "thesis").read_text() == (folder / "other").read_text() == "years of work"
    assert not Path("strip/strip.png").is_symlink() and Path("strip/frames/09.png").is_symlink()


@pytest.mark.parametrize("name", outputs.RECORDS)
def test_what_a_command_writes_has_the_names_that_it_may_remove(folder: Path, name: str) -> None:
    """The patterns are those of the commands, no wider and no narrower."""
    if name == "demo.json":
        assert main(["demo", "num_stories=2"]) == 0
    else:
        assert main(["generate", "story=strip/story.json", "out=demo", "num_candidates=3"]) == 0
    assert outputs.own_files(Path("demo")) == names(Path("demo"))
    assert len(names(Path("demo"))) >= 4


# ------------------------------------------------------------------------------------------------ what is read


def test_a_record_cannot_show_pictures_of_other_folders(folder: Path, capsys: pytest.CaptureFixture) -> None:
    Image.new("RGB", (16, 16), "blue").save(folder / "private.png")
    Path("strip/link.png").symlink_to(folder / "private.png")
    Path("strip/loop.png").symlink_to("loop.png")
    for source in ("../private.png", str(folder / "private.png"), "link.png", "a\0b", "~/x.png/../../../private.png"):
        edited(Path("strip/story.json"), source=source)
        said = refused(capsys, "story=strip/story.json", "out=new")
        assert "outside its folder" in said or "no source picture" in said, said
        assert not Path("new").exists()
    for source in (7, ["frame.png"], {"a": 1}, True):
        edited(Path("strip/story.json"), source=source)
        assert "outside its folder" in refused(capsys, "story=strip/story.json", "out=new")
    assert main(["generate", "story=strip/story.json", "out=new", f"source={folder / 'private.png'}"]) == 0
    with Image.open("new/frames/00-source.png") as source:
        assert source.convert("RGB").getpixel((3, 3)) == (0, 0, 255), "what the user names is drawn on"


def test_a_record_reads_no_file_as_captions_and_sets_nothing_but_sampling(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    Path("secret.txt").write_text("a secret\n")
    edited(Path("strip/story.json"), captions="secret.txt")
    assert "is not a story.json that generate wrote" in refused(capsys, "story=strip/story.json", "out=new")
    sampling = {"captions": ["Other."], "source": str(folder / "frame.png"), "model": "other", "out": "evil", "seed": 9}
    edited(Path("strip/story.json"), captions=CAPTIONS, sampling=sampling)
    assert main(["generate", "story=strip/story.json", "out=new"]) == 0
    record = json.loads(Path("new/story.json").read_text())
    assert record["captions"] == CAPTIONS and record["model"] == "story_dalle" and record["seed"] == 0
    assert not Path("evil").exists()


KINDS: list[Any] = [None, True, -1, 1e999, 10**400, "text", "a\0b", "../..", [], {}, [[]], ["\ud800"], {"a": {"b": 1}}]


@pytest.mark.parametrize(
    "key", ["captions", "source", "model", "seed", "sampling", "files", "program", "weights_sha256", "temperature"]
)
def test_a_record_of_any_kind_is_understood_or_one_line(folder: Path, key: str) -> None:
    whole = json.loads(Path("strip/story.json").read_text())
    defaults = yaml.safe_load((conf_folder() / "generate.yaml").read_text())
    for kind in KINDS:
        changed = whole | ({"sampling": whole["sampling"] | {key: kind}} if key == "temperature" else {key: kind})
        Path("strip/story.json").write_text(json.dumps(changed))
        try:
            saved = generate.saved_settings(Path("strip/story.json"), frozenset())
            settings = filled(generate.GenerateSettings, defaults | saved)
            generate.read_story(settings)
            outputs.check_output(Path("strip"), False, 1)
        except UserError:
            continue


@pytest.mark.parametrize("content", ["[" * 100_000, '{"a":' * 100_000, "", "\0", "[1]", "{}", "1" * 5000, '{"a": nul'])
def test_what_is_no_record_is_one_line(folder: Path, capsys: pytest.CaptureFixture, content: str) -> None:
    Path("strip/story.json").write_text(content)
    assert "is not a story.json that generate wrote" in refused(capsys, "story=strip/story.json")


def test_a_record_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path: Path = tmp_path / "story.json"
    with path.open("wb") as file:
        file.truncate(2**34)
    read: Callable[[Path], Any] = outputs.read_record
    with pytest.raises(ValueError, match="more than the 16777216"):
        read(path)
