"""One command at a time in a folder."""

import json
import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from storydalle.commands import generate
from storydalle.commands.application import Request
from storydalle.files import locks, outputs
from storydalle.files.locks import LOCK, forget_killed, held
from storydalle.mistakes import UserError
from tests.command_line import Command, assert_mistake, command, files, painting, story  # noqa: F401


def test_the_second_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    with held(tmp_path / "out", "generate"):
        with pytest.raises(UserError) as told, held(tmp_path / "out", "generate"):
            pytest.fail("two at once")
        since = json.loads((tmp_path / "out" / LOCK).read_text())["since"]
        for part in (
            str(tmp_path / "out"),
            "storydalle generate",
            f"process {os.getpid()}",
            socket.gethostname(),
            since,
        ):
            assert part in str(told.value)
    with held(tmp_path / "out", "generate"):
        pass


def test_a_lock_leaves_nothing_behind_and_counts_as_nobodys_file(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "b", "generate"):
        assert list(outputs.foreign_files(tmp_path / "a" / "b")) == []
    assert not (tmp_path / "a").exists()
    with held(tmp_path / "a" / "b", "generate"):
        (tmp_path / "a" / "b" / "strip.png").write_bytes(b"ours")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["strip.png"]
    with held(tmp_path / "model", "convert", is_folder=False):
        assert not (tmp_path / "model").exists(), "what must not be there yet is not made"


def hold(folder: str, ready: Any) -> None:
    with held(Path(folder), "train"):
        ready.set()
        signal.pause()


def test_the_lock_of_a_killed_process_keeps_nobody_out(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(str(tmp_path), ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(UserError, match=f"process {process.pid} "), held(tmp_path, "train"):
        pytest.fail("two at once")
    process.kill()
    process.join()
    assert (tmp_path / LOCK).is_file(), "killed, so that nothing was tidied"
    with held(tmp_path, "train"):
        forget_killed(tmp_path)
        assert (tmp_path / LOCK).is_file(), "it is held"
    (tmp_path / LOCK).write_text("of a killed command")
    forget_killed(tmp_path)
    assert not list(tmp_path.iterdir())


COMMANDS = {
    "generate": (["captions=story.txt"], "strips/story"),
    "demo": (["num_stories=1"], "demo"),
    "evaluate": (["num_stories=2"], "evaluated/toon/story_dalle-num_stories2"),
    "prepare": (["data=toon"], "prepared/toon"),
    "train": (["experiment=toon/image_tokenizer", "name=first"], "runs/toon/image_tokenizer/first"),
    "bench": ([], "benched/all"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_stays_out_of_a_folder_that_another_writes(
    name: str,
    command: Command,  # noqa: F811
    story: Path,  # noqa: F811
) -> None:
    arguments, folder = COMMANDS[name]
    with held(Path(folder), name):
        before = files(Path())
        assert_mistake(command(name, *arguments), folder, f"storydalle {name} (process {os.getpid()} on ")
        assert files(Path()) == before


def test_convert_stays_away_from_a_target_that_another_writes(command: Command, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "source.ckpt").write_bytes(b"")
    with held(tmp_path / "model", "convert", is_folder=False):
        assert_mistake(
            command("convert", "format=taming-vqgan", "source=source.ckpt", "target=model"), "convert (process"
        )


def test_two_writers_never_mix_their_strips(command: Command, story: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """The second comes at every moment at which the first could be overtaken: between any two files of its own."""
    second: list[Request] = []
    with monkeypatch.context() as patch:
        patch.setattr(generate, "run", second.append)
        command("generate", "captions=story.txt", "seed=2", "out=shared")
    assert command("generate", "captions=story.txt", "seed=1", "out=alone").status == 0
    plain, told = os.replace, list[str]()

    def replace(source: Any, target: Any) -> None:
        plain(source, target)
        if Path(target).is_relative_to("shared"):
            with pytest.raises(UserError) as error:
                generate.run(second[0])
            told.append(str(error.value))

    monkeypatch.setattr(os, "replace", replace)
    assert command("generate", "captions=story.txt", "seed=1", "out=shared").status == 0
    assert len(told) == len(files(Path("alone"))) and all("shared is being written by" in each for each in told)
    assert files(Path("shared")) == files(Path("alone"))
    generate.run(second[0])
    assert json.loads(Path("shared/story.json").read_text())["seed"] == 2


def test_a_lock_that_says_nothing_is_of_another_command(tmp_path: Path) -> None:
    with held(tmp_path, "prepare"):
        for content in ("", "[]", "{}", '{"pid": 1}'):
            (tmp_path / LOCK).write_text(content)
            with pytest.raises(UserError, match="written by another prepare"), held(tmp_path, "prepare"):
                pytest.fail("two at once")
    assert locks.is_lock(LOCK)
