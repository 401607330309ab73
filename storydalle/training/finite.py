"""Find numbers that are not finite before they reach a weight or a file."""

import math
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
import torch
from jaxtyping import Float
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from storydalle.files.weights import is_finite
from storydalle.mistakes import Failure
from storydalle.training.runs import LAST

MOST_NAMED = 3  # losses of a message


class Kept:
    """The remains of a failed run: its last checkpoint, and the step of it."""

    def __init__(self, folder: Path, step: int | None = None) -> None:
        self.folder, self.step = folder, step

    def __str__(self) -> str:
        if not (self.folder / LAST).is_file():
            return "no checkpoint had been written"
        step = "" if self.step is None else f" of step {self.step}"
        return f"the last finite checkpoint{step} is kept: {self.folder / LAST}"


class FiniteSteps(Callback):
    """Stops a training if a loss or gradient is not finite, before it changes a weight.

    Losses are checked before their backward pass, gradients before each optimizer's step, also steps that a system
    makes without Lightning. The cost is one pass over the gradients and one synchronisation with the device a step.
    With a gradient scaler (precision 16-mixed), which skips steps with infinite gradients itself, gradients are not
    checked.
    """

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.losses: list[Tensor] = []
        self.hooks: list[RemovableHandle] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        def check(optimizer: Optimizer, positional: tuple[object, ...], named: dict[str, object]) -> None:
            if named.get("closure") is None and len(positional) < 2:  # Lightning's own steps have one
                self.check(trainer, optimizer)

        self.hooks = [optimizer.register_step_pre_hook(check) for optimizer in trainer.optimizers]

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for hook in self.hooks:
            hook.remove()

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        self.losses.append(loss.detach())

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        self.check(trainer, optimizer)

    def check(self, trainer: pl.Trainer, optimizer: Optimizer) -> None:
        """Raise Failure in every process if a loss since the last call, or a gradient, is not finite."""
        losses, self.losses = self.losses, []
        numbers = [loss.float() for loss in losses]
        if getattr(trainer.precision_plugin, "scaler", None) is None:
            numbers.append(largest(gradients(optimizer)))
        is_wrong = bool(numbers) and not torch.stack([each.to(numbers[-1]) for each in numbers]).isfinite().all().item()
        if any_rank(trainer, is_wrong):
            step = trainer.fit_loop.total_batch_idx // trainer.accumulate_grad_batches + 1
            raise Failure(told(step, self.named(trainer, optimizer, losses), self.kept, trainer))

    @staticmethod
    def named(trainer: pl.Trainer, optimizer: Optimizer, losses: Sequence[Tensor]) -> str:
        """The losses and gradients that are not finite, by their names in the log and in the state dict."""
        values = {name: value for name, value in values_of(trainer).items() if not math.isfinite(value)}
        found = [f"{name} is {value}" for name, value in values.items() if name.startswith("train/loss")][:MOST_NAMED]
        found = found or [f"the loss is {loss.item()}" for loss in losses if not loss.isfinite()][:1]
        names: dict[Tensor, str] = {parameter: name for name, parameter in trainer.lightning_module.named_parameters()}
        spoiled = [names.get(each, "a weight") for each in members(optimizer) if not is_finite(gradient(each))]
        found += [f"the gradient of {spoiled[0]} is not finite"] if spoiled else []
        return ", ".join(found) or "a loss or gradient of another process is not finite"


def told(step: int, what: str, kept: Kept, trainer: pl.Trainer) -> str:
    """The message of a training that stops: step, cause, what is kept, what to do."""
    rate = max((group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups), default=0.0)
    return f"step {step}: {what}; {kept}; train again with a smaller learning rate (here {rate:.3g}) or with clipping"


def values_of(trainer: pl.Trainer) -> dict[str, float]:
    return {name: float(value) for name, value in trainer.callback_metrics.items()}


def any_rank(trainer: pl.Trainer, is_so: bool) -> bool:
    """True if it is true in any process of the training."""
    return is_so if trainer.world_size == 1 else trainer.strategy.reduce_boolean_decision(is_so, all=False)


def members(optimizer: Optimizer) -> list[Tensor]:
    """The parameters of an optimizer that have a gradient."""
    return [each for group in optimizer.param_groups for each in group["params"] if each.grad is not None]


def gradients(optimizer: Optimizer) -> list[Tensor]:
    """The gradients of an optimizer; of sharded ones, this process's part."""
    return [gradient(parameter) for parameter in members(optimizer)]


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None
    return local(parameter.grad)


def local(value: Tensor) -> Tensor:
    """This process's part of a sharded tensor; other tensors as they are."""
    return value.to_local() if isinstance(value, DTensor) else value


def largest(tensors: Sequence[Tensor]) -> Float[Tensor, ""]:
    """The largest absolute value, nan where there is one."""
    return nn.utils.get_total_norm(tensors, math.inf).float()
