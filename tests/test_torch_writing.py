"""Files of torch.save written a tensor at a time: what torch itself reads, whole files or none."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from storydalle.files.weights import Planned
from storydalle.released.stored_weights import stored_weights
from storydalle.released.torch_files import STORAGES
from storydalle.released.torch_writing import write_torch_file


def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    found = {str(dtype): torch.tensor([[0, 1], [1, 1], [0, 0]]).to(dtype) for dtype in STORAGES.values()}
    return found | {"turned": torch.randn(3, 4).t(), "number": torch.tensor(3), "nothing": torch.zeros(0, 2)}


def planned(found: dict[str, Tensor]) -> list[Planned]:
    return [Planned(name, value.dtype, tuple(value.shape)) for name, value in found.items()]


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


@pytest.mark.parametrize("key", [None, "state_dict"])
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_what_is_written(tmp_path: Path, key: str | None, mmap: bool) -> None:
    saved, path = tensors(), tmp_path / "x.ckpt"
    write_torch_file(path, planned(saved), saved.__getitem__, key)
    found = torch.load(path, weights_only=True, mmap=mmap)
    assert_same(found if key is None else found[key], saved)
    with stored_weights(path, key) as stored:
        assert_same({name: stored.read(name) for name in stored.shapes}, saved)
    assert list(tmp_path.iterdir()) == [path]


def test_a_view_is_written_without_the_tensor_behind_it(tmp_path: Path) -> None:
    row = torch.zeros(1000, 1000)[3]
    write_torch_file(tmp_path / "x.pt", [Planned("row", row.dtype, (1000,))], lambda name: row)
    assert (tmp_path / "x.pt").stat().st_size < 10_000


def test_tensors_are_asked_for_one_at_a_time_in_order(tmp_path: Path) -> None:
    saved, asked = tensors(), []
    write_torch_file(tmp_path / "x.pt", planned(saved), lambda name: asked.append(name) or saved[name])
    assert asked == list(saved)


def test_an_interrupted_writing_leaves_the_old_file(tmp_path: Path) -> None:
    saved, path = tensors(), tmp_path / "x.pt"
    path.write_bytes(b"old")

    def read(name: str) -> Tensor:
        if name == "number":
            raise KeyboardInterrupt
        return saved[name]

    with pytest.raises(KeyboardInterrupt):
        write_torch_file(path, planned(saved), read)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("other", [torch.zeros(3, 2), torch.zeros(2, 3, dtype=torch.float16)])
def test_a_tensor_of_another_shape_or_type_than_planned_is_refused(tmp_path: Path, other: Tensor) -> None:
    with pytest.raises(ValueError, match=r"a is torch.float\d\d \(\d, \d\), and was planned as"):
        write_torch_file(tmp_path / "x.pt", [Planned("a", torch.float32, (2, 3))], lambda name: other)
    assert not list(tmp_path.iterdir())
