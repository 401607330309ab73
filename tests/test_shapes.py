"""Every array that a named tuple or a dataclass holds has a shape, and the tests check it."""

import numpy as np
import pytest
import torch
from jaxtyping import AbstractArray, TypeCheckError

from storydalle.metrics.frame_distances import FrameDistances
from tests.checked_tuples import arrays_in, check_tuples, import_all, records_of


def test_every_array_in_a_record_has_a_shape() -> None:
    records = {record for module in import_all() for record in records_of(module)}
    fields = [(record, *field) for record in records for field in record.__annotations__.items()]
    arrays = [(record, name, array) for record, name, annotation in fields for array in arrays_in(annotation)]
    assert len(arrays) > 80  # they are found at all
    bare = {f"{record.__name__}.{name}" for record, name, array in arrays if not issubclass(array, AbstractArray)}
    assert not bare, f"give these a shape of jaxtyping: {', '.join(sorted(bare))}"


def test_arrays_are_found_inside_other_types() -> None:
    assert arrays_in(dict[str, torch.Tensor] | None) == [torch.Tensor]
    assert arrays_in(list[tuple[np.ndarray, int]]) == [np.ndarray]


def test_a_named_tuple_of_other_shapes_is_refused() -> None:
    check_tuples()
    frames = torch.zeros(2, 3)
    assert FrameDistances(frames, frames, frames).error is frames
    with pytest.raises(TypeCheckError):
        FrameDistances(frames, frames, frames[:, :2])
