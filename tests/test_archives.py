"""Archives of weights: what is wanted is unpacked, and nothing of the archive's own paths, links or promises."""

import io
import os
import tarfile
from pathlib import Path

import pytest

from storydalle.released.archives import unpack
from storydalle.released.torch_files import ForeignFile

NAMES = ("a.ckpt", "b.json")


def packed(path: Path, members: dict[str, bytes | tarfile.TarInfo], kind: str = "w:gz") -> Path:
    with tarfile.open(path, kind) as tar:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                tar.addfile(content)
            else:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", ["w:gz", "w"])
def test_the_files_that_are_wanted_are_unpacked_wherever_they_lie(tmp_path: Path, kind: str) -> None:
    content = {"1.3B/a.ckpt": os.urandom(500), "1.3B/tokenizer/b.json": b"{}", "1.3B/other": b"x", "../evil": b"x"}
    path, folder = packed(tmp_path / "x.tar.gz", content, kind), tmp_path / "out"
    folder.mkdir()
    unpack(path, NAMES, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        "a.ckpt": content["1.3B/a.ckpt"],
        "b.json": b"{}",
    }
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "x.tar.gz"]


@pytest.mark.parametrize("name", ["../a.ckpt", "/a.ckpt", "x/../../a.ckpt"])
def test_paths_that_lead_out_are_not_followed(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    unpack(packed(tmp_path / "x.tar.gz", {name: b"1", "b.json": b"{}"}), NAMES, folder)
    assert {file.name for file in folder.iterdir()} == set(NAMES)
    assert not (tmp_path / "a.ckpt").exists() and not Path("/a.ckpt").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path: Path, kind: bytes) -> None:
    link = tarfile.TarInfo("1.3B/a.ckpt")
    link.type, link.linkname = kind, "/etc/passwd"
    with pytest.raises(ForeignFile, match=r"a\.ckpt as a link"):
        unpack(packed(tmp_path / "x.tar.gz", {"link": link, "b.json": b"{}"}), NAMES, tmp_path)
    assert not (tmp_path / "a.ckpt").exists()


def test_a_file_that_stands_twice_or_is_missing_is_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar.gz", {"one/a.ckpt": b"1", "two/a.ckpt": b"2", "b.json": b"{}"})
    with pytest.raises(ForeignFile, match=r"a\.ckpt .*twice"):
        unpack(path, NAMES, tmp_path)
    (tmp_path / "a.ckpt").unlink()
    with pytest.raises(ForeignFile, match=r"holds no b\.json"):
        unpack(packed(path, {"a.ckpt": b"1"}), NAMES, tmp_path)


def test_an_archive_that_would_grow_beyond_all_weights_is_refused_before_it_does(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar.gz", {"a.ckpt": bytes(5_000_000), "b.json": b"{}"})
    assert path.stat().st_size < 20_000
    with pytest.raises(ForeignFile, match="claims to hold 5000000"):
        unpack(path, NAMES, tmp_path)
    assert not (tmp_path / "a.ckpt").exists()


def test_truncated_and_foreign_archives_are_named(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.tar.gz", {"a.ckpt": os.urandom(5000), "b.json": b"{}"})
    content = path.read_bytes()
    for length in (0, 1, 100, len(content) // 2, len(content) - 30):
        path.write_bytes(content[:length])
        folder = tmp_path / f"out{length}"
        folder.mkdir()
        with pytest.raises(ForeignFile, match=r"x\.tar\.gz (is truncated|holds no)"):
            unpack(path, NAMES, folder)
    path.write_bytes(b"<html>" * 200)
    with pytest.raises(ForeignFile, match="no archive"):
        unpack(path, NAMES, tmp_path)
