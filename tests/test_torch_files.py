"""Files of torch.save: read as torch reads them, a tensor at a time, and never executed."""

import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from storydalle.released.torch_files import ForeignFile, Inert, StoredTensor, open_torch_file, tensors_of

MARK = "it_ran"
FORMATS = {"zip": True, "stream": False}


class Calls:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> Any:
        return self.function, self.arguments


def save(content: Any, path: Path, kind: str) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=FORMATS[kind])
    return path


@pytest.fixture(params=FORMATS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    table = torch.randn(6, 5)
    return {
        "table": table,
        "rows of it": table[2:4],
        "columns of it": table[:, 1:3],
        "turned": table.t(),
        "number": torch.tensor(3),
        "nothing": torch.zeros(0, 4),
        "shared": nn.Parameter(table),
        **{str(dtype): torch.tensor([0, 1, 1]).to(dtype) for dtype in DTYPES},
    }


DTYPES = (
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
)


def test_every_tensor_comes_back_to_the_last_bit(tmp_path: Path, kind: str) -> None:
    saved = tensors()
    with open_torch_file(save({"state_dict": saved, "epoch": 3}, tmp_path / "x.ckpt", kind)) as file:
        found = tensors_of(file.content["state_dict"])
        assert list(found) == list(saved)
        for name, tensor in reversed(found.items()):
            assert tensor.dtype == saved[name].dtype and tensor.shape == tuple(saved[name].shape)
            assert torch.equal(file.read(tensor), saved[name]), name
        assert file.content["epoch"] == 3


def test_a_whole_network_is_read_as_its_state(tmp_path: Path, kind: str) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()), nn.Linear(2, 2, bias=False)
    )
    with open_torch_file(save(network, tmp_path / "network.pkl", kind)) as file:
        found = tensors_of(file.content)
        assert isinstance(file.content, Inert)
        assert set(found) == set(network.state_dict())
        assert all(torch.equal(file.read(tensor), network.state_dict()[name]) for name, tensor in found.items())


def test_what_trainers_leave_behind_is_passed_over(tmp_path: Path, kind: str) -> None:
    from argparse import Namespace

    network = nn.Linear(2, 2)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": network.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "hyper_parameters": Namespace(rate=0.1, path=Path("runs")),
        "device": torch.device("cpu"),
        "size": torch.Size([2]),
        "dtype": torch.float32,
        "seen": {1, 2},
    }
    with open_torch_file(save(content, tmp_path / "x.ckpt", kind)) as file:
        assert set(tensors_of(file.content["state_dict"])) == {"weight", "bias"}


