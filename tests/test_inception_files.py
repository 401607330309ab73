"""Files of Inception's weights: opened whole, or refused by name."""

import hashlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from storydalle.metrics.networks import inception
from storydalle.metrics.networks.inception import (
    FID_WEIGHTS,
    IMAGENET_WEIGHTS,
    FIDInception,
    load_weights,
    open_weights,
    read_weights,
)
from tests.test_inception import State, released_state


@pytest.fixture(scope="module")
def fid_state() -> State:
    return released_state(1008, has_auxiliary=False, has_counters=True)


@pytest.fixture(scope="module")
def torchvision_state() -> State:
    return released_state(1000, has_auxiliary=True, has_counters=False)


def test_the_file_of_fid_is_opened_ready_to_read_with_its_hash(
    fid_state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(fid_state, tmp_path / FID_WEIGHTS)
    monkeypatch.setenv("STORYDALLE_WEIGHTS", str(tmp_path))
    network = open_weights()
    assert network.weights_sha256 == hashlib.sha256((tmp_path / FID_WEIGHTS).read_bytes()).hexdigest()
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())
    for name, value in fid_state.items():
        assert torch.equal(network.state_dict()[name], value)


def test_weights_are_opened_as_safetensors_too(fid_state: State, tmp_path: Path) -> None:
    save_file(fid_state, tmp_path / "fid.safetensors")
    network = open_weights(tmp_path / "fid.safetensors")
    assert torch.equal(network.fc.weight, fid_state["fc.weight"])


def test_absent_weights_are_told_with_the_file_to_bring_and_where_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORYDALLE_WEIGHTS", str(tmp_path / "here"))
    with pytest.raises(
        ValueError, match=f"no weights at {tmp_path}/here/{FID_WEIGHTS}: get {FID_WEIGHTS} .*pytorch-fid"
    ):
        open_weights()
    with pytest.raises(ValueError, match=f"no weights at {tmp_path}/{FID_WEIGHTS}"):
        open_weights(tmp_path)
    monkeypatch.delenv("STORYDALLE_WEIGHTS")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert inception.weights_folder() == tmp_path / ".cache" / "storydalle"


def test_torchvisions_weights_are_no_network_of_fid(torchvision_state: State) -> None:
    with pytest.raises(
        ValueError, match=rf"fc.weight is \(1000, 2048\) and should be \(1008, 2048\).*get {FID_WEIGHTS}"
    ):
        load_weights(FIDInception(), torchvision_state, "the file", f"get {FID_WEIGHTS}")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"Mixed_6c.branch7x7_2.conv.weight": None},
            r"Mixed_6c.branch7x7_2.conv.weight is missing and should be \(160, ",
        ),
        (
            {"Mixed_6c.branch7x7_2.bn.bias": torch.ones(2)},
            r"Mixed_6c.branch7x7_2.bn.bias is \(2,\) and should be \(160,\)",
        ),
        ({"layer1.0.conv1.weight": torch.ones(2, 3)}, r"layer1.0.conv1.weight is \(2, 3\) and should be absent"),
    ],
)
def test_the_first_wrong_name_or_shape_is_told(fid_state: State, change: dict[str, Any], told: str) -> None:
    state = {name: value for name, value in (fid_state | change).items() if value is not None}
    with pytest.raises(ValueError, match=rf"weights.pth is no file of FIDInception: {told}.*; try another"):
        load_weights(FIDInception(), state, "weights.pth", "try another")


def test_weights_of_another_network_are_told_with_their_first_name() -> None:
    with pytest.raises(ValueError, match=r"Conv2d_1a_3x3.conv.weight is missing .* the file begins with conv1.weight"):
        load_weights(FIDInception(), {"conv1.weight": torch.ones(64, 3, 7, 7)}, "resnet.pth", "try another")


class Code:
    """A pickle that writes a file when it is opened."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


def test_code_in_a_file_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "was-run"
    torch.save({"fc.weight": torch.ones(2), "code": Code(marker)}, tmp_path / "evil.pth")
    with pytest.raises(
        ValueError, match=r"evil.pth cannot be read .* holds code or objects beside tensors, which are never"
    ):
        read_weights(tmp_path / "evil.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Code(marker), protocol=2))
    with pytest.raises(ValueError, match=r"plain.pth"):
        read_weights(tmp_path / "plain.pth")
    assert not marker.exists()


def test_files_of_something_else_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": {"fc.weight": torch.ones(2)}}, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=r"checkpoint.pth holds 'epoch' where tensors with names are expected"):
        read_weights(tmp_path / "checkpoint.pth")
    torch.save({"fc.weight": torch.ones(2000)}, tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:3000])
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    (tmp_path / "empty.pth").touch()
    for name in ("cut.pth", "cut.safetensors", "empty.pth"):
        with pytest.raises(ValueError, match=f"{name} cannot be read as weights"):
            read_weights(tmp_path / name)
    for name, content in (("nothing", {}), ("'Tensor'", torch.ones(2)), ("3", {3: torch.ones(2)})):
        torch.save(content, tmp_path / "odd.pth")
        with pytest.raises(ValueError, match=f"odd.pth holds {name} where"):
            read_weights(tmp_path / "odd.pth")


def test_a_file_damaged_anywhere_is_a_mistake_and_no_crash(tmp_path: Path) -> None:
    torch.save({f"layer{i}.weight": torch.ones(3) for i in range(3)}, tmp_path / "whole.pth")
    whole, rng = (tmp_path / "whole.pth").read_bytes(), np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole) // 2, size=4):
            damaged[place] = rng.integers(256)
        (tmp_path / "damaged.pth").write_bytes(damaged)
        try:
            read_weights(tmp_path / "damaged.pth")
        except ValueError as error:
            refused += 1
            assert "damaged.pth" in str(error)
    assert refused > 100


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_the_script_that_clean_fid_ships_is_refused_in_words(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "inception-2015-12-05.pt")
    with pytest.raises(ValueError, match=r"inception-2015-12-05.pt .*state dict"):
        read_weights(tmp_path / "inception-2015-12-05.pt")


def test_a_folder_may_be_given_in_place_of_its_file(tmp_path: Path) -> None:
    (tmp_path / IMAGENET_WEIGHTS).touch()
    assert inception.find_weights(IMAGENET_WEIGHTS, tmp_path) == tmp_path / IMAGENET_WEIGHTS
    assert inception.find_weights(IMAGENET_WEIGHTS, tmp_path / IMAGENET_WEIGHTS) == tmp_path / IMAGENET_WEIGHTS
