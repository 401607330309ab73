"""Weights & Biases beside the csv: what decides whether it is online, what happens without a network, and resuming."""

import socket
from pathlib import Path
from typing import Any

import pytest
import wandb
from omegaconf import OmegaConf
from pytorch_lightning.loggers import Logger

from storydalle.commands.application import compose
from storydalle.commands.train import chosen
from storydalle.reporting.curves import read_curves
from storydalle.training.loggers import SECONDS, RunLog, WandbLog, wandb_mode
from storydalle.training.runs import TrainingRun, memory
from tests.training import Killed, Trainer, killed_after, train

__all__ = ["train"]
KEY = "0123456789" * 4
SETTINGS: dict[str, Any] = {"project": "p", "entity": "e", "tags": ["a", "b"], "group": "g"}
GIVEN = ("logger.project=p", "logger.entity=e", "logger.tags=[a,b]", "logger.group=g")


class Run:
    """A run as ``wandb.init`` returns it, as far as Lightning asks."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def log(self, row: dict[str, Any]) -> None:
        self.rows.append(row)

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


class Client:
    """Stands in the place of ``wandb.init``: remembers what it was asked, and answers or does not."""

    def __init__(self, error: Exception | None = None) -> None:
        self.asked: list[dict[str, Any]] = []
        self.error = error

    def __call__(self, **asked: Any) -> Run:
        self.asked.append(asked)
        if self.error is not None and asked["mode"] == "online":
            raise self.error
        return Run()


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user without a key, a login or a mode; the home of that user. No name of a host is known."""
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))

    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    monkeypatch.setattr(wandb.setup().settings, "mode", "online")
    monkeypatch.setattr(wandb.setup().settings, "api_key", None)
    return tmp_path


