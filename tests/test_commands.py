"""The command line: what it writes, and that a mistake is one line, exit status 2, and nothing lost."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storydalle.commands import application, completion, inputs, main, outputs
from storydalle.mistakes import nearest
from storydalle.models import kinds
from storydalle.reporting import strips

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
        reranker: Any = None,
        *,
        progress: Callable[[int, int], None] | None = None,
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
    (folder / kinds.CONFIG).write_text("{}")
    (folder / kinds.WEIGHTS).write_bytes(b"weights")
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


# ------------------------------------------------------------------------------------------------ help and settings


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in main.COMMANDS)])
def test_help_imports_neither_torch_nor_lightning_nor_hydra(arguments: list[str]) -> None:
    code = (
        "import sys; from storydalle.commands.main import main; "
        f"assert main({arguments!r}) == 0; "
        "heavy = {'torch', 'pytorch_lightning', 'hydra', 'omegaconf', 'numpy', 'transformers'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "storydalle" in done.stdout


def test_a_mistake_in_the_captions_is_told_without_importing_torch() -> None:
    code = (
        "import sys; from storydalle.commands.main import main; "
        "assert main(['generate', 'captions=missing.txt']) == 2; "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1


def test_the_package_runs_as_a_module_and_hands_on_the_status() -> None:
    line = [sys.executable, "-m", "storydalle"]
    assert subprocess.run([*line, "--version"], capture_output=True, text=True).stdout.startswith("storydalle ")
    assert subprocess.run([*line, "nothing"], capture_output=True).returncode == 2


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    line = [sys.executable, "-m", "storydalle", "--help"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == main.STOPPED


def test_importing_the_package_imports_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", "import storydalle, sys; sys.exit('torch' in sys.modules)"])
    assert done.returncode == 0


@pytest.mark.parametrize(
    "asked", ["import storydalle.commands.convert", "from storydalle import StoryDALLE, StoryGANc"]
)
def test_the_package_needs_no_transformers_until_it_is_asked_for(asked: str) -> None:
    """Where it is installed: of an import of it nothing would be seen otherwise."""
    pytest.importorskip("transformers")
    code = f"import sys, storydalle; {asked}; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_lists_every_command_and_a_command_lists_every_setting(command: Command) -> None:
    overview = command("--help").out
    assert all(f"  {name} " in overview for name in main.COMMANDS)
    text = command("train", "--help").out
    assert all(word in text for word in ("resume", "experiment=NAME", "toon/story_dalle", "sweep=NAME"))
    settings = application.compose("generate", [])
    assert all(f"{key}:" in command("generate", "-h").out for key in settings)


def test_no_command_shows_the_help(command: Command) -> None:
    assert command().out == command("--help").out


def test_cfg_job_shows_the_settings_with_overrides(command: Command) -> None:
    run = command("generate", "--cfg", "job", "seed=3")
    assert run.status == 0
    assert "seed: 3" in run.out


def test_commands_leave_no_folder_of_hydra(command: Command, story: Path) -> None:
    command("generate", "captions=story.txt")
    assert {path.name for path in story.parent.iterdir()} == {"story.txt", "frame.png", "strips"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generat"], ["no command 'generat'", "generate"]),
        (["generate", "sead=3"], ["no setting 'sead'", "seed"]),
        (["generate", "+style=oil"], ["no setting '+style=oil'"]),
        (["generate", "story.txt"], ["'story.txt'", "key=value"]),
        (["generate", "--seeds"], ["no flag --seeds"]),
        (["generate", "--cfg", "jb"], ["jb"]),
        (["generate", 'captions=["Pip waves.'], ["cannot read"]),
        (["generate", "captions=${nothing}"], ["nothing"]),
        (["train"], ["experiment=NAME", "toon/story_dalle"]),
        (["train", "experiment=toon/story_dale"], ["no experiment 'toon/story_dale'", "toon/story_dalle"]),
        (["train", "experiment=toon/story_dalle", "data=tune"], ["no data 'tune'", "toon"]),
        (["train", "experiment=toon/story_dalle", "sweep=ablations"], ["no sweep", "ablation"]),
        (["train", "experiment=toon/story_dalle", "trainer.max_step=3"], ["trainer.max_step'", "trainer.max_steps"]),
        (["train", "experiment=toon/story_dalle", "retrofitt=full"], ["'retrofitt'", "retrofit"]),
        (["prepare", "data=tone"], ["no data 'tone'", "toon"]),
        (["prepare", "split=tests"], ["no split 'tests'", "test"]),
        (["report", "runs=nowhere"], ["nowhere"]),
        (["--shell-completion"], ["install=SHELL"]),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_ones(
    command: Command, arguments: list[str], words: list[str]
) -> None:
    assert_mistake(command(*arguments), *words)


def test_nearest_names_only_the_nearest() -> None:
    assert nearest("max_step", ["max_steps", "min_step", "seed"]) == "did you mean max_steps?"
    assert nearest("xyz", ["toon"]) == "choose one of toon"
    assert nearest("xyz", []) == "there are none yet"


def test_a_mistake_is_one_line_in_a_process_of_its_own(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "storydalle", "generate", "captions=missing.txt"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert_mistake(Run(done.returncode, done.stdout, done.stderr), "missing.txt")


def test_a_traceback_is_there_for_those_who_ask(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORYDALLE_TRACEBACK", "1")
    assert "Traceback" in command("generate").err


def test_an_error_of_ours_keeps_its_traceback(command: Command, story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(strip: strips.Strip) -> Image.Image:
        raise KeyError("a bug")

    monkeypatch.setattr(strips, "strip_image", broken)
    with pytest.raises(KeyError):
        command("generate", "captions=story.txt")


# ------------------------------------------------------------------------------------------------ completion


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("storydalle ", set(main.COMMANDS)),
        ("storydalle ge", {"generate"}),
        ("storydalle generate num_c", {"num_candidates="}),
        ("storydalle train exp", {"experiment="}),
        ("storydalle train experiment=", {"experiment=toon/story_dalle"}),
        ("storydalle train retrofit=no_", {"retrofit=no_source", "retrofit=no_story"}),
    ],
)
def test_tab_completes_commands_and_what_follows_them(
    command: Command, monkeypatch: pytest.MonkeyPatch, line: str, expected: set[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    run = command("-sc", "query=bash")
    assert run.status == 0
    assert {word for word in run.out.split() if word.startswith(line.split(" ")[-1])} >= expected


def test_the_shell_is_bound_to_our_name(command: Command) -> None:
    assert command("--shell-completion", "install=bash").out.rstrip().endswith("hydra_bash_completion storydalle")
    assert completion.__doc__


# ------------------------------------------------------------------------------------------------ generate


def test_generate_writes_strip_animation_frames_page_and_record(command: Command, story: Path) -> None:
    run = command("generate", "captions=story.txt", "source=frame.png", "seed=5")
    assert run.status == 0, run.err
    folder = story.parent / "strips" / "story-seed5"
    names = {"strip.png", "strip.gif", "index.html", "story.json"}
    assert set(files(folder)) == names | {f"frames/{name}.png" for name in ("00-source", "01", "02")}
    record = json.loads((folder / "story.json").read_text())
    assert record["captions"] == ["Pip waves.", "Lulu jumps over Pip."]
    assert record["seed"] == 5
    assert record["source"] == "frames/00-source.png"
    assert len(record["weights_sha256"]) == 64
    assert set(record["sampling"]) == {"num_candidates", "temperature", "top_k", "top_p", "guidance", "reranker"}
    left = {name: record["sampling"][name] for name in ("temperature", "top_k", "top_p", "guidance")}
    assert set(left.values()) == {None}, "they are the model card's"
    assert "strips/story-seed5/strip.png" in run.out


def test_the_source_is_cropped_to_its_central_square_and_it_is_said(command: Command, story: Path) -> None:
    run = command("generate", "captions=story.txt", "source=frame.png")
    assert "note: source frame.png (40x30) was cropped to its central square" in run.out
    with Image.open("strips/story/frames/00-source.png") as source:
        assert source.size == (30, 30)


def test_a_large_source_is_kept_at_a_reasonable_size(command: Command, story: Path) -> None:
    Image.new("RGB", (2000, 2000), "teal").save("large.jpg")
    command("generate", "captions=story.txt", "source=large.jpg")
    with Image.open("strips/story/frames/00-source.png") as source:
        assert source.size == (512, 512)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(command: Command, story: Path) -> None:
    for out, seed in (("first", 7), ("second", 7), ("third", 8)):
        assert command("generate", "captions=story.txt", "source=frame.png", f"seed={seed}", f"out={out}").status == 0
    assert files(Path("first")) == files(Path("second"))
    assert files(Path("first"))["strip.png"] != files(Path("third"))["strip.png"]


def test_a_story_is_drawn_again_from_its_record(command: Command, story: Path) -> None:
    given = ["captions=story.txt", "source=frame.png", "seed=7", "num_candidates=2", "top_k=9", "out=first"]
    command("generate", *given)
    run = command("generate", "story=first/story.json", "out=again")
    assert run.status == 0, run.err
    first, again = files(Path("first")), files(Path("again"))
    for name in first:
        if name.endswith((".png", ".gif")):
            assert first[name] == again[name], name
    command("generate", "story=first/story.json", "out=other", "seed=8")
    record = json.loads(Path("other/story.json").read_text())
    assert (record["seed"], record["sampling"]["top_k"]) == (8, 9)
    assert files(Path("other"))["strip.png"] != first["strip.png"]


def test_a_story_of_other_weights_is_drawn_and_said(command: Command, story: Path, painting: Path) -> None:
    command("generate", "captions=story.txt", "out=first")
    (painting / kinds.WEIGHTS).write_bytes(b"others")
    assert "have changed" in command("generate", "story=first/story.json", "out=again").out


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"program": "storydalle"}'])
def test_a_foreign_record_is_refused(command: Command, story: Path, content: str) -> None:
    Path("other.json").write_text(content)
    assert_mistake(command("generate", "story=other.json"), "other.json")
    assert_mistake(command("generate", "story=missing.json"), "missing.json")


def test_all_candidates_are_kept(command: Command, story: Path) -> None:
    command("generate", "captions=story.txt", "num_candidates=3")
    names = set(files(Path("strips/story-num_candidates3/frames")))
    assert names == {"01.png", "01-2.png", "01-3.png", "02.png", "02-2.png", "02-3.png"}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("story.txt", b"Pip waves.\r\n\r\n  Lulu   sits. \n"),
        ("bom.txt", "\ufeffPip waves.\nLulu sits.".encode()),
        ("utf16.txt", "Pip waves.\nLulu sits.".encode("utf-16")),
        ("story.json", b'["Pip waves.", "Lulu sits."]'),
        ("photo (1)=x, y.txt", b"Pip waves.\nLulu sits."),
    ],
)
def test_captions_are_read_from_text_and_json(command: Command, painting: Path, name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    run = command("generate", f"captions={name}", "out=strip")
    assert run.status == 0, run.err
    assert json.loads(Path("strip/story.json").read_text())["captions"] == ["Pip waves.", "Lulu sits."]


def test_captions_are_read_from_the_command_line(command: Command, painting: Path) -> None:
    run = command("generate", """captions=["It's Pip, and he waves.", "Lulu: sits!"]""")
    assert run.status == 0, run.err
    record = json.loads(Path("strips/story/story.json").read_text())
    assert record["captions"] == ["It's Pip, and he waves.", "Lulu: sits!"]
    assert record["source"] is None


def test_what_the_model_remarks_is_said_and_kept(command: Command, painting: Path) -> None:
    Path("long.txt").write_text("word " * 70)
    assert "note: caption 1 was cut" in command("generate", "captions=long.txt").out
    assert json.loads(Path("strips/long/story.json").read_text())["notes"][-1] == "caption 1 was cut"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", ["no caption"]),
        ("blank.txt", b" \n\n\t\n", ["no caption"]),
        ("picture.txt", b"\x89PNG\r\n\x1a\n\x00\xff\xfe", ["not text"]),
        ("zeros.txt", b"Pip\0waves", ["not text"]),
        ("many.txt", b"Pip waves.\n" * 51, ["51 captions", "1 to 50"]),
        ("book.txt", b"Pip waves.\n" * 200_000, ["bytes", "too many"]),
        ("broken.json", b'["Pip waves."', ["not JSON"]),
        ("table.json", b'{"captions": ["Pip waves."]}', ["not a JSON list"]),
        ("numbers.json", b'["Pip waves.", 3]', ["entry 2", "3"]),
        ("hole.json", b'["Pip waves.", ""]', ["entry 2"]),
        ("none.json", b"[]", ["no caption"]),
    ],
)
def test_a_bad_caption_list_is_one_line(
    command: Command, painting: Path, name: str, content: bytes, words: list[str]
) -> None:
    Path(name).write_bytes(content)
    assert_mistake(command("generate", f"captions={name}"), name, *words)
    assert not Path("strips").exists()


def test_a_missing_caption_list_is_one_line(command: Command, painting: Path) -> None:
    Path("folder").mkdir()
    assert_mistake(command("generate"), "captions=FILE.txt")
    assert_mistake(command("generate", "captions=missing.txt"), "missing.txt")
    assert_mistake(command("generate", "captions=folder"), "not a file")
    assert_mistake(command("generate", "captions=[]"), "no caption")
    assert_mistake(command("generate", 'captions=[1, "Pip waves."]'), "entry 1")


def test_fifty_captions_are_drawn(command: Command, painting: Path) -> None:
    Path("many.txt").write_text("Pip waves.\n" * 50)
    assert command("generate", "captions=many.txt").status == 0
    assert len(files(Path("strips/many/frames"))) == 50


def bytes_of(image: Image.Image, path: str, **options: Any) -> bytes:
    image.save(path, **options)
    return Path(path).read_bytes()


def test_a_corrupt_or_missing_source_is_one_line(command: Command, story: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for name in ("cut.png", "cut.jpg", "cut.webp"):
        data = bytes_of(noise, name)
        Path(name).write_bytes(data[: len(data) // 2])
        assert_mistake(command("generate", "captions=story.txt", f"source={name}"), name, "damaged")
    Path("text.png").write_text("no picture")
    assert_mistake(command("generate", "captions=story.txt", "source=text.png"), "not a picture")
    assert_mistake(command("generate", "captions=story.txt", "source=missing.png"), "missing.png")
    assert_mistake(command("generate", "captions=story.txt", "source=."), "no source picture")
    assert not Path("strips").exists()


@pytest.mark.parametrize("limit", [900, 400])
def test_a_huge_source_is_one_line(command: Command, story: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Pillow warns above its limit and refuses above twice that; both are refused here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert_mistake(command("generate", "captions=story.txt", "source=frame.png"), "frame.png", "smaller")


def test_an_animated_source_gives_its_first_frame_and_it_is_said(command: Command, story: Path) -> None:
    shots = [Image.new("RGB", (20, 20), color) for color in ("red", "blue")]
    shots[0].save("moving.gif", save_all=True, append_images=shots[1:])
    run = command("generate", "captions=story.txt", "source=moving.gif")
    assert run.status == 0
    assert "note: source moving.gif is animated: its first frame is used" in run.out
    with Image.open("strips/story/frames/00-source.png") as source:
        assert source.getpixel((5, 5)) == (255, 0, 0)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    picture = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "photo.jpg", exif=exif)
    upright, _ = inputs.open_source(tmp_path / "photo.jpg")
    assert upright.size == (10, 20)


def test_sixteen_bits_a_pixel_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 32768, dtype=np.uint16)).save(tmp_path / "deep.png")
    picture, _ = inputs.open_source(tmp_path / "deep.png")
    assert picture.convert("RGB").getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("seed", ["-1", str(2**63), "1.5", "abc", "true", "null"])
def test_a_seed_out_of_range_is_one_line(command: Command, story: Path, seed: str) -> None:
    assert_mistake(command("generate", "captions=story.txt", f"seed={seed}"), "seed=", "2**63 - 1")


@pytest.mark.parametrize(
    "setting",
    [
        *("num_candidates=0", "num_candidates=100000", "num_candidates=1.5", "temperature=-1", "temperature=hot"),
        *("top_k=0", "top_p=1.5", "guidance=-1", "seconds=0"),
    ],
)
def test_a_sampling_setting_out_of_range_is_one_line(command: Command, story: Path, setting: str) -> None:
    assert_mistake(command("generate", "captions=story.txt", setting), setting.partition("=")[0])


def test_the_largest_seed_draws(command: Command, story: Path) -> None:
    assert command("generate", "captions=story.txt", f"seed={2**63 - 1}").status == 0


def test_what_the_model_refuses_is_one_line(command: Command, story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: PaintingModel, *arguments: Any, **settings: Any) -> Any:
        raise ValueError("guidance=3: this model was not trained for it")

    monkeypatch.setattr(PaintingModel, "generate", refuse)
    assert_mistake(command("generate", "captions=story.txt", "guidance=3"), "not trained")


# ------------------------------------------------------------------------------------------------ the output folder


def test_a_folder_with_other_files_is_refused_and_kept(command: Command, story: Path) -> None:
    Path("work").mkdir()
    Path("work/thesis.txt").write_text("years")
    before = files(Path("work"))
    assert_mistake(command("generate", "captions=story.txt", "out=work"), "thesis.txt", "overwrite=true")
    assert files(Path("work")) == before


def test_foreign_files_with_our_names_are_refused(command: Command, story: Path) -> None:
    Path("work").mkdir()
    Path("work/strip.png").write_bytes(b"not ours")
    assert_mistake(command("generate", "captions=story.txt", "out=work"), "strip.png")


def test_an_earlier_strip_is_replaced_without_leftovers(command: Command, story: Path) -> None:
    Path("long.txt").write_text("Pip waves.\nPip sits.\nPip runs.\n")
    command("generate", "captions=long.txt", "out=strip", "num_candidates=2")
    assert command("generate", "captions=story.txt", "out=strip").status == 0
    command("generate", "captions=story.txt", "out=fresh")
    assert files(Path("strip")) == files(Path("fresh"))


def test_a_file_added_to_an_earlier_strip_is_protected(command: Command, story: Path) -> None:
    command("generate", "captions=story.txt", "out=strip")
    Path("strip/frames/mine.png").write_bytes(b"mine")
    assert_mistake(command("generate", "captions=story.txt", "out=strip"), "frames/mine.png")


def test_overwrite_keeps_the_other_files(command: Command, story: Path) -> None:
    Path("work").mkdir()
    Path("work/thesis.txt").write_text("years")
    assert command("generate", "captions=story.txt", "out=work", "overwrite=true").status == 0
    assert Path("work/thesis.txt").read_text() == "years"
    assert Path("work/strip.png").is_file()


def test_an_empty_folder_is_used(command: Command, story: Path) -> None:
    Path("empty").mkdir()
    assert command("generate", "captions=story.txt", "out=empty").status == 0


def test_a_file_as_output_folder_is_one_line(command: Command, story: Path) -> None:
    assert_mistake(command("generate", "captions=story.txt", "out=frame.png"), "frame.png", "is a file")
    assert_mistake(command("generate", "captions=story.txt", "out=frame.png/strip"), "frame.png")


def test_a_record_cannot_make_us_remove_files_elsewhere(tmp_path: Path) -> None:
    folder, partial = tmp_path / "strip", tmp_path / "partial"
    folder.mkdir()
    partial.mkdir()
    (tmp_path / "precious.txt").write_text("years")
    record = {"program": outputs.PROGRAM, "files": ["../precious.txt", str(tmp_path / "precious.txt"), "strip.gif"]}
    (folder / "story.json").write_text(json.dumps(record))
    (folder / "strip.gif").write_bytes(b"old")
    (partial / "story.json").write_text("{}")
    outputs.commit(partial, folder)
    assert (tmp_path / "precious.txt").read_text() == "years"
    assert set(files(folder)) == {"story.json"}


def test_a_full_disk_is_told_before_any_work(command: Command, story: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    monkeypatch.setattr(kinds, "open_model", lambda folder: pytest.fail("a model was opened"))
    assert_mistake(command("generate", "captions=story.txt"), "no disk space")


def test_a_disk_that_fills_up_while_writing_loses_nothing(
    command: Command, story: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("generate", "captions=story.txt", "out=strip")
    before = files(story.parent)

    def full(*arguments: Any, **settings: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(strips, "save_gif", full)
    assert_mistake(
        command("generate", "captions=story.txt", "out=strip", "seed=3"), "no disk space", "nothing was changed"
    )
    assert files(story.parent) == before


def test_a_full_disk_anywhere_else_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(arguments: Sequence[str]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/last")

    monkeypatch.setattr(main, "dispatch", full)
    assert_mistake(command("train"), "no disk space", "runs/last")


# ------------------------------------------------------------------------------------------------ models


@pytest.fixture
def captions_file(command: Command, tmp_path: Path) -> str:
    (tmp_path / "story.txt").write_text("Pip waves.\n")
    return "captions=story.txt"


def test_an_unknown_model_is_told_with_the_nearest_names(
    command: Command, captions_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kinds, "zoo_names", lambda: ["story_dalle", "storyganc"])
    assert_mistake(command("generate", captions_file, "model=story_dale"), "'story_dale'", "did you mean story_dalle?")
    assert_mistake(command("generate", captions_file, "model=no/such/folder"), "no/such/folder")


def test_a_hub_model_that_is_not_there_is_one_line(command: Command, captions_file: str) -> None:
    assert_mistake(command("generate", captions_file, "model=nobody/no-such-model"), "nobody/no-such-model")


def test_a_folder_without_a_model_is_one_line(command: Command, captions_file: str) -> None:
    Path("empty").mkdir()
    assert_mistake(command("generate", captions_file, "model=empty"), "config.json and model.safetensors missing")


@pytest.mark.parametrize("config", ["{}", "not json", '{"image_tokenizer": {"colour": 3}}'])
@pytest.mark.parametrize("weights", [b"", b"\x10\0\0\0\0\0\0\0{", b"PK\x03\x04 a pickle"])
def test_a_truncated_or_foreign_checkpoint_is_one_line(
    command: Command, captions_file: str, config: str, weights: bytes
) -> None:
    Path("model").mkdir()
    Path("model/config.json").write_text(config)
    Path("model/model.safetensors").write_bytes(weights)
    assert_mistake(command("generate", captions_file, "model=model"), "cannot open model")
    assert not Path("strips").exists()


# ------------------------------------------------------------------------------------------------ the other commands


def test_prepare_writes_a_contact_sheet_and_counts(command: Command) -> None:
    run = command("prepare", "data=toon", "data.resolution=64", "num_stories=2", "out=look")
    assert run.status == 0, run.err
    counts = json.loads(Path("look/counts.json").read_text())
    assert sum(counts["tint"].values()) == sum(counts["setting"].values()) > 0
    with Image.open("look/contact_sheet.png") as sheet:
        assert min(sheet.size) > 64


def test_demo_writes_a_gallery_that_can_be_written_again(command: Command, painting: Path) -> None:
    monkey = pytest.MonkeyPatch()
    monkey.setattr(PaintingModel, "resolution", 64)
    try:
        for _ in range(2):
            run = command("demo", "num_stories=2")
            assert run.status == 0, run.err
    finally:
        monkey.undo()
    assert set(files(Path("demo"))) == {"index.html", "strip-1.png", "strip-2.png", "demo.json"}


def test_the_results_of_a_readme_are_replaced_between_their_markers(tmp_path: Path) -> None:
    from storydalle.commands.outputs import RESULTS_BEGIN, RESULTS_END, fill_results
    from storydalle.mistakes import UserError

    page = tmp_path / "README.md"
    page.write_text(f"before\n{RESULTS_BEGIN}\nold\n{RESULTS_END}\nafter\n")
    fill_results(page, "| new |")
    assert page.read_text() == f"before\n{RESULTS_BEGIN}\n| new |\n{RESULTS_END}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(UserError, match="results:begin"):
        fill_results(page, "new")


# ------------------------------------------------------------------------------------------------ runs


def test_runs_have_folders_of_their_own_and_resume_finds_the_newest(tmp_path: Path) -> None:
    from storydalle.mistakes import UserError
    from storydalle.training.runs import LAST, run_folder

    with pytest.raises(UserError, match="nothing to resume"):
        run_folder(tmp_path, None, resume=True)
    first, second = run_folder(tmp_path, None, resume=False), run_folder(tmp_path, None, resume=False)
    assert first != second
    for age, folder in ((100, first), (50, second)):
        (folder / LAST).parent.mkdir(parents=True)
        (folder / LAST).write_bytes(b"")
        os.utime(folder / LAST, (1e9 - age, 1e9 - age))
    assert run_folder(tmp_path, None, resume=True) == second
    assert run_folder(tmp_path, first.name, resume=True) == first
    with pytest.raises(UserError, match="resume=true"):
        run_folder(tmp_path, first.name, resume=False)
    assert run_folder(tmp_path, "new", resume=True) == tmp_path / "new"


def test_runs_that_differ_in_the_seed_alone_share_a_name_in_reports() -> None:
    from storydalle.commands.train import config_name

    choices = {"experiment": "toon/story_dalle"}
    names = [
        config_name(
            application.Request({}, ("experiment=toon/story_dalle", f"seed={seed}", "retrofit=no_story"), choices)
        )
        for seed in (0, 1)
    ]
    assert names == ["toon/story_dalle retrofit=no_story"] * 2


TINY = (
    *("data.resolution=64", "data.train.num_stories=8", "data.val.num_stories=4", "data_module.batch_size=4"),
    *("trainer=smoke", "backbone=tiny", "tokenizer=tiny", "save_every=1"),
)


@pytest.mark.slow
def test_the_trainings_build_on_each_other_and_end_in_a_strip(command: Command) -> None:
    """The whole of ``make zoo`` in two steps each; then a story from the weights it made, and the runs' table."""
    shipped = ("image_tokenizer", "image_decoder", "text_to_image", "story_dalle", "storyganc")
    for experiment in (f"toon/{name}" for name in shipped):
        run = command("train", f"experiment={experiment}", "name=first", *TINY)
        assert run.status == 0, run.err
        folder = Path("runs") / experiment / "first"
        written = set(files(folder))
        assert written >= {"config.yaml", "metrics.json", "checkpoints/last.safetensors", "model/model.safetensors"}
    Path("story.txt").write_text("Pip waves.\nPip sleeps.\n")
    assert command("generate", "captions=story.txt", "model=runs/toon/story_dalle/first/model").status == 0
    source = f"source={next(Path('strips').glob('story-model_first*/frames/*.png'))}"
    of_gan = command("generate", "captions=story.txt", "model=runs/toon/storyganc/first/model", source, "out=gan")
    assert of_gan.status == 0, of_gan.err
    assert "toon/story_dalle" in command("report", "runs=runs").out
    assert_last_line(command("train", "experiment=toon/story_dalle", "resume=true", *TINY), "first is finished")
    assert_last_line(command("train", "experiment=toon/story_dalle", "name=first", *TINY), "first is finished")
    Path("runs/toon/story_dalle/first/metrics.json").unlink()  # as a run that was killed before its end
    assert_last_line(command("train", "experiment=toon/story_dalle", "name=first", *TINY), "resume=true")
    again = command("train", "experiment=toon/story_dalle", "resume=true", *TINY)
    assert again.status == 0, again.err
    assert "resuming" in again.out
    Path("runs/toon/story_dalle/first/metrics.json").unlink()
    assert_last_line(command("train", "experiment=toon/story_dalle", "+system.colour=3", *TINY), "colour")
    checkpoint = Path("runs/toon/story_dalle/first/checkpoints/last.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert_last_line(
        command("train", "experiment=toon/story_dalle", "name=first", "resume=true", *TINY), str(checkpoint)
    )
    assert_last_line(command("train", "experiment=toon/text_to_image", "pretrained=nothing", *TINY), "nothing")


def assert_last_line(run: Run, *words: str) -> None:
    """A mistake whose one line may stand below what Lightning says while it starts."""
    assert_mistake(run._replace(err=run.err.splitlines()[-1]), *words)
