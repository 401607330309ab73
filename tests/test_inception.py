"""Both Inceptions: equal to a layer-by-layer restatement, and opened from files as they are released."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from storydalle.metrics.networks.inception import (
    ClassifierInception,
    FIDInception,
    Inception,
    load_weights,
    resized,
)

State = dict[str, Tensor]
TORCHVISION_PARAMETERS = 27_161_264  # as torchvision states them for inception_v3, its auxiliary head included
TINY = 75  # the least side of a picture that every layer has something to read of


# ------------------------------------------------------------------------------------------------ the layouts


Convolution = tuple[str, tuple[int, int, int, int]]  # name and shape (out, in, height, width)


def fine_convolutions() -> Iterator[Convolution]:
    """The convolutions on grids of 17 x 17 and finer."""
    yield "Conv2d_1a_3x3", (32, 3, 3, 3)
    yield "Conv2d_2a_3x3", (32, 32, 3, 3)
    yield "Conv2d_2b_3x3", (64, 32, 3, 3)
    yield "Conv2d_3b_1x1", (80, 64, 1, 1)
    yield "Conv2d_4a_3x3", (192, 80, 3, 3)
    for block, dim, pooled in (("5b", 192, 32), ("5c", 256, 64), ("5d", 288, 64)):
        yield f"Mixed_{block}.branch1x1", (64, dim, 1, 1)
        yield f"Mixed_{block}.branch5x5_1", (48, dim, 1, 1)
        yield f"Mixed_{block}.branch5x5_2", (64, 48, 5, 5)
        yield f"Mixed_{block}.branch3x3dbl_1", (64, dim, 1, 1)
        yield f"Mixed_{block}.branch3x3dbl_2", (96, 64, 3, 3)
        yield f"Mixed_{block}.branch3x3dbl_3", (96, 96, 3, 3)
        yield f"Mixed_{block}.branch_pool", (pooled, dim, 1, 1)
    yield "Mixed_6a.branch3x3", (384, 288, 3, 3)
    yield "Mixed_6a.branch3x3dbl_1", (64, 288, 1, 1)
    yield "Mixed_6a.branch3x3dbl_2", (96, 64, 3, 3)
    yield "Mixed_6a.branch3x3dbl_3", (96, 96, 3, 3)
    for block, dim in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        yield f"Mixed_{block}.branch1x1", (192, 768, 1, 1)
        yield f"Mixed_{block}.branch7x7_1", (dim, 768, 1, 1)
        yield f"Mixed_{block}.branch7x7_2", (dim, dim, 1, 7)
        yield f"Mixed_{block}.branch7x7_3", (192, dim, 7, 1)
        yield f"Mixed_{block}.branch7x7dbl_1", (dim, 768, 1, 1)
        yield f"Mixed_{block}.branch7x7dbl_2", (dim, dim, 7, 1)
        yield f"Mixed_{block}.branch7x7dbl_3", (dim, dim, 1, 7)
        yield f"Mixed_{block}.branch7x7dbl_4", (dim, dim, 7, 1)
        yield f"Mixed_{block}.branch7x7dbl_5", (192, dim, 1, 7)
        yield f"Mixed_{block}.branch_pool", (192, 768, 1, 1)


def convolutions(has_auxiliary: bool) -> Iterator[Convolution]:
    """Every convolution, as the released files have them."""
    yield from fine_convolutions()
    if has_auxiliary:
        yield "AuxLogits.conv0", (128, 768, 1, 1)
        yield "AuxLogits.conv1", (768, 128, 5, 5)
    yield "Mixed_7a.branch3x3_1", (192, 768, 1, 1)
    yield "Mixed_7a.branch3x3_2", (320, 192, 3, 3)
    yield "Mixed_7a.branch7x7x3_1", (192, 768, 1, 1)
    yield "Mixed_7a.branch7x7x3_2", (192, 192, 1, 7)
    yield "Mixed_7a.branch7x7x3_3", (192, 192, 7, 1)
    yield "Mixed_7a.branch7x7x3_4", (192, 192, 3, 3)
    for block, dim in (("7b", 1280), ("7c", 2048)):
        yield f"Mixed_{block}.branch1x1", (320, dim, 1, 1)
        yield f"Mixed_{block}.branch3x3_1", (384, dim, 1, 1)
        yield f"Mixed_{block}.branch3x3_2a", (384, 384, 1, 3)
        yield f"Mixed_{block}.branch3x3_2b", (384, 384, 3, 1)
        yield f"Mixed_{block}.branch3x3dbl_1", (448, dim, 1, 1)
        yield f"Mixed_{block}.branch3x3dbl_2", (384, 448, 3, 3)
        yield f"Mixed_{block}.branch3x3dbl_3a", (384, 384, 1, 3)
        yield f"Mixed_{block}.branch3x3dbl_3b", (384, 384, 3, 1)
        yield f"Mixed_{block}.branch_pool", (192, dim, 1, 1)


def released_state(num_classes: int, has_auxiliary: bool, has_counters: bool, seed: int = 0) -> State:
    """Random weights under the names of a released file; counters are ``num_batches_tracked``."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, shape in convolutions(has_auxiliary):
        fan_in = shape[1] * shape[2] * shape[3]
        state[f"{name}.conv.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        for part, low in (("weight", 0.5), ("bias", -0.5), ("running_mean", -0.5), ("running_var", 0.5)):
            state[f"{name}.bn.{part}"] = torch.rand(shape[0], generator=generator) + low
        if has_counters:
            state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
    for head, dim in (("fc", 2048), *([("AuxLogits.fc", 768)] if has_auxiliary else [])):
        state[f"{head}.weight"] = torch.randn(num_classes, dim, generator=generator) * dim**-0.5
        state[f"{head}.bias"] = torch.randn(num_classes, generator=generator)
    return state


@pytest.fixture(scope="module")
def fid_state() -> State:
    """As in pt_inception-2015-12-05: counters, 1008 outputs, no auxiliary head."""
    return released_state(1008, has_auxiliary=False, has_counters=True)


@pytest.fixture(scope="module")
def torchvision_state() -> State:
    """As in inception_v3_google: no counters, 1000 outputs, an auxiliary head."""
    return released_state(1000, has_auxiliary=True, has_counters=False)


def put(network: Inception, state: State) -> Any:
    load_weights(network, state, "a test", "no remedy")
    return network.eval()


# ------------------------------------------------------------------------------------------------ the restatement


class Restated:
    """Inception-v3 written down layer by layer, on the tensors of a state dict."""

    def __init__(self, state: State, is_fid: bool) -> None:
        self.state, self.is_fid = state, is_fid

    def conv(self, x: Tensor, name: str, stride: int = 1, pad: tuple[int, int] = (0, 0)) -> Tensor:
        y = F.conv2d(x, self.state[f"{name}.conv.weight"], None, stride, pad)
        mean, var, weight, bias = (
            self.state[f"{name}.bn.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return ((y - mean) / (var + 0.001).sqrt() * weight + bias).clamp(min=0)

    def average(self, x: Tensor) -> Tensor:
        """3 x 3 means: of the pixels that there are for FID, of nine with zeros outside for torchvision."""
        ones = torch.ones(1, 1, 3, 3)
        sums = F.conv2d(x.flatten(0, 1)[:, None], ones, padding=1).view_as(x)
        counts = F.conv2d(torch.ones_like(x[:1, :1]), ones, padding=1)
        return sums / (counts if self.is_fid else 9)

    def a(self, x: Tensor, m: str) -> Tensor:
        one = self.conv(x, f"{m}.branch1x1")
        five = self.conv(self.conv(x, f"{m}.branch5x5_1"), f"{m}.branch5x5_2", pad=(2, 2))
        three = self.conv(self.conv(x, f"{m}.branch3x3dbl_1"), f"{m}.branch3x3dbl_2", pad=(1, 1))
        three = self.conv(three, f"{m}.branch3x3dbl_3", pad=(1, 1))
        return torch.cat([one, five, three, self.conv(self.average(x), f"{m}.branch_pool")], 1)

    def b(self, x: Tensor, m: str) -> Tensor:
        three = self.conv(x, f"{m}.branch3x3", stride=2)
        double = self.conv(self.conv(x, f"{m}.branch3x3dbl_1"), f"{m}.branch3x3dbl_2", pad=(1, 1))
        double = self.conv(double, f"{m}.branch3x3dbl_3", stride=2)
        return torch.cat([three, double, F.max_pool2d(x, 3, 2)], 1)

    def c(self, x: Tensor, m: str) -> Tensor:
        one = self.conv(x, f"{m}.branch1x1")
        seven = self.conv(self.conv(x, f"{m}.branch7x7_1"), f"{m}.branch7x7_2", pad=(0, 3))
        seven = self.conv(seven, f"{m}.branch7x7_3", pad=(3, 0))
        double = self.conv(self.conv(x, f"{m}.branch7x7dbl_1"), f"{m}.branch7x7dbl_2", pad=(3, 0))
        double = self.conv(double, f"{m}.branch7x7dbl_3", pad=(0, 3))
        double = self.conv(double, f"{m}.branch7x7dbl_4", pad=(3, 0))
        double = self.conv(double, f"{m}.branch7x7dbl_5", pad=(0, 3))
        return torch.cat([one, seven, double, self.conv(self.average(x), f"{m}.branch_pool")], 1)

    def d(self, x: Tensor, m: str) -> Tensor:
        three = self.conv(self.conv(x, f"{m}.branch3x3_1"), f"{m}.branch3x3_2", stride=2)
        seven = self.conv(self.conv(x, f"{m}.branch7x7x3_1"), f"{m}.branch7x7x3_2", pad=(0, 3))
        seven = self.conv(seven, f"{m}.branch7x7x3_3", pad=(3, 0))
        seven = self.conv(seven, f"{m}.branch7x7x3_4", stride=2)
        return torch.cat([three, seven, F.max_pool2d(x, 3, 2)], 1)

    def e(self, x: Tensor, m: str, is_last: bool) -> Tensor:
        one = self.conv(x, f"{m}.branch1x1")
        three = self.conv(x, f"{m}.branch3x3_1")
        wide, high = f"{m}.branch3x3_2a", f"{m}.branch3x3_2b"
        three = torch.cat([self.conv(three, wide, pad=(0, 1)), self.conv(three, high, pad=(1, 0))], 1)
        double = self.conv(self.conv(x, f"{m}.branch3x3dbl_1"), f"{m}.branch3x3dbl_2", pad=(1, 1))
        wide, high = f"{m}.branch3x3dbl_3a", f"{m}.branch3x3dbl_3b"
        double = torch.cat([self.conv(double, wide, pad=(0, 1)), self.conv(double, high, pad=(1, 0))], 1)
        pooled = F.max_pool2d(x, 3, 1, 1) if self.is_fid and is_last else self.average(x)
        return torch.cat([one, three, double, self.conv(pooled, f"{m}.branch_pool")], 1)

    def middle(self, x: Tensor) -> Tensor:
        x = self.conv(self.conv(x, "Conv2d_1a_3x3", stride=2), "Conv2d_2a_3x3")
        x = F.max_pool2d(self.conv(x, "Conv2d_2b_3x3", pad=(1, 1)), 3, 2)
        x = F.max_pool2d(self.conv(self.conv(x, "Conv2d_3b_1x1"), "Conv2d_4a_3x3"), 3, 2)
        x = self.a(self.a(self.a(x, "Mixed_5b"), "Mixed_5c"), "Mixed_5d")
        x = self.b(x, "Mixed_6a")
        for block in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            x = self.c(x, block)
        return x

    def features(self, x: Tensor) -> Tensor:
        x = self.d(self.middle(x), "Mixed_7a")
        x = self.e(self.e(x, "Mixed_7b", False), "Mixed_7c", True)
        return x.mean((2, 3))

    def logits(self, x: Tensor) -> Tensor:
        return F.linear(self.features(x), self.state["fc.weight"], self.state["fc.bias"])

    def auxiliary(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(self.middle(x), 5, 3)
        x = self.conv(self.conv(x, "AuxLogits.conv0"), "AuxLogits.conv1").mean((2, 3))
        return F.linear(x, self.state["AuxLogits.fc.weight"], self.state["AuxLogits.fc.bias"])


def images(number: int = 2, side: int = TINY, seed: int = 0) -> Tensor:
    return torch.rand(number, 3, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Equal but for the order in which sums are made; and not by being constant."""
    assert expected.std() > 0.05
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=2e-4)


def test_the_names_and_sizes_are_the_released_ones(fid_state: State, torchvision_state: State) -> None:
    for network, state in ((FIDInception(), fid_state), (ClassifierInception(), torchvision_state)):
        own = {name: value.shape for name, value in network.state_dict().items() if "num_batches" not in name}
        assert own == {name: value.shape for name, value in state.items() if "num_batches" not in name}
    trained = {name: value for name, value in torchvision_state.items() if "running" not in name}
    assert sum(value.numel() for value in trained.values()) == TORCHVISION_PARAMETERS


@torch.no_grad()
def test_the_network_of_fid_equals_its_restatement(fid_state: State) -> None:
    network, restated, inputs = put(FIDInception(), fid_state), Restated(fid_state, is_fid=True), images(1, side=299)
    assert_close(network(inputs), restated.logits(inputs))
    assert_close(network.features(inputs, "legacy"), restated.features(inputs))


@torch.no_grad()
def test_torchvisions_network_equals_its_restatement(torchvision_state: State) -> None:
    network, restated = put(ClassifierInception(), torchvision_state), Restated(torchvision_state, is_fid=False)
    inputs = images(1, side=299)
    found = network(inputs)
    assert_close(found.main, restated.logits(inputs))
    assert found.auxiliary is None
    assert_close(network.AuxLogits(network.middle(inputs)), restated.auxiliary(inputs))
    assert_close(network.features(inputs), restated.features(inputs))


@torch.no_grad()
def test_the_pools_are_what_tells_the_networks_apart(fid_state: State) -> None:
    inputs = images()
    fid, torchvision = (Restated(fid_state, is_fid=is_fid).features(inputs) for is_fid in (True, False))
    assert (fid - torchvision).abs().mean() > 0.01 * fid.abs().mean()


@torch.no_grad()
def test_the_auxiliary_head_speaks_in_training_alone() -> None:
    network = ClassifierInception(num_classes=3)
    logits = network(images(2, side=299))  # the head needs the 17 x 17 maps of a whole picture
    assert logits.main.shape == logits.auxiliary.shape == (2, 3)
    assert ClassifierInception(num_classes=3, has_auxiliary=False)(images(2)).auxiliary is None


@torch.no_grad()
def test_features_do_not_depend_on_the_rest_of_the_batch(fid_state: State) -> None:
    network, pictures = put(FIDInception(), fid_state), images(3, side=32)
    torch.testing.assert_close(network.features(pictures)[1:2], network.features(pictures[1:2]), atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------------ inputs


def pillow(picture: Tensor, side: int, filter: Image.Resampling) -> Tensor:
    """Each channel resized by Pillow as floats."""
    channels = [Image.fromarray(channel.numpy(), mode="F").resize((side, side), filter) for channel in picture]
    return torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))


@pytest.mark.filterwarnings("ignore:.*mode.*parameter is deprecated")
@pytest.mark.parametrize("side", [64, 256, 299, 400])
@pytest.mark.parametrize("name", ["clean", "bilinear"])
def test_antialiased_resizing_is_pillows_on_float_channels(name: str, side: int) -> None:
    picture = images(1, side)[0]
    filter = Image.Resampling.BICUBIC if name == "clean" else Image.Resampling.BILINEAR
    expected = pillow(picture, 299, filter)
    expected = expected.clamp(-1, 1) if name == "clean" else expected  # as clean-fid clips what its kernel overshoots
    torch.testing.assert_close(resized(picture[None], name)[0], expected, atol=1e-4, rtol=0)


def test_legacy_resizing_lies_between_the_nearest_pixels_alone() -> None:
    ramp = torch.tensor([0.0, 1.0]).expand(1, 1, 2, 2)
    assert resized(ramp, "legacy", 4)[0, 0, 0].tolist() == [0.0, 0.25, 0.75, 1.0]
    stripes = torch.tensor([1.0, 1.0, 1.0, -1.0]).repeat(8).expand(1, 1, 32, 32)  # their mean is 0.5
    assert resized(stripes, "legacy", 8).unique().tolist() == [1.0]  # the dark stripe is never one of the nearest two
    assert resized(stripes, "clean", 8)[0, 0, 4, 4].item() == pytest.approx(0.5, abs=0.05)


def test_an_unknown_way_to_resize_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"resize='nearest': choose one of clean, legacy, bilinear"):
        resized(images(1, 8), "nearest")


@torch.no_grad()
def test_clean_features_centre_pixels_at_128_as_clean_fid_does(fid_state: State) -> None:
    pixels = torch.arange(299 * 299 * 3).view(1, 3, 299, 299) % 256
    network, restated = put(FIDInception(), fid_state), Restated(fid_state, is_fid=True)
    pictures = pixels / 127.5 - 1
    assert_close(network.features(pictures), restated.features((pixels - 128) / 128))
    assert (network.features(pictures) - network.features(pictures, "legacy")).abs().max() > 1e-3


def test_transforming_normalised_inputs_gives_the_images_back() -> None:
    pictures = images(2, 8)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    seen = (pictures / 2 + 0.5 - mean.view(3, 1, 1)) / deviation.view(3, 1, 1)
    torch.testing.assert_close(ClassifierInception(2, transform_input=False).normalised(pictures), seen)
    transformed = seen * (deviation / 0.5).view(3, 1, 1) + ((mean - 0.5) / 0.5).view(3, 1, 1)  # as torchvision does
    torch.testing.assert_close(ClassifierInception(2).normalised(pictures), transformed)
