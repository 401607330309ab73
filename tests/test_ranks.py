"""Two processes train as one would with all their stories: losses, weights, codebook and random draws."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from storydalle.models import ranks
from storydalle.models.backbones.backbone import Backbone
from storydalle.training.sharding import ShardedStrategy, shard
from tests.tiny_backbones import LENGTH, TEXT, tiny_dalle, tiny_mega
from tests.two_processes import SYSTEMS, in_two_processes, largest_difference, train

QUICK, LONG = 8, 50  # steps; even the quick ones pass every change of phase
DDP = "ddp_find_unused_parameters_true"
# Of Adam's first steps each is as long as the rate however small the gradient, and that of a bias which a norm or a
# softmax removes is rounding alone.
ROUNDING = ("key.bias", "fuse.0.weight")


@pytest.fixture(scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """Every system in two processes."""
    return in_two_processes(list(SYSTEMS), tmp_path_factory.mktemp("two"), QUICK, DDP)


def assert_alike(one: dict[str, Any], two: list[dict[str, Any]]) -> None:
    assert one["curve"] and largest_difference(one["curve"], two[0]["curve"]) < 1e-4
    assert largest_difference(two[0]["curve"], two[1]["curve"]) == 0, "what is logged is of all stories"
    for name, value in one["state"].items():
        if not name.endswith(ROUNDING):
            torch.testing.assert_close(two[0]["state"][name], value, atol=1e-4, rtol=1e-4, msg=name)


def assert_equal(first: dict[str, Any], second: dict[str, Any]) -> None:
    for name, value in first["state"].items():
        assert torch.equal(second["state"][name], value), f"{name} differs between the processes"


@pytest.mark.parametrize("name", SYSTEMS)
def test_two_processes_log_and_learn_what_one_does(name: str, quick: dict[str, Any], tmp_path: Path) -> None:
    assert_alike(train(name, tmp_path, QUICK), quick[name])
    assert_equal(*quick[name])


@pytest.mark.slow
def test_two_processes_stay_with_one_for_fifty_steps(tmp_path: Path) -> None:
    both = in_two_processes(list(SYSTEMS), tmp_path, LONG, DDP)
    for name in SYSTEMS:
        assert_alike(train(name, tmp_path / "one", LONG), both[name])
        assert_equal(*both[name])


@pytest.mark.slow
def test_sharded_weights_learn_what_whole_ones_do_for_fifty_steps(tmp_path: Path) -> None:
    """The first process has all the weights when the fit has ended."""
    names = ["text_to_image", "story_dalle"]
    both = in_two_processes(names, tmp_path, LONG, ShardedStrategy)
    for name in names:
        assert_alike(train(name, tmp_path / "one", LONG), both[name])


def test_what_has_no_transformer_is_not_sharded() -> None:
    with pytest.raises(ValueError, match="no transformer to shard: use trainer=ddp"):
        shard(torch.nn.Linear(2, 2), DeviceMesh.__new__(DeviceMesh))


def test_codes_are_restarted_alike(quick: dict[str, Any], tmp_path: Path) -> None:
    """The codebook that both end with is the one of a single process, and restarts have happened in it."""
    alone = train("image_tokenizer", tmp_path, QUICK)
    name = "image_tokenizer.quantize.embedding.weight"
    without = train("image_tokenizer", tmp_path, QUICK, restart_below=0.0)
    assert not torch.allclose(alone["state"][name], without["state"][name], atol=1e-3), "nothing was restarted"
    for process in quick["image_tokenizer"]:
        torch.testing.assert_close(process["state"][name], alone["state"][name], atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ one process


@pytest.mark.parametrize("make", [tiny_dalle, tiny_mega])
def test_a_backbone_names_its_blocks_in_the_order_in_which_they_run(make: Callable[[], Backbone]) -> None:
    backbone = make()
    ran: list[nn.Module] = []
    for block in backbone.all_blocks:
        block.register_forward_hook(lambda block, *_: ran.append(block))
    backbone(torch.ones(1, TEXT, dtype=torch.long), torch.ones(1, LENGTH, dtype=torch.long))
    assert ran == backbone.all_blocks
    (length,) = {len(blocks) for blocks in lists_of_blocks(backbone)}
    assert length == backbone.depth and sum(map(len, lists_of_blocks(backbone))) == len(ran)


def lists_of_blocks(backbone: Backbone) -> list[nn.ModuleList]:
    return [module for module in backbone.modules() if isinstance(module, nn.ModuleList)]


def test_alone_every_function_gives_back_what_it_got() -> None:
    x = torch.arange(6.0).view(3, 2)
    generator = torch.Generator().manual_seed(3)
    assert ranks.num_ranks() == 1 and ranks.rank() == 0
    assert torch.equal(ranks.gathered(x), x) and torch.equal(ranks.mean(x), x) and torch.equal(ranks.own_rows(x, 3), x)
    drawn = ranks.drawn(torch.rand, 3, 2, generator=generator)
    assert torch.equal(drawn, torch.rand(3, 2, generator=generator.manual_seed(3)))
    assert ranks.ratio(torch.tensor(6.0), torch.tensor(4)).item() == 1.5
    assert ranks.ratio(torch.tensor(0.0), torch.tensor(0), least=1).item() == 0


@pytest.mark.parametrize("kind", [1, 2, 3])
def test_alone_the_shared_batch_norm_is_torchs(kind: int) -> None:
    shape = (5, 4, *[3] * kind) if kind > 1 else (5, 4)
    shared = getattr(ranks, f"SharedBatchNorm{kind}d")(4)
    plain = getattr(torch.nn, f"BatchNorm{kind}d")(4)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(shared(x), plain(x))
    assert shared.state_dict().keys() == plain.state_dict().keys()