def test_the_mode_is_that_of_the_environment_then_that_of_a_key(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wandb_mode() == "offline"
    (nobody / "netrc").write_text(f"machine {wandb.setup().settings.base_url.split('//')[1]} login user password {KEY}")
    assert wandb_mode() == "online", "wandb login has written a key"
    (nobody / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert wandb_mode() == "online"
    for mode, told in {"disabled": "disabled", "offline": "offline", "dryrun": "offline", "online": "online"}.items():
        monkeypatch.setenv("WANDB_MODE", mode)
        assert wandb_mode() == told
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setattr(wandb.setup().settings, "mode", "disabled")
    assert wandb_mode() == "disabled", "wandb disabled has said so"


def test_a_key_of_another_form_is_told_and_the_run_is_offline(
    nobody: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "short")
    assert wandb_mode() == "offline"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert "WANDB_API_KEY" in line and "offline" in line


def made(folder: Path, *overrides: str) -> list[Logger]:
    """The loggers of a run in a folder, as the command line chooses them."""
    group = OmegaConf.to_container(
        compose("train", ["experiment=toon/clip", *(overrides or GIVEN)]).logger, resolve=True
    )
    assert isinstance(group, dict)
    return chosen({str(key): value for key, value in group.items()}, TrainingRun(folder, f"toon/clip/{folder.name}"))


def test_disabled_or_another_logger_leaves_the_csv_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert [type(each) for each in made(tmp_path)] == [RunLog]
    monkeypatch.setenv("WANDB_MODE", "online")
    assert [type(each) for each in made(tmp_path, "logger=csv")] == [RunLog]
    assert [type(each) for each in made(tmp_path)] == [RunLog, WandbLog]
    assert [type(each) for each in made(tmp_path, "logger=[csv,wandb]")] == [RunLog, WandbLog]
    assert made(tmp_path, "logger=none") == []


def test_project_entity_tags_and_group_are_settings(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    composed = compose("train", ["experiment=toon/clip", *GIVEN]).logger
    assert {name: composed[name] for name in SETTINGS} == SETTINGS
    monkeypatch.setattr(wandb, "init", client := Client())
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    made(nobody / "one")[1].experiment  # noqa: B018
    (asked,) = client.asked
    expected = SETTINGS | {"name": "toon/clip/one", "mode": "online"}
    assert {name: asked.get(name, "wandb") for name in expected} == expected
    assert asked["settings"].init_timeout == SECONDS <= 15


def test_without_an_answer_the_run_is_offline_and_one_line_says_so(
    nobody: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = wandb.errors.CommError("Timed out while retrying: no such host\nConsider increasing the init_timeout")
    monkeypatch.setattr(wandb, "init", client := Client(error))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    logger = made(nobody)[1]
    run = logger.experiment
    assert [asked["mode"] for asked in client.asked] == ["online", "offline"]
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("note: Weights & Biases is not available (Timed out while retrying: no such host ")
    assert "offline" in line and "wandb sync" in line
    logger.log_metrics({"train/loss": 1.0}, step=3)
    assert logger.experiment is run and run.rows == [{"train/loss": 1.0, "trainer/global_step": 3}]
    assert len(client.asked) == 2, "it is asked once"


def test_the_client_itself_gives_up_in_time(nobody: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real client, with a wait that a test can afford."""
    monkeypatch.setattr("storydalle.training.loggers.SECONDS", 0.5)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(wandb.setup().settings, "base_url", "http://127.0.0.1:9")
    logger = made(nobody)[1]
    try:
        assert logger.experiment.offline
    finally:
        wandb.finish()
    assert list(nobody.glob("wandb/offline-run-*"))


def test_a_resumed_run_continues_the_same_run_of_the_service(train: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "init", client := Client())
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_after(patch, 1)
        train("name=cut")
    assert train("resume=true").status == 0
    first, second = client.asked
    assert first["id"] == second["id"] == memory(train.runs / "cut")["wandb"] and first["id"]
    assert second["resume"] == "allow"
    assert train("name=other").status == 0
    assert client.asked[2]["id"] != first["id"]


def test_the_csv_grows_by_a_row_and_by_columns_and_is_whole_after_each(tmp_path: Path) -> None:
    log = RunLog(TrainingRun(tmp_path, "run"))
    log.log_metrics({"epoch": 0, "train/loss": 2.0}, step=0)
    log.log_metrics({"epoch": 0, "train/loss": 1.0}, step=1)
    assert read_curves(tmp_path) == {"train/loss": [(0, 2.0), (1, 1.0)]}
    log.log_metrics({"epoch": 0, "val/loss": 3.0}, step=1)
    log.log_metrics({"epoch": 0, "val/loss": 4.0, "train/loss": 0.5}, step=2)
    expected = {"train/loss": [(0, 2.0), (1, 1.0), (2, 0.5)], "val/loss": [(1, 3.0), (2, 4.0)]}
    assert read_curves(tmp_path) == expected
    again = RunLog(TrainingRun(tmp_path, "run", start=2))
    assert read_curves(tmp_path) == expected, "nothing is cut before there is a row to write"
    again.log_metrics({"train/loss": 0.25, "train/new": 7.0}, step=2)
    assert read_curves(tmp_path)["train/loss"] == [(0, 2.0), (1, 1.0), (2, 0.25)]
    assert [path.name for path in log.path.parent.iterdir()] == ["metrics.csv"]


def test_a_row_that_a_kill_took_after_its_checkpoint_is_written_when_the_run_goes_on(tmp_path: Path) -> None:
    """Lightning logs a step after the checkpoint of it is written."""
    log = RunLog(TrainingRun(tmp_path, "run"))
    for step in (0, 1):
        log.log_metrics({"epoch": 0, "train/loss": 0.5 + step}, step=step)
    whole = log.path.read_text()
    log.path.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    for _ in range(2):
        RunLog(TrainingRun(tmp_path, "run", start=2)).complete({"train/loss": 1.5})
        assert log.path.read_text() == whole
    RunLog(TrainingRun(tmp_path, "run", start=0)).complete({"train/loss": 1.5})
    assert len(log.path.read_text().splitlines()) == 1
