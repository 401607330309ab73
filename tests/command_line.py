"""Command lines in an empty folder, a model that paints without weights, and how a mistake looks."""

import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storydalle.commands import main
from storydalle.models import kinds, zoo

Run = namedtuple("Run", "status out err")

Command = Callable[..., Run]

SIZE = 32


class PaintingModel:
    """Stands for a model: colours that depend on caption, source, seed and candidate."""

    resolution = SIZE

    def generate(
        self,
        captions: list[str],
        source: Image.Image | None,
        num_candidates: int = 1,
        seed: int = 0,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float | None = None,
        packing: str | None = None,
        reranker: Any = None,
        *,
        progress: Callable[[int, int], None] | None = None,
        announce: Callable[[str], None] | None = None,
        choose: Any = None,
    ) -> Any:
        first = 0 if source is None else int(np.asarray(source).sum()) % 251
        shades = [[(len(text) * 7 % 256, (seed + k) % 256, first) for k in range(num_candidates)] for text in captions]
        if progress is not None:
            progress(len(captions), len(captions))
        candidates = [[Image.new("RGB", (SIZE, SIZE), shade) for shade in row] for row in shades]
        notes = [f"caption {i + 1} was cut" for i, text in enumerate(captions) if len(text.split()) > 64]
        return SimpleNamespace(
            frames=[row[0] for row in candidates],
            candidates=candidates,
            scores=np.zeros((len(captions), num_candidates)),
            notes=notes,
        )


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])

    def run(*arguments: str) -> Run:
        capsys.readouterr()
        status = main.main(list(arguments))
        return Run(status, *capsys.readouterr())

    return run


@pytest.fixture
def painting(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Puts the painting model in the place of every trained one."""
    folder = tmp_path_factory.mktemp("model")
    (folder / zoo.CONFIG_NAME).write_text("{}")
    (folder / zoo.WEIGHTS_NAME).write_bytes(b"weights")
    monkeypatch.setattr(kinds, "locate", lambda model: folder)
    monkeypatch.setattr(kinds, "open_model", lambda folder: PaintingModel())
    return folder


@pytest.fixture
def story(command: Command, painting: Path, tmp_path: Path) -> Path:
    """A captions file and a source picture, ready to be drawn."""
    (tmp_path / "story.txt").write_text("Pip waves.\n\nLulu jumps over Pip.\n")
    Image.new("RGB", (40, 30), "teal").save(tmp_path / "frame.png")
    return tmp_path / "story.txt"


def assert_mistake(run: Run, *words: str) -> None:
    assert run.status == 2
    assert len(run.err.splitlines()) == 1, run.err
    assert run.err.startswith("storydalle: ")
    assert "Traceback" not in run.err
    for word in words:
        assert word in run.err, run.err


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
