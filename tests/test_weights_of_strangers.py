"""Files of weights that claim more than they hold: archives that grow, tensors of no numbers, modules in themselves."""

import gzip
import io
import json
import tarfile
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from storydalle.released.archives import unpack
from storydalle.released.stored_weights import stored_weights
from storydalle.released.torch_files import ForeignFile, open_torch_file, tensors_of

MEMORY = 20 * 2**20  # bytes; what is claimed below is larger
NAMES = ("a.ckpt",)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def refused_small(read: Any) -> str:
    """The message with which a reader refuses a file, for which it must take no memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ForeignFile) as raised:
            read()
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()
    return str(raised.value)


# ------------------------------------------------------------------------------------------------ archives


def tar_of(*members: tuple[str, bytes, int]) -> bytes:
    """Zipped headers of these names, kinds and sizes, and as many zeros behind each."""
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1) as file:
        for name, kind, size in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, size
            file.write(info.tobuf(tarfile.GNU_FORMAT) + bytes(-(-size // 512) * 512))
    return stream.getvalue()


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_a_name_of_many_megabytes_is_not_read(tmp_path: Path, folder: Path, kind: bytes) -> None:
    (tmp_path / "x.tar.gz").write_bytes(tar_of(("x", kind, 40_000_000), ("a.ckpt", tarfile.REGTYPE, 1)))
    assert "x.tar.gz" in refused_small(lambda: unpack(tmp_path / "x.tar.gz", NAMES, folder))
    assert not list(folder.iterdir())


def test_files_that_nobody_asked_for_count_too(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(tar_of(("other", tarfile.REGTYPE, 40_000_000), ("a.ckpt", tarfile.REGTYPE, 1)))
    assert "claims to hold 40000000" in refused_small(lambda: unpack(tmp_path / "x.tar.gz", NAMES, folder))


def test_a_compressed_byte_order_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(2)}, path)
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
        content = {name: archive.read(name) for name in archive.namelist() if not name.endswith("byteorder")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
        archive.writestr(zipfile.ZipInfo(f"{root}/byteorder"), bytes(60_000_000), zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    assert "byte order" in refused_small(lambda: open_torch_file(path))


# ------------------------------------------------------------------------------------------------ tensors


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_tensor_of_a_few_numbers_told_many_times_is_refused(tmp_path: Path, is_zip: bool) -> None:
    path = tmp_path / "x.pt"
    torch.save({"a": torch.zeros(1).expand(2**20, 2**12)}, path, _use_new_zipfile_serialization=is_zip)
    assert "of a storage of 1 numbers" in refused_small(lambda: open_torch_file(path))
    torch.save({"a": torch.zeros(1).expand(40, 50)}, path, _use_new_zipfile_serialization=is_zip)
    with open_torch_file(path) as file:
        assert file.read(tensors_of(file.content)["a"]).shape == (40, 50), "a small one is what libraries do write"


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_module_inside_itself_is_refused(tmp_path: Path, is_zip: bool) -> None:
    module = nn.Linear(2, 2)
    module._modules["again"] = module
    torch.save(module, tmp_path / "x.pt", _use_new_zipfile_serialization=is_zip)
    assert "inside itself" in refused_small(lambda: open_torch_file(tmp_path / "x.pt"))


@pytest.mark.parametrize("part", ["_parameters", "_buffers", "_modules"])
def test_a_module_whose_parts_are_no_dictionaries_has_no_weights(tmp_path: Path, part: str) -> None:
    module = nn.Linear(2, 2)
    module.__dict__[part] = [1, 2]
    torch.save(module, tmp_path / "x.pt")
    with open_torch_file(tmp_path / "x.pt") as file:
        assert len(tensors_of(file.content)) == (0 if part == "_parameters" else 2)


def test_encrypted_weights_are_refused_where_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(OrderedDict(a=torch.zeros(2)), path)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next(each for each in archive.infolist() if each.filename.endswith("data/0"))
    content[info.header_offset + 6] |= 1
    at = content.rindex(info.filename.encode()) - 46  # its entry in the list at the end
    content[at + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(ForeignFile, match="truncated or damaged"), stored_weights(path) as stored:
        stored.read("a")


# ------------------------------------------------------------------------------------------------ safetensors


def safetensors(header: object, numbers: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


CLAIMS: dict[str, bytes] = {
    "a header of exabytes": (2**60).to_bytes(8, "little") + b"{}",
    "numbers beyond the end": safetensors({"a": {"dtype": "F32", "shape": [2**30], "data_offsets": [0, 2**32]}}),
    "a shape of more than its bytes": safetensors({"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 8]}}),
    "a product beyond 64 bits": safetensors({"a": {"dtype": "F32", "shape": [2**33, 2**33], "data_offsets": [0, 8]}}),
    "a kind nobody has": safetensors({"a": {"dtype": "F9", "shape": [2], "data_offsets": [0, 8]}}),
    "a kind that no model has": safetensors({"a": {"dtype": "F8_E5M2", "shape": [8], "data_offsets": [0, 8]}}),
    "nested lists": safetensors(b"[" * 50_000),
    "no header": b"",
    "a negative shape": safetensors({"a": {"dtype": "F32", "shape": [-2], "data_offsets": [0, 8]}}),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_header_of_safetensors_is_not_believed(tmp_path: Path, claim: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(CLAIMS[claim])

    def read() -> None:
        with stored_weights(path):
            pass

    assert str(path) in refused_small(read)


def test_an_error_of_what_is_done_with_weights_is_not_blamed_on_their_file(tmp_path: Path) -> None:
    """A disk that fills up while weights are copied."""
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}))
    with pytest.raises(OSError, match="No space") as raised, stored_weights(path) as stored:
        assert stored.read("a").tolist() == [0, 0]
        raise OSError(28, "No space left on device")
    assert not isinstance(raised.value, ValueError)
