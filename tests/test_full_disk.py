"""A disk that takes no more: every writer says so as the system does, and a command in one line."""

import errno
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from storydalle.commands import main
from storydalle.files.weights import Planned, write_tensors
from storydalle.metrics.frechet import FeatureStatistics, save_statistics
from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.mistakes import told_of_disk
from storydalle.released.torch_writing import write_torch_file
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.training.state import load_state, save_state
from tests.test_convert import FORMATS, write_vqgan
from tests.tiny import CAPTIONS, tiny_story_dalle
from tests.tiny_gan import tiny_story_gan


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Files larger than this cannot be written, as on a disk that is full: no writer is replaced."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def statistics(path: Path) -> None:
    save_statistics(
        path / "x",
        FeatureStatistics(3, torch.zeros(64).double(), torch.zeros(64, 64).double()),
        protocol_hash="a",
        network_sha256="b",
    )


NUMBERS = {"numbers": torch.zeros(5000)}
WRITERS: dict[str, Callable[[Path], None]] = {
    "an image tokenizer": lambda path: tiny_story_dalle().image_tokenizer.save_pretrained(path),
    "a caption tokenizer": lambda path: CaptionTokenizer.train(CAPTIONS, 300).save(path),
    "a StoryDALL-E": lambda path: tiny_story_dalle().save_pretrained(path / "model"),
    "a StoryGANc": lambda path: tiny_story_gan().save_pretrained(path / "model"),
    "a checkpoint": lambda path: save_state({"state_dict": NUMBERS}, path / "last.safetensors"),
    "statistics": statistics,
    "a label reader": lambda path: LabelReader(dims=(8, 8, 8, 8)).save_pretrained(path),
    "a file of torch": lambda path: write_torch_file(
        path / "x.pt", [Planned("numbers", torch.float32, (5000,))], NUMBERS.__getitem__
    ),
}


@pytest.mark.parametrize("what", WRITERS)
def test_every_writer_of_weights_says_that_the_disk_is_full(tmp_path: Path, what: str) -> None:
    write = WRITERS[what]
    with largest_file(1500), pytest.raises(OSError) as raised:
        write(tmp_path)
    assert raised.value.errno == errno.EFBIG
    assert "no disk space left" in str(told_of_disk(raised.value))
    assert not [file for file in tmp_path.rglob("*.partial")], "nothing is left behind"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS])
def test_every_kind_of_full_disk_is_one_line_of_a_command(
    number: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(arguments: list[str]) -> None:
        raise OSError(number, "what the system says", "runs/last")

    monkeypatch.setattr(main, "dispatch", full)
    assert main.main(["train"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "disk" in said and "runs/last" in said


def test_a_full_disk_is_one_line_where_a_library_has_an_error_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def full(arguments: list[str]) -> None:
        with largest_file(1500):
            save_file(NUMBERS, tmp_path / "x.safetensors")

    monkeypatch.setattr(main, "dispatch", full)
    assert main.main(["convert"]) == 2
    assert "no disk space left" in capsys.readouterr().err
    with pytest.raises(SafetensorError), largest_file(1500):
        save_file(NUMBERS, tmp_path / "x.safetensors")


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "Permission denied"), ValueError("28"), SafetensorError("x")])
def test_other_errors_are_not_taken_for_a_full_disk(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(arguments: list[str]) -> None:
        raise error

    assert told_of_disk(error) is None
    monkeypatch.setattr(main, "dispatch", broken)
    with pytest.raises(type(error)):
        main.main(["train"])


def test_our_files_of_tensors_are_the_librarys(tmp_path: Path) -> None:
    tensors = {
        "b": torch.arange(3),
        "a": torch.randn(2, 3).half(),
        "mask": torch.tensor([True, False, True]),
        "x": torch.randn(4, 5).T,
        "scalar": torch.tensor(2.5),
        "none": torch.zeros(0, 3),
    }
    write_tensors(tmp_path / "ours", tensors, {"said": "this"})
    loaded = load_file(tmp_path / "ours")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(loaded[name], tensors[name]) for name in tensors)
    with safe_open(tmp_path / "ours", "pt") as file:
        assert file.metadata() == {"said": "this"}


def test_convert_says_in_one_line_that_the_disk_is_full_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    write_vqgan(tmp_path / "released")
    released = [setting for setting in FORMATS["taming-vqgan"][2] if not setting.startswith("format")]
    with largest_file(1500):
        assert main.main(["convert", "format=taming-vqgan", *released, "target=ours"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "no disk space left" in said, said
    assert [path.name for path in tmp_path.iterdir()] == ["released"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "last.safetensors"
    save_state({"step": 1}, path)
    with largest_file(1500), pytest.raises(OSError):
        save_state({"step": 2, "state_dict": NUMBERS}, path)
    assert load_state(path) == {"step": 1}
