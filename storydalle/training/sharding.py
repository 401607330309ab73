"""Weights, gradients and optimizer states in parts, one a process: FSDP2 (Zhao et al. 2023; torch's fully_shard)."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.optimizer import _optimizers_to_device
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import (
    FSDPModule,
    FullyShardedDataParallel,
    OptimStateKeyType,
    fully_shard,
    register_fsdp_forward_method,
)
from torch.distributed.tensor import DTensor

from storydalle.models.backbones.backbone import Backbone

STEPS = ("training_step", "validation_step")


class ShardedStrategy(ModelParallelStrategy):
    """Shards the transformer of a system over all processes of a training.

    Raises ValueError for a system without a transformer: its model fits into every process. Checkpoints are as in any
    other training, one file from the first process. When the fit has ended, that process has all the weights.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(save_distributed_checkpoint=False, **options)
        self.is_failed = False

    def setup_environment(self) -> None:
        self._data_parallel_size, self._tensor_parallel_size = self.num_nodes * self.num_processes, 1
        super().setup_environment()

    def setup(self, trainer: pl.Trainer) -> None:
        assert self.accelerator is not None and self.model is not None and self.lightning_module is not None
        self.accelerator.setup(trainer)
        shard(self.lightning_module, self.device_mesh["data_parallel"])
        self.model = self.precision_plugin.convert_module(self.model)
        self.model_to_device()
        self.barrier()
        self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        _optimizers_to_device(self.optimizers, self.root_device)

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, object]:
        assert self.model is not None
        checkpoint = self.checkpoint_io.load_checkpoint(Path(self.broadcast(checkpoint_path)))
        options = StateDictOptions(full_state_dict=True)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=options)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            named = FullyShardedDataParallel.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_NAME, self.model)
            set_optimizer_state_dict(self.model, optimizer, optim_state_dict=named, options=options)
        return checkpoint

    def on_exception(self, exception: BaseException) -> None:
        self.is_failed = True  # other processes may be gone
        super().on_exception(exception)

    def teardown(self) -> None:
        if not self.is_failed and self.lightning_module is not None:
            gather(self.lightning_module, keeps=self.is_global_zero)
        super().teardown()


def shard(system: nn.Module, mesh: DeviceMesh) -> None:
    """Shard a system in place.

    Each block is a part, gathered when it is its turn and let go again. All the rest is one part, gathered at the start
    of a step.
    """
    backbones = [module for module in system.modules() if isinstance(module, Backbone)]
    blocks = [block for backbone in backbones for block in backbone.all_blocks]
    if not blocks:
        raise ValueError(f"{type(system).__name__} has no transformer to shard: use trainer=ddp")
    frozen = {parameter for parameter in system.parameters() if not parameter.requires_grad}
    for block in blocks:
        fully_shard(block, mesh=mesh, ignored_params=frozen)
    fully_shard(system, mesh=mesh, reshard_after_forward=False, ignored_params=frozen)
    for name in STEPS:
        register_fsdp_forward_method(system, name)


@torch.no_grad()
def gather(system: nn.Module, keeps: bool) -> None:
    """Replace sharded weights by whole ones in the process that ``keeps`` them; all processes must call it."""
    for module in system.modules():
        if isinstance(module, FSDPModule):
            module.reshard()
    for owner in list(system.modules()):
        for name, parameter in list(owner.named_parameters(recurse=False)):
            if isinstance(parameter, DTensor):
                whole = parameter.full_tensor()
                if keeps:
                    owner.register_parameter(name, nn.Parameter(whole.cpu(), parameter.requires_grad))
