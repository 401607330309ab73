"""Safetensors written a tensor at a time: what the library reads, whole files or none."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from storydalle.files.weights import TYPES, Planned, parts, write_model, write_safetensors


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    found = {str(dtype): torch.tensor([[0, 1], [1, 1], [0, 0]]).to(dtype) for dtype in TYPES}
    return found | {"turned": torch.randn(3, 4).t(), "number": torch.tensor(3), "nothing": torch.zeros(0, 2)}


def planned(found: dict[str, Tensor]) -> list[Planned]:
    return [Planned(name, value.dtype, tuple(value.shape)) for name, value in found.items()]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def test_the_library_reads_what_is_written(tmp_path: Path) -> None:
    saved, path = tensors(), tmp_path / "model.safetensors"
    assert write_model(tmp_path, planned(saved), saved.__getitem__, path.name, max_bytes=10**9) == [path]
    assert_same(load_file(path), saved)
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_tensors_are_asked_for_one_at_a_time_in_order(tmp_path: Path) -> None:
    saved, asked = tensors(), []
    write_safetensors(tmp_path / "x.safetensors", planned(saved), lambda name: asked.append(name) or saved[name])
    assert asked == list(saved)


@pytest.mark.parametrize("max_bytes", [1, 30, 60, 10**6])
def test_large_models_are_split_and_indexed(tmp_path: Path, max_bytes: int) -> None:
    saved = tensors()
    files = write_model(tmp_path, planned(saved), saved.__getitem__, "model.safetensors", max_bytes)
    together: dict[str, Tensor] = {}
    for file in files:
        part = load_file(file)
        assert len(part) == 1 or sum(value.nbytes for value in part.values()) <= max_bytes
        together |= part
    assert_same(together, saved)
    index = tmp_path / "model.safetensors.index.json"
    assert index.is_file() == (len(files) > 1)
    if len(files) > 1:
        places = json.loads(index.read_text())
        assert all(name in load_file(tmp_path / file) for name, file in places["weight_map"].items())
        assert set(places["weight_map"]) == set(saved)
        assert places["metadata"]["total_size"] == sum(value.nbytes for value in saved.values())
        assert files[0].name == f"model-00001-of-{len(files):05}.safetensors"


def test_parts_hold_every_tensor_once_in_order() -> None:
    found = planned(tensors())
    for max_bytes in (1, 30, 1000):
        assert [tensor for part in parts(found, max_bytes) for tensor in part] == found


def test_an_interrupted_writing_leaves_the_old_file(tmp_path: Path) -> None:
    saved, path = tensors(), tmp_path / "x.safetensors"
    path.write_bytes(b"old")

    def read(name: str) -> Tensor:
        if name == "number":
            raise KeyboardInterrupt
        return saved[name]

    with pytest.raises(KeyboardInterrupt):
        write_safetensors(path, planned(saved), read)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("other", [torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.float16)])
def test_a_tensor_of_another_shape_or_type_than_planned_is_refused(tmp_path: Path, other: Tensor) -> None:
    plan = [Planned("a", torch.float32, (2, 3))]
    with pytest.raises(ValueError, match=r"a is torch.float\d\d \(\d, \d\), and was planned as"):
        write_safetensors(tmp_path / "x.safetensors", plan, lambda name: other)
    assert not list(tmp_path.iterdir())
