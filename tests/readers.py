"""Whole files of all that people and strangers hand in, and what a command reads each of them with."""

import copy
import csv
import importlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image

from storydalle.commands import application, generate, inputs
from storydalle.commands.main import command_module
from storydalle.evaluation.drawn import DrawnFrames
from storydalle.evaluation.story_values import STORIES, write_story_values
from storydalle.evaluation.vistorybench import export_shots
from storydalle.files import outputs
from storydalle.files.conf import conf_folder
from storydalle.files.paths import PathError
from storydalle.metrics.frechet import FeatureStatistics, load_statistics, save_statistics
from storydalle.metrics.networks.character_classifier import CharacterClassifier
from storydalle.metrics.networks.clip import open_image_text_network
from storydalle.metrics.networks.inception import read_weights
from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.mistakes import UserError, told_in_one_line
from storydalle.models import kinds, zoo
from storydalle.settings import filled
from storydalle.stories.set_stories import SetStories
from storydalle.stories.sets.folder import FolderStories
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.training.state import load_state, save_state
from tests import test_clevr, test_folder, test_longstory, whole_sets
from tests.mutants import Reader
from tests.test_conversion import HEADS
from tests.test_convert import FORMATS
from tests.tiny import tiny_story_dalle
from tests.tiny_gan import tiny_story_gan

SENTENCES = ["Pip waves in the meadow.", "She jumps.", "Lulu puts on a red hat."]

Request = pytest.FixtureRequest


def command(name: str, *overrides: str) -> Callable[[], Any]:
    """Run a command as ``main`` does behind Hydra, which tells a UserError or a PathError in one line."""
    config = application.compose(name, list(overrides))
    settings = OmegaConf.to_container(config, resolve=True)
    run = command_module(name).run
    return lambda: run(application.Request(copy.deepcopy(settings), overrides))


TOLD = (UserError, PathError)


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------------ handed in


def captions(request: Request, folder: Path) -> Reader:
    texts = {
        "a.txt": "\n".join(SENTENCES),
        "b.json": json.dumps(SENTENCES),
        "c.csv": "caption\n" + "\n".join(f'"{text}"' for text in SENTENCES),
        "d.tsv": "number\tcaption\n" + "\n".join(f"{i}\t{text}" for i, text in enumerate(SENTENCES)),
        "e.jsonl": "\n".join(json.dumps({"caption": text}) for text in SENTENCES),
        "f.md": "\n".join(f"- {text}" for text in SENTENCES),
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "g.txt").write_text("\n".join(SENTENCES), encoding="utf-16")
    return Reader(files_of(folder), lambda: [inputs.read_captions(path) for path in files_of(folder)], TOLD)


def pictures(request: Request, folder: Path) -> Reader:
    picture = Image.effect_mandelbrot((24, 20), (-2, -1, 1, 1), 50).convert("RGB")
    for ending in ("png", "jpg", "bmp", "gif", "tiff", "webp", "ppm", "tga"):
        picture.save(folder / f"x.{ending}")
    picture.quantize(16).save(folder / "palette.png")
    frames = [picture.rotate(angle).convert("P") for angle in (0, 40, 80)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.arange(480, dtype=np.uint16).reshape(20, 24) * 100).save(folder / "deep.png")
    exif = Image.Exif()
    exif[274] = 6
    picture.save(folder / "turned.jpg", exif=exif)
    return Reader(files_of(folder), lambda: [inputs.open_source(path) for path in files_of(folder)], TOLD)


def story_record(request: Request, folder: Path) -> Reader:
    record = {"program": outputs.PROGRAM, "version": "1", "captions": SENTENCES, "source": "frames/00-source.png"}
    record |= {"model": "story_dalle", "weights_sha256": "0" * 64, "seed": 3, "notes": [], "scores": [[0.5]]}
    record["sampling"] = {name: None for name in ("temperature", "top_k", "top_p")} | {"guidance": 1.0}
    record["sampling"] |= {"num_candidates": 2, "reranker": "likelihood"}
    record |= {"frames": ["frames/01.png"], "candidates": [["frames/01.png"]], "files": ["story.json", "strip.png"]}
    (folder / "frames").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "frames/00-source.png")
    (folder / "story.json").write_text(json.dumps(record))
    defaults = yaml.safe_load((conf_folder() / "generate.yaml").read_text())

    def read() -> None:
        saved = generate.saved_settings(folder / "story.json", frozenset())
        settings = filled(generate.GenerateSettings, defaults | saved)
        generate.read_story(settings)
        kinds.locate(settings.model) if "/" not in settings.model else None  # nothing is downloaded
        outputs.check_output(folder, overwrite=True, megabytes=1)

    return Reader([folder / "story.json"], read, TOLD)


