"""Loggers of a run, chosen by conf/logger: by default a csv file and Weights & Biases.

A resumed run continues each of them.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence

import wandb
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only
from wandb.sdk.lib import wbauth

from storydalle.files.whole import write_text
from storydalle.training.runs import LOGS, TrainingRun, memory

SECONDS = 10.0  # that Weights & Biases has to answer, before a run logs offline
Row = dict[str, str | float | int | None]  # of a csv


class RunLog(Logger):
    """The csv file of a run: one row for each logged step. A resumed run drops the rows that it will write again.

    Each row is written to disk at once, so a run that is killed keeps all its rows.
    """

    def __init__(self, run: TrainingRun) -> None:
        super().__init__()
        found = sorted(run.folder.glob(LOGS), key=lambda path: path.stat().st_mtime)
        self.path = found[-1] if found else run.folder / LOGS.replace("*", "0")
        self.start = run.start
        self.columns: list[str] = []
        self.rows: list[Row] | None = None  # of the file; read when the first row is logged

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> str:
        return self.path.parent.name

    @rank_zero_only
    def log_hyperparams(self, params: object, *rest: object, **more: object) -> None:
        """Do nothing: the run's config is in its folder."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | int], step: int | None = None) -> None:
        self.rows = rows = self._kept() if self.rows is None else self.rows
        rows.append({"step": step, **metrics})
        fresh = sorted({"step", *metrics} - set(self.columns))
        self.columns += fresh
        if fresh or len(rows) == 1 or not self.path.is_file():
            self._write(rows)
        else:
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self.columns).writerow(rows[-1])

    @rank_zero_only
    def complete(self, row: Mapping[str, float | int]) -> None:
        """Log the row of the step before ``start`` if the run was killed between its checkpoint and its row."""
        self.rows = self._kept() if self.rows is None else self.rows
        last = [each for each in self.rows if str(each["step"]) == str(self.start - 1)]
        if self.start and row and not any(each.get(name) for each in last for name in row):
            self.log_metrics({"epoch": 0, **row}, step=self.start - 1)

    def _kept(self) -> list[Row]:
        """The rows before the step that the run resumes from; the file is cut to them."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            self.columns = list(reader.fieldnames or [])
            rows: list[Row] = [
                {**row} for row in reader if str(row.get("step")).isdecimal() and int(row["step"]) < self.start
            ]
        self._write(rows)
        return rows

    def _write(self, rows: list[Row]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())


def wandb_log(
    run: TrainingRun, project: str, entity: str | None = None, tags: Sequence[str] = (), group: str | None = None
) -> "WandbLog | None":
    """The run's log at Weights & Biases; None if the user has disabled it."""
    mode = wandb_mode()
    return None if mode == "disabled" else WandbLog(run, mode, project=project, entity=entity, tags=tags, group=group)


class WandbLog(WandbLogger):
    """A run of Weights & Biases, which continues when the training is resumed.

    If the service does not answer in time or refuses the key, the run is logged offline, and one line says so.
    """

    def __init__(
        self,
        run: TrainingRun,
        mode: str,
        project: str,
        entity: str | None = None,
        tags: Sequence[str] = (),
        group: str | None = None,
    ) -> None:
        super().__init__(
            project=project,
            entity=entity,
            tags=tags,
            group=group,
            name=run.name,
            id=memory(run.folder).get("wandb"),
            save_dir=run.folder,
            mode=mode,
            settings=wandb.Settings(silent=True, console="off", init_timeout=SECONDS),
        )
        # Lightning hands on a setting that is gone, about which every run would be warned.
        self._wandb_init.pop("anonymous", None)

    @property
    @rank_zero_experiment
    def experiment(self) -> object:
        try:
            return super().experiment
        except wandb.Error as error:
            reason = " ".join(str(error).splitlines()[:2]) or type(error).__name__
            print(
                f"note: Weights & Biases is not available ({reason}); the run is logged offline, and wandb sync "
                f"{self.save_dir}/wandb/offline-* sends it later"
            )
            wandb.teardown()  # its service still holds the run's id
            self._wandb_init["mode"] = "offline"
            return super().experiment


def tensorboard_log(run: TrainingRun) -> Logger:
    """TensorBoard's files, in ``tensorboard/`` of the run's folder; a resumed run drops what it will write again."""
    return TensorBoardLogger(run.folder, name="tensorboard", version="", purge_step=run.start or None)


def wandb_mode() -> str:
    """``disabled``, ``offline`` or ``online``: by WANDB_MODE or ``wandb offline``; without a key, offline."""
    settings = wandb.setup().settings
    mode = os.environ.get("WANDB_MODE") or settings.mode
    if mode == "disabled":
        return mode
    if mode in ("offline", "dryrun"):
        return "offline"
    try:
        key = wbauth.authenticate_session(host=settings.base_url, source="train", prompt=False, update_session=False)
    except wandb.Error as error:  # of another form
        print(f"note: {' '.join(str(error).split())}; the run is logged offline")
        return "offline"
    return "online" if key else "offline"
