"""The table that follows a sweep of trainings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from storydalle.files.paths import user_path


class AfterSweep:
    """A Hydra callback: calls ``show`` with the folder of a sweep's runs when its last job has ended."""

    def __init__(self, show: Callable[[Path], None]) -> None:
        self.show = show

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):
            return lambda **_: None
        raise AttributeError(name)

    def on_multirun_end(self, config: Any, **_: object) -> None:
        self.show(user_path(config.runs) / config.hydra.runtime.choices.experiment)