def demo_record(request: Request, folder: Path) -> Reader:
    record = {"program": outputs.PROGRAM, "version": "1", "settings": {"seed": 0}, "files": ["demo.json", "index.html"]}
    (folder / "demo.json").write_text(json.dumps(record))
    (folder / "index.html").write_text("")
    return Reader([folder / "demo.json"], lambda: outputs.check_output(folder, overwrite=False, megabytes=1), TOLD)


def runs(request: Request, folder: Path) -> Reader:
    for seed in range(2):
        run = folder / "runs" / f"study/seed{seed}"
        (run / "csv/version_0").mkdir(parents=True)
        rows = {
            "real frames": {"error": 0.0},
            "ours": {"error": 0.5 + seed / 9, "character_micro_f1": 0.5, "kid": None},
        }
        ends = {"real frames": {"error": [0.0, 0.0]}, "ours": {"error": [0.4, 0.7], "character_micro_f1": [None, None]}}
        record = {"config": "toon/test width=3", "seeds": [seed], "values": rows, "intervals": ends, "n": {"ours": 5}}
        record |= {"systems": {"ours": {"sampling": {"top_k": 5}, "best_of": 2, "chosen_by": "clip"}}}
        record |= {"truth_sha256": "0" * 64, "strips": {"strip-1.png": "ours: best of 3"}, "protocol": None}
        (run / "metrics.json").write_text(json.dumps(record))
        Image.new("RGB", (20, 10)).save(run / "strip-1.png")
        log = "step,train/loss,val/loss\n" + "".join(f"{step},{1 / (step + 1)},\n" for step in range(4))
        (run / "csv/version_0/metrics.csv").write_text(log)
        write_story_values(run / STORIES, {"ours": {"character_micro_f1": np.array([0.4, 0.6])}})
    mutable = files_of(folder)
    return Reader(mutable, command("report", f"runs={folder / 'runs'}", f"out={folder / 'out'}"), TOLD)


# ------------------------------------------------------------------------------------------------ models


def model(made: Any, **sampling: Any) -> Callable[[Request, Path], Reader]:
    def build(request: Request, folder: Path) -> Reader:
        made.card |= {"num_steps": 3, "sampling": sampling, "tables": ["a table"], "story_window": 4}
        made.save_pretrained(folder / "model")
        side = made.resolution

        def read() -> None:
            opened = kinds.open_model(kinds.locate(str(folder / "model")))
            with told_in_one_line(""):
                opened.generate(SENTENCES[:1], Image.new("RGB", (side, side)), seed=0)

        return Reader([path for path in files_of(folder) if path.suffix != ".md"], read, TOLD)

    return build


def saved(make: Callable[[Path], Any], read: Callable[[Path], Any]) -> Callable[[Request, Path], Reader]:
    """The files that are written into a folder, and read from there."""

    def build(request: Request, folder: Path) -> Reader:
        make(folder)
        return Reader(files_of(folder), lambda: read(folder))

    return build


def statistics(folder: Path) -> None:
    found = FeatureStatistics.of(torch.randn(5, 3))
    save_statistics(folder / "x.safetensors", found, protocol_hash="a", network_sha256="b")


def tensors(folder: Path) -> None:
    weights = {"fc.weight": torch.randn(2, 3), "fc.bias": torch.randn(2), "steps": torch.tensor(3)}
    torch.save(weights, folder / "zip.pt")
    torch.save(weights, folder / "stream.pt", _use_new_zipfile_serialization=False)
    save_state(weights, folder / "x.safetensors")


def checkpoint(folder: Path) -> None:
    state = {
        "state_dict": {"a": torch.randn(3, 4), "b": torch.arange(5)},
        "loops": {"fit": {"step": [1, 2, (3, None)]}},
    }
    save_state(state | {"global_step": 7, "hyper": {"name": "x", 3: 0.5}}, folder / "last.safetensors")


