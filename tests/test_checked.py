"""The tests' check of types: wrong shapes and wrong kinds are both refused, whether or not a function has shapes."""

import pytest
import torch
from jaxtyping import TypeCheckError

from storydalle.metrics.estimates import holm
from storydalle.stories.toon import ToonSV
from storydalle.training.optimisation import code_loss


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="codes"):
        code_loss(torch.zeros(1, 2, 3), torch.zeros(1, 3, dtype=torch.long))


@pytest.mark.parametrize("wrong", [lambda: holm(3), lambda: ToonSV("train", "many"), lambda: ToonSV("val", 2).read(0)])
def test_a_wrong_kind_is_refused_by_a_function_without_shapes(wrong) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeCheckError):
        wrong()
