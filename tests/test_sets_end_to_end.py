"""Every story set goes the whole way: prepared, trained on by a tiny model, evaluated under its protocol."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from storydalle.commands import main
from storydalle.stories.sets.folder import FolderStories
from storydalle.tokens.known_words import KnownWords
from tests import test_clevr
from tests.test_arldm import pororo as arldm_file  # noqa: F401  (fixtures)
from tests.test_didemo import root as didemo_root  # noqa: F401
from tests.test_flintstones import root as flintstones_root  # noqa: F401
from tests.test_pororo import root as pororo_root  # noqa: F401
from tests.test_vist import root as vist_root  # noqa: F401
from tests.tiny import tiny_story_dalle
from tests.whole_sets import SIZE, clevr, didemo, flintstones, mine, openstory, pororo, vist


class Run(NamedTuple):
    status: int
    out: str
    err: str


Command = Callable[..., Run]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["storydalle"])
    base = tiny_story_dalle(source_blocks="none", story_depth=0)
    base.words = KnownWords.read(["A dragon."])
    base.save_pretrained(folder / "base")

    def run(*arguments: str) -> Run:
        capsys.readouterr()
        return Run(main.main(list(arguments)), *capsys.readouterr())

    return run


def arldm(request: pytest.FixtureRequest, folder: Path) -> Path:
    path: Path = request.getfixturevalue("arldm_file")
    return path


SETS: dict[str, tuple[Callable[[pytest.FixtureRequest, Path], Path], tuple[str, ...]]] = {
    "pororo": (pororo, ("data.train.split=train", "data.val.split=test")),
    "flintstones": (flintstones, ()),
    "didemo": (didemo, ()),
    "vist": (vist, ()),
    "arldm": (arldm, ()),
    "clevr": (clevr, (f"data.set.size=[{test_clevr.SIZE[0]},{test_clevr.SIZE[1]}]",)),
    "folder": (mine, ("data.val.split=train",)),
    "openstory": (openstory, ("data.set.min_side=8", "data.val.split=train")),
}
# Of these sets' protocols, what is scored by weights that a user brings.
BROUGHT = "[characters,frechet,kernel,frechet_story,consistency]"
LEFT_OUT = {name: BROUGHT for name in ("pororo", "flintstones", "didemo", "vist")}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_a_set_is_prepared_trains_a_tiny_model_and_is_evaluated(
    name: str, command: Command, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    make, options = SETS[name]
    data = (f"data={name}", f"data.root={make(request, tmp_path)}", f"data.resolution={SIZE}", *options)
    prepared = command("prepare", *data, "workers=1", "num_stories=2")
    assert prepared.status == 0, prepared.err
    report = json.loads(Path("prepared", name, "report.json").read_text())
    usable = {split: counts["usable"] for split, counts in report["splits"].items()}
    assert any(usable.values())

    tiny = ("pretrained=base", "trainer=smoke", "name=first", "save_every=1", "data_module.batch_size=1")
    trained = command("train", "experiment=toon/story_dalle", *data, *tiny, "system.story_warmup_steps=1")
    assert trained.status == 0, trained.err
    split = next(split for split in ("test", "val", "train") if usable.get(split))
    scored = command(
        *("evaluate", *data, "model=runs/toon/story_dalle/first/model", f"data.ids=prepared/{name}"),
        *(f"splits=[{split}]", "num_stories=2", f"leave_out={LEFT_OUT.get(name, 'null')}"),
    )
    assert scored.status == 0, scored.err
    (out,) = Path("evaluated", name).glob(f"first*/{split}")
    record = json.loads((out / "metrics.json").read_text())
    assert record["protocol"]["dataset"] == name and record["protocol"]["num_stories"] == min(2, usable[split])
    values: dict[str, Any] = record["values"]
    assert values["real frames"]["error"] == 0 and values["copy the source"]["change"] == 0
    assert values["runs/toon/story_dalle/first/model"]["nats"] > 0
    assert (out / "strip-1.png").is_file() and (out / "index.html").is_file()


def test_prepare_encodes_what_training_then_finds(
    command: Command, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = mine(request, tmp_path)
    (root / "b" / "2.png").write_bytes(b"half")
    data = ("data=folder", f"data.root={root}", "data.val.split=train")
    told = command("prepare", *data, "data.resolution=16", "pretrained=base", "workers=1")
    assert told.status == 2 and told.err.splitlines()[-1].endswith("give data.resolution=12"), told.err
    told = command("prepare", *data, f"data.resolution={SIZE}", "pretrained=base", "workers=1")
    assert told.status == 0, told.err
    clips = sum(len(record.clips) for record in FolderStories(root).records("train"))
    expected = f"encoded train: {clips - 1} frames of {clips} clips (1 cannot be read), 2 stories (1 left out"
    assert expected in told.out, told.out

    def refuse(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr("storydalle.tokens.encoding.encode_clips", refuse)
    tiny = ("pretrained=base", "trainer=smoke", "name=first", "data_module.batch_size=1")
    trained = command("train", "experiment=toon/story_dalle", *data, f"data.resolution={SIZE}", *tiny)
    assert trained.status == 0, trained.err
    read = [caption for record in FolderStories(root).records("train") for caption in record.captions[1:]]
    known = KnownWords.load(Path("runs/toon/story_dalle/first/model"))
    assert known == KnownWords.read([*read, "A dragon."])  # its own, beside those of the base


def test_shards_that_prepare_wrote_train(command: Command, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    data = ("data=folder", f"data.root={mine(request, tmp_path)}", "data.val.split=train", f"data.resolution={SIZE}")
    told = command("prepare", *data, "workers=1", "shards=shards")
    assert told.status == 2 and "pretrained=FOLDER" in told.err
    told = command("prepare", *data, "workers=1", "pretrained=base", "shards=shards", "stories_per_shard=2")
    assert told.status == 0, told.err
    assert len(list(Path("shards/train").glob("*.tar"))) == 2
    tiny = ("pretrained=base", "trainer=smoke", "name=first", "data_module.batch_size=1", "system.story_warmup_steps=1")
    trained = command(
        "train", "experiment=toon/story_dalle", "system=story_dalle_shards", "shards=shards", *data, *tiny
    )
    assert trained.status == 0, trained.err
    assert KnownWords.load(Path("runs/toon/story_dalle/first/model")) is None  # shards hold tokens alone


def test_a_picture_that_cannot_be_read_is_told_with_the_remedy(
    command: Command, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    root = mine(request, tmp_path)
    (root / "b" / "2.png").write_bytes(b"half")
    data = ("data=folder", f"data.root={root}", f"data.resolution={SIZE}", "splits=[train]", "model=base")
    told = command("evaluate", *data)
    assert (told.status, len(told.err.splitlines())) == (2, 1), told.err
    assert "data.ids=prepared/folder" in told.err
    assert command("prepare", *data[:3], "workers=1").status == 0
    assert command("evaluate", *data, "data.ids=prepared/folder").status == 0


def test_bench_tells_each_stage_beside_decoding(command: Command) -> None:
    small = ("model=base", "num_stories=8", "batch_size=2", "rounds=1", "picture_size=64")
    told = command("bench", "bench=data", *small)
    assert told.status == 0, told.err
    record = json.loads(Path("benched/data-batch_size2-model_base-picture_size64/metrics.json").read_text())
    rates = record["values"]["data"]["frames_per_second"]
    assert list(rates) == ["decode alone", "decode and resize", "decode, resize and encode", "read from the cache"]
    assert all(rate > 0 for rate in rates.values())  # which is faster, a busy machine decides
    assert 0 < record["values"]["data"]["share_of_a_step_waiting"] < 1
    for mistake in ("bench=speed", "num_stories=1", "rounds=0", "picture_size=7"):
        refused = command("bench", *small, mistake)
        assert refused.status == 2 and len(refused.err.splitlines()) == 1, refused.err