def frozen_tokenizer(folder: Path) -> None:
    tiny_story_dalle().image_tokenizer.save_pretrained(folder)


def copied(name: str) -> Callable[[Path], Any]:
    return lambda folder: shutil.copytree(zoo.zoo_folder() / name, folder, dirs_exist_ok=True)


def character_classifier(folder: Path) -> None:
    from tests.test_character_classifier import small

    small().save_pretrained(folder)


# ------------------------------------------------------------------------------------------------ released weights


def released(name: str) -> Callable[[Request, Path], Reader]:
    def build(request: Request, folder: Path) -> Reader:
        write, _, settings = FORMATS[name]
        write(folder / "released")
        own = [
            f"{key}={folder / value}" if key in ("source", "image_encoder") else f"{key}={value}"
            for key, value in (setting.split("=") for setting in settings)
        ]

        convert = command("convert", f"num_heads={HEADS}", *own, f"target={folder / 'ours'}")

        def read() -> None:
            shutil.rmtree(folder / "ours", ignore_errors=True)
            convert()

        return Reader(files_of(folder / "released"), read, TOLD)

    return build


# ------------------------------------------------------------------------------------------------ story sets


def longstory(request: Request, folder: Path) -> Path:
    for episode in (1, 2):
        pages = [test_longstory.page(k, f"Caption {k}.", ["Fred"], ["Fred"]) for k in range(1, 5)]
        test_longstory.write(folder / "longstory", f"season 1_episode_{episode}.json", test_longstory.content(pages))
    return folder / "longstory"


def arldm(request: Request, folder: Path) -> Path:
    pytest.importorskip("h5py")
    own = importlib.import_module("tests.test_arldm")
    texts = {split: {"text": rows} for split, rows in own.PORORO.items()}
    return own.write_file(folder / "pororo.h5", texts, lambda *place: own.png(own.strip_of(*place)))


def rows_of_own(request: Request, folder: Path) -> Path:
    rows = [test_folder.row("a", characters=[["Ada"], ["Bo"], []]), test_folder.row("b", 4, characters=[["Bo"]] * 4)]
    for row in rows:
        for frame in row["frames"]:
            test_folder.draw(folder / "own" / frame)
    return test_folder.rows(folder / "own", *rows)


def pairs_of_own(request: Request, folder: Path) -> Path:
    with (table := folder / "own" / "metadata.jsonl").parent.mkdir() or table.open("w") as file:
        for k in range(4):
            test_folder.draw(folder / "own" / f"{k}.png", red=k)
            file.write(json.dumps({"file_name": f"{k}.png", "text": f"Line {k}.", "story": f"s{k // 2}"}) + "\n")
    return folder / "own"


SETS: dict[str, tuple[str, Callable[[Request, Path], Path], tuple[str, ...]]] = {
    "pororo": ("pororo", whole_sets.pororo, ()),
    "flintstones": ("flintstones", whole_sets.flintstones, ()),
    "didemo": ("didemo", whole_sets.didemo, ()),
    "vist": ("vist", whole_sets.vist, ()),
    "arldm": ("arldm", arldm, ()),
    "clevr": ("clevr", whole_sets.clevr, (f"data.set.size=[{test_clevr.SIZE[0]},{test_clevr.SIZE[1]}]",)),
    "openstory": ("openstory", whole_sets.openstory, ("data.set.min_side=8",)),
    "longstory": ("longstory", longstory, ()),
    "folders": ("folder", whole_sets.mine, ()),
    "rows": ("folder", rows_of_own, ()),
    "imagefolder": ("folder", pairs_of_own, ()),
}


def story_set(name: str) -> Callable[[Request, Path], Reader]:
    def build(request: Request, folder: Path) -> Reader:
        data, make, options = SETS[name]
        root = make(request, folder)
        out = folder.with_name("prepared")
        settings = [
            f"data={data}",
            f"data.root={root}",
            f"out={out}",
            "workers=1",
            "num_stories=1",
            "preview=1",
            *options,
        ]
        settings += ["data.resolution=12"] if name != "longstory" else []

        prepare = command("prepare", *settings)

        def read() -> None:
            shutil.rmtree(out, ignore_errors=True)
            prepare()

        files = [root] if root.is_file() else files_of(root)
        annotations = [path for path in files if path.suffix not in (".png", ".jpg")]
        return Reader([*annotations, *files[:1]] if annotations else files, read, TOLD)

    return build


