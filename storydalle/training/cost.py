"""The cost of a training, for its record: time, parameters, peak memory and, where it can be read, energy."""

import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from storydalle.files.process_memory import peak_megabytes, restart_peak

POWERCAP = Path("/sys/class/powercap")
EVERY = 10.0  # seconds; a counter of energy begins again after minutes


class Joules:
    """The energy of the processors' packages, by the counters of Linux (RAPL); nothing where they cannot be read."""

    def __init__(self, root: Path = POWERCAP) -> None:
        packages = [path for path in sorted(root.glob("intel-rapl:*")) if path.name.count(":") == 1]
        self.counters = {path / "energy_uj": path / "max_energy_range_uj" for path in packages}
        self.last, self.spent = self.read(), 0.0

    def read(self) -> dict[Path, int]:
        try:
            return {path: int(path.read_text()) for path in self.counters}
        except (OSError, ValueError):
            return {}

    def update(self) -> None:
        """Add what was used since the last call, during which a counter may have begun again once."""
        now = self.read()
        for path, value in now.items():
            used = value - self.last.get(path, value)
            self.spent += (used if used >= 0 else used + int(self.counters[path].read_text())) / 1e6
        self.last = now

    @property
    def total(self) -> float | None:
        return self.spent if self.last else None


class Cost(Callback):
    """Measures a training; a resumed one counts what it cost before."""

    def __init__(self) -> None:
        self.before: dict[str, float | None] = {}
        self.started = self.looked = time.monotonic()
        self.joules = Joules()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        restart_peak()
        self.started = self.looked = time.monotonic()
        self.joules = Joules()

    def on_train_batch_end(self, *_: object) -> None:
        if time.monotonic() - self.looked > EVERY:
            self.looked = time.monotonic()
            self.joules.update()

    def state_dict(self) -> dict[str, float | None]:
        self.joules.update()
        spent = {"seconds": time.monotonic() - self.started, "joules": self.joules.total}
        return {name: added(value, self.before.get(name, 0.0)) for name, value in spent.items()}

    def load_state_dict(self, state_dict: dict[str, float | None]) -> None:
        self.before = state_dict


def added(value: float | None, before: float | None) -> float | None:
    return None if value is None or before is None else value + before


def cost_of(trainer: pl.Trainer, network: torch.nn.Module) -> dict[str, float | None]:
    """The cost of a training that has ended; energy only of one on processors, where the counters tell all of it."""
    measured = next((each for each in trainer.callbacks if isinstance(each, Cost)), None)  # type: ignore[attr-defined]
    spent = measured.state_dict() if measured else {}
    on_cpu = trainer.strategy.root_device.type == "cpu"
    parameters = list(network.parameters())
    peak = peak_megabytes() if on_cpu else torch.cuda.max_memory_allocated() // 2**20
    return {
        "seconds": rounded(spent.get("seconds")),
        "parameters": sum(each.numel() for each in parameters),
        "trained_parameters": sum(each.numel() for each in parameters if each.requires_grad),
        "peak_megabytes": peak,
        "joules": rounded(spent.get("joules")) if on_cpu else None,
    }


def rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