def test_storages_are_read_when_they_are_asked_for(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save({name: torch.full((50,), float(i)) for i, name in enumerate("abc")}, tmp_path / "x.pt", kind)
    with open_torch_file(path) as file:
        asked = []
        read = file.storage_bytes
        monkeypatch.setattr(file, "storage_bytes", lambda key: asked.append(key) or read(key))
        assert not asked
        assert file.read(file.content["b"]).tolist() == [1.0] * 50
        file.read(file.content["b"])
        assert len(asked) == 1


# ------------------------------------------------------------------------------------- what is refused

ATTACKS = {
    "os.system": (Calls(os.system, f"touch {MARK}"), f"{os.system.__module__}.system"),
    "eval": (Calls(eval, f"open({MARK!r}, 'w')"), r"builtin(s|__)\.eval"),
    "getattr": (Calls(getattr, Calls(__import__, "os"), "system"), r"builtin(s|__)\."),
    "open": (Calls(open, MARK, "w"), "open"),
    "torch.load": (Calls(torch.load, MARK), r"torch\.serialization\.load"),
    "torch.hub": (Calls(torch.hub.load, "owner/name", "model"), r"torch\.hub\.load"),
    "pickle.loads": (Calls(pickle.loads, b"N."), "pickle.loads"),
    "importlib": (Calls(__import__("importlib").import_module, "antigravity"), "import_module"),
    "torch.jit": (Calls(torch.jit.load, MARK), r"torch\.jit"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_file_that_asks_for_code_is_refused_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, attack: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content, named = ATTACKS[attack]
    path = save({"weight": torch.zeros(3), "extra": [content]}, tmp_path / "x.ckpt", kind)
    with pytest.raises(ForeignFile, match=rf"x\.ckpt is refused: it asks for .*{named}"):
        open_torch_file(path)
    assert not (tmp_path / MARK).exists()


def test_the_attacks_do_run_where_nothing_refuses_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Otherwise the tests above would prove nothing."""
    monkeypatch.chdir(tmp_path)
    path = save({"extra": ATTACKS["os.system"][0]}, tmp_path / "x.ckpt", kind)
    torch.load(path, weights_only=False)
    assert (tmp_path / MARK).exists()


class Touches(nn.Module):
    """A network whose unpickling touches a file."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(MARK).touch()
        super().__setstate__(state)


def test_no_method_of_a_pickled_network_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(Touches(), tmp_path / "x.pkl", kind)
    with pytest.raises(ForeignFile, match="Touches"):
        open_torch_file(path)
    for name in ("dall_e", "dall_e.encoder"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setattr(sys.modules["dall_e.encoder"], "Touches", Touches, raising=False)
    monkeypatch.setattr(Touches, "__module__", "dall_e.encoder")
    with open_torch_file(save(Touches(), tmp_path / "y.pkl", kind)) as file:
        assert file.content.asked == "dall_e.encoder.Touches"
    assert not (tmp_path / MARK).exists()
    torch.load(tmp_path / "y.pkl", weights_only=False)
    assert (tmp_path / MARK).exists()


# ------------------------------------------------------------------------------------- what is damaged


def test_a_truncated_file_is_named_at_every_length(tmp_path: Path, kind: str) -> None:
    path = save(tensors(), tmp_path / "x.ckpt", kind)
    content = path.read_bytes()
    for length in [*range(2, 200, 7), *range(200, len(content), 197), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ForeignFile, match=r"x\.ckpt is (truncated|no file of torch)"):
            open_torch_file(path)


def repacked(path: Path, change: Any, compressed: str = "no member") -> Path:
    """The archive with every member as ``change(name, bytes)`` gives it; None leaves it out."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            if (changed := change(name, content)) is not None:
                kind = zipfile.ZIP_DEFLATED if compressed in name else zipfile.ZIP_STORED
                archive.writestr(name, changed, kind)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda name, content: None if "/data/" in name else content, "storage '0' is missing"),
        (lambda name, content: content[:-4] if "/data/" in name else content, "storage '0' has 36 bytes"),
        (lambda name, content: None if name.endswith("data.pkl") else content, "without weights of torch"),
        (lambda name, content: b"big" if name.endswith("byteorder") else content, "another byte order"),
    ],
)
def test_an_archive_whose_parts_do_not_agree_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    path = repacked(save({"a": torch.arange(10.0)}, tmp_path / "x.pt", "zip"), change)
    with pytest.raises(ForeignFile, match=said):
        open_torch_file(path)


@pytest.mark.parametrize("member", ["/data.pkl", "/data/0"])
def test_compressed_archives_which_could_hold_any_size_are_refused(tmp_path: Path, member: str) -> None:
    path = save({"a": torch.zeros(10**6)}, tmp_path / "x.pt", "zip")
    repacked(path, lambda name, content: content, member)
    with pytest.raises(ForeignFile, match="compressed"):
        open_torch_file(path)


def test_a_flipped_bit_is_noticed_while_reading(tmp_path: Path) -> None:
    path = save({"a": torch.arange(100.0)}, tmp_path / "x.pt", "zip")
    content = bytearray(path.read_bytes())
    place = content.index(torch.arange(100.0).numpy().tobytes()) + 40
    content[place] ^= 1
    path.write_bytes(content)
    with open_torch_file(path) as file, pytest.raises(ForeignFile, match=r"x\.pt is truncated or damaged"):
        file.read(file.content["a"])


@pytest.mark.parametrize(
    ("start", "said"),
    [
        (b"\x1f\x8b\x08", "gzip"),
        (b"<!DOCTYPE html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{}", "safetensors"),
        (pickle.dumps({"a": 1}), "a pickle, without tensors"),
        (b"", "no file of torch"),
    ],
)
def test_files_of_other_kinds_are_told_apart(tmp_path: Path, start: bytes, said: str) -> None:
    (tmp_path / "x.ckpt").write_bytes(start)
    with pytest.raises(ForeignFile, match=rf"x\.ckpt is no file of torch.*{said}|{said}"):
        open_torch_file(tmp_path / "x.ckpt")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.pt", tmp_path):
        with pytest.raises(ForeignFile, match=str(path)):
            open_torch_file(path)


def crafted(arguments: tuple[Any, ...]) -> Any:
    return Calls(torch._utils._rebuild_tensor_v2, *arguments)


@pytest.mark.parametrize(
    ("offset", "shape", "stride"),
    [
        (0, (11,), (1,)),
        (5, (6,), (1,)),
        (0, (2,), (10,)),
        (-1, (2,), (1,)),
        (0, (-2,), (1,)),
        (0, (2, 2), (1,)),
        (0, 3, 1),
    ],
)
def test_a_tensor_never_reaches_beyond_its_storage(
    tmp_path: Path, kind: str, offset: Any, shape: Any, stride: Any
) -> None:
    storage = torch.arange(10.0).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    content = {"a": crafted((typed, offset, shape, stride, False, OrderedDict()))}
    path = save(content, tmp_path / "x.pt", kind)
    with pytest.raises(ForeignFile, match=r"x\.pt is (refused|no readable)"):
        open_torch_file(path)


def test_only_mappings_and_networks_have_tensors() -> None:
    stored = StoredTensor(None, 0, (1,), (1,))  # type: ignore[arg-type]
    assert tensors_of({"a": stored, 3: stored, "b": 4}) == {"a": stored}
    assert tensors_of([stored]) == {} and tensors_of(None) == {}