def drawn(folder: Path) -> None:
    """Frames of other systems, in every layout: pictures by story, a table, tensors, an export."""
    frames = np.random.default_rng(0).integers(0, 256, (2, 9, 9, 3), dtype=np.uint8)
    for layout in ("frames/a", "frames/b", "csv", "arldm"):
        (folder / layout).mkdir(parents=True)
    with (folder / "csv/map.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("story", "frame", "file"))
        for number, story in enumerate("ab"):
            for k in range(2):
                picture = Image.fromarray(frames[k] // (number + 1))
                for name in (f"frames/{story}/{k + 1}.png", f"csv/{story}{k}.png", f"arldm/{2 * number + k:04d}.png"):
                    picture.save(folder / name)
                table.writerow((story, k + 1, f"{story}{k}.png"))
    (folder / "storydalle").mkdir()
    torch.save(torch.rand(2, 2, 3, 9, 9), folder / "storydalle/sdalle_story_test.pt")
    export_shots(
        folder / "vistorybench",
        [("a", frames), ("b", 255 - frames)],
        method="m",
        mode="base",
        language="en",
        timestamp="20260101_000000",
    )


def read_drawn(folder: Path) -> None:
    for layout in sorted(folder.iterdir()):
        found = DrawnFrames(layout, {"a": 2, "b": 2}, 9)
        for story in found.survey(num_workers=1).check():
            found.read(story)


def listed(folder: Path) -> None:
    whole_sets.mine(None, folder)  # type: ignore[arg-type]
    stories = FolderStories(folder / "mine")
    for split in stories.splits:
        (folder / f"ids-{split}.txt").write_text("".join(f"{each.id}\n" for each in stories.records(split)))


def read_listed(folder: Path) -> None:
    stories = FolderStories(folder / "mine")
    for split in stories.splits:
        SetStories(stories, split, 12, ids_folder=folder)[0]


def shards(request: Request, folder: Path) -> Reader:
    pytest.importorskip("webdataset")
    from storydalle.tokens.cache import CachedStories
    from storydalle.tokens.encoding import build_cache, tables_folder
    from storydalle.tokens.shards import StoryShards, write_shards
    from tests.tiny import TinyStories

    made = tiny_story_dalle()
    stories = TinyStories(5, lengths=(2, 1, 4), clip_frames=(1, 3, 6))
    build_cache(stories, made.image_tokenizer, made.caption_tokenizer, folder / "cache")
    write_shards(
        CachedStories(folder / "cache", tables_folder(folder / "cache", made.caption_tokenizer)), folder / "out", 2
    )

    def read() -> None:
        found = StoryShards(folder / "out")
        list(found.rows(found.dealt(0, 1, None), None))

    return Reader([path for path in files_of(folder / "out") if path.name != "lock"], read)


READERS: dict[str, Callable[[Request, Path], Reader]] = {
    "captions": captions,
    "pictures": pictures,
    "story.json": story_record,
    "demo.json": demo_record,
    "metrics.json": runs,
    "model/story_dalle": model(tiny_story_dalle(), top_k=5),
    "model/storyganc": model(tiny_story_gan(), noise_scale=0.5),
    "model/image_tokenizer": saved(frozen_tokenizer, ImageTokenizer.from_pretrained),
    "model/clip": saved(copied("clip"), open_image_text_network),
    "model/label_reader": saved(copied("label_reader"), LabelReader.from_pretrained),
    "model/character_classifier": saved(character_classifier, CharacterClassifier.from_pretrained),
    "weights": saved(tensors, lambda folder: [read_weights(path) for path in files_of(folder)]),
    "statistics": saved(
        statistics,
        lambda folder: load_statistics(folder / "x.safetensors", protocol_hash="a", network_sha256="b"),
    ),
    "checkpoint": saved(checkpoint, lambda folder: load_state(folder / "last.safetensors")),
    "shards": shards,
    "drawn frames": saved(drawn, read_drawn),
    "lists of ids": saved(listed, read_listed),
    **{f"released/{name}": released(name) for name in FORMATS},
    **{f"set/{name}": story_set(name) for name in SETS},
}
