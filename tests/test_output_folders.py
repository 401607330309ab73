"""The folder that a command writes: files of others stay, and nothing is lost where the disk is full."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from storydalle.files import outputs
from storydalle.models import kinds
from storydalle.reporting import strips
from tests.command_line import Command, assert_mistake, command, files, painting, story  # noqa: F401


def test_a_folder_with_other_files_is_refused_and_kept(command: Command, story: Path) -> None:  # noqa: F811
    Path("work").mkdir()
    Path("work/thesis.txt").write_text("years")
    before = files(Path("work"))
    assert_mistake(command("generate", "captions=story.txt", "out=work"), "thesis.txt", "overwrite=true")
    assert files(Path("work")) == before


def test_foreign_files_with_our_names_are_refused(command: Command, story: Path) -> None:  # noqa: F811
    Path("work").mkdir()
    Path("work/strip.png").write_bytes(b"not ours")
    assert_mistake(command("generate", "captions=story.txt", "out=work"), "strip.png")


def test_an_earlier_strip_is_replaced_without_leftovers(command: Command, story: Path) -> None:  # noqa: F811
    Path("long.txt").write_text("Pip waves.\nPip sits.\nPip runs.\n")
    command("generate", "captions=long.txt", "out=strip", "num_candidates=2")
    assert command("generate", "captions=story.txt", "out=strip").status == 0
    command("generate", "captions=story.txt", "out=fresh")
    assert files(Path("strip")) == files(Path("fresh"))


def test_a_file_added_to_an_earlier_strip_is_protected(command: Command, story: Path) -> None:  # noqa: F811
    command("generate", "captions=story.txt", "out=strip")
    Path("strip/frames/mine.png").write_bytes(b"mine")
    assert_mistake(command("generate", "captions=story.txt", "out=strip"), "frames/mine.png")


def test_overwrite_keeps_the_other_files(command: Command, story: Path) -> None:  # noqa: F811
    Path("work").mkdir()
    Path("work/thesis.txt").write_text("years")
    assert command("generate", "captions=story.txt", "out=work", "overwrite=true").status == 0
    assert Path("work/thesis.txt").read_text() == "years"
    assert Path("work/strip.png").is_file()


def test_an_empty_folder_is_used(command: Command, story: Path) -> None:  # noqa: F811
    Path("empty").mkdir()
    assert command("generate", "captions=story.txt", "out=empty").status == 0


def test_a_file_as_output_folder_is_one_line(command: Command, story: Path) -> None:  # noqa: F811
    assert_mistake(command("generate", "captions=story.txt", "out=frame.png"), "frame.png", "is a file")
    assert_mistake(command("generate", "captions=story.txt", "out=frame.png/strip"), "frame.png")


def test_a_record_cannot_make_us_remove_files_elsewhere(tmp_path: Path) -> None:
    folder, partial = tmp_path / "strip", tmp_path / "partial"
    folder.mkdir()
    partial.mkdir()
    (tmp_path / "precious.txt").write_text("years")
    record = {"program": outputs.PROGRAM, "files": ["../precious.txt", str(tmp_path / "precious.txt"), "strip.gif"]}
    (folder / "story.json").write_text(json.dumps(record))
    (folder / "strip.gif").write_bytes(b"old")
    (partial / "story.json").write_text("{}")
    outputs.commit(partial, folder)
    assert (tmp_path / "precious.txt").read_text() == "years"
    assert set(files(folder)) == {"story.json"}


def test_a_full_disk_is_told_before_any_work(command: Command, story: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setattr(kinds, "open_model", lambda folder: pytest.fail("a model was opened"))
    assert_mistake(command("generate", "captions=story.txt"), "no disk space")


def test_a_disk_that_fills_up_while_writing_loses_nothing(
    command: Command,  # noqa: F811
    story: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command("generate", "captions=story.txt", "out=strip")
    before = files(story.parent)

    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(strips, "save_gif", full)
    assert_mistake(
        command("generate", "captions=story.txt", "out=strip", "seed=3"), "no disk space", "nothing was changed"
    )
    assert files(story.parent) == before


def test_the_results_of_a_readme_are_replaced_between_their_markers(tmp_path: Path) -> None:
    from storydalle.mistakes import UserError
    from storydalle.reporting.result_pages import RESULTS_BEGIN, RESULTS_END, fill_results

    page = tmp_path / "README.md"
    page.write_text(f"before\n{RESULTS_BEGIN}\nold\n{RESULTS_END}\nafter\n")
    fill_results(page, "| new |")
    assert page.read_text() == f"before\n{RESULTS_BEGIN}\n| new |\n{RESULTS_END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(UserError, match="results:begin"):
        fill_results(page, "new")


@pytest.mark.parametrize("out", [".", ".."])
def test_the_folder_that_one_is_in_is_written_into(
    command: Command,  # noqa: F811
    story: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    out: str,
) -> None:
    (story.parent / "within" / "inner").mkdir(parents=True)
    monkeypatch.chdir(story.parent / "within" / "inner")
    assert command("generate", "captions=../../story.txt", f"out={out}").status == 0
    assert Path(out, "strip.png").is_file() and not list(story.parent.rglob("*.partial"))
