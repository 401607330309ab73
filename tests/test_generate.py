"""generate: what it writes, draws again, and refuses in one line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from storydalle.commands import inputs
from storydalle.models import zoo
from tests.command_line import Command, PaintingModel, assert_mistake, command, files, painting, story  # noqa: F401


def test_generate_writes_strip_animation_frames_page_and_record(command: Command, story: Path) -> None:  # noqa: F811
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
    assert set(record["sampling"]) == {
        "num_candidates",
        "temperature",
        "top_k",
        "top_p",
        "guidance",
        "packing",
        "reranker",
    }
    left = {name: record["sampling"][name] for name in ("temperature", "top_k", "top_p", "guidance", "packing")}
    assert set(left.values()) == {None}, "they are the model card's"
    assert "strips/story-seed5/strip.png" in run.out


def test_the_source_is_cropped_to_its_central_square_and_it_is_said(command: Command, story: Path) -> None:  # noqa: F811
    run = command("generate", "captions=story.txt", "source=frame.png")
    assert "note: source frame.png (40x30) was cropped to its central square" in run.out
    with Image.open("strips/story/frames/00-source.png") as source:
        assert source.size == (30, 30)


def test_a_large_source_is_kept_at_a_reasonable_size(command: Command, story: Path) -> None:  # noqa: F811
    Image.new("RGB", (2000, 2000), "teal").save("large.jpg")
    command("generate", "captions=story.txt", "source=large.jpg")
    with Image.open("strips/story/frames/00-source.png") as source:
        assert source.size == (512, 512)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(command: Command, story: Path) -> None:  # noqa: F811
    for out, seed in (("first", 7), ("second", 7), ("third", 8)):
        assert command("generate", "captions=story.txt", "source=frame.png", f"seed={seed}", f"out={out}").status == 0
    assert files(Path("first")) == files(Path("second"))
    assert files(Path("first"))["strip.png"] != files(Path("third"))["strip.png"]


def test_a_story_is_drawn_again_from_its_record(command: Command, story: Path) -> None:  # noqa: F811
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


def test_a_story_of_other_weights_is_drawn_and_said(command: Command, story: Path, painting: Path) -> None:  # noqa: F811
    command("generate", "captions=story.txt", "out=first")
    (painting / zoo.WEIGHTS_NAME).write_bytes(b"others")
    assert "have changed" in command("generate", "story=first/story.json", "out=again").out


@pytest.mark.parametrize("content", ["{}", "[]", "not json", '{"program": "storydalle"}'])
def test_a_foreign_record_is_refused(command: Command, story: Path, content: str) -> None:  # noqa: F811
    Path("other.json").write_text(content)
    assert_mistake(command("generate", "story=other.json"), "other.json")
    assert_mistake(command("generate", "story=missing.json"), "missing.json")


def test_all_candidates_are_kept(command: Command, story: Path) -> None:  # noqa: F811
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
def test_captions_are_read_from_text_and_json(command: Command, painting: Path, name: str, content: bytes) -> None:  # noqa: F811
    Path(name).write_bytes(content)
    run = command("generate", f"captions={name}", "out=strip")
    assert run.status == 0, run.err
    assert json.loads(Path("strip/story.json").read_text())["captions"] == ["Pip waves.", "Lulu sits."]


def test_captions_are_read_from_the_command_line(command: Command, painting: Path) -> None:  # noqa: F811
    run = command("generate", """captions=["It's Pip, and he waves.", "Lulu: sits!"]""")
    assert run.status == 0, run.err
    record = json.loads(Path("strips/story/story.json").read_text())
    assert record["captions"] == ["It's Pip, and he waves.", "Lulu: sits!"]
    assert record["source"] is None


def test_what_the_model_remarks_is_said_and_kept(command: Command, painting: Path) -> None:  # noqa: F811
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
    command: Command,  # noqa: F811
    painting: Path,  # noqa: F811
    name: str,
    content: bytes,
    words: list[str],
) -> None:
    Path(name).write_bytes(content)
    assert_mistake(command("generate", f"captions={name}"), name, *words)
    assert not Path("strips").exists()


def test_a_missing_caption_list_is_one_line(command: Command, painting: Path) -> None:  # noqa: F811
    Path("folder").mkdir()
    assert_mistake(command("generate"), "captions=FILE.txt")
    assert_mistake(command("generate", "captions=missing.txt"), "missing.txt")
    assert_mistake(command("generate", "captions=folder"), "not a file")
    assert_mistake(command("generate", "captions=[]"), "no caption")
    assert_mistake(command("generate", 'captions=[1, "Pip waves."]'), "entry 1")


def test_fifty_captions_are_drawn(command: Command, painting: Path) -> None:  # noqa: F811
    Path("many.txt").write_text("Pip waves.\n" * 50)
    assert command("generate", "captions=many.txt").status == 0
    assert len(files(Path("strips/many/frames"))) == 50


def bytes_of(image: Image.Image, path: str, **options: Any) -> bytes:
    image.save(path, **options)
    return Path(path).read_bytes()


def test_a_corrupt_or_missing_source_is_one_line(command: Command, story: Path) -> None:  # noqa: F811
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
def test_a_huge_source_is_one_line(command: Command, story: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:  # noqa: F811
    """Pillow warns above its limit and refuses above twice that; both are refused here."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert_mistake(command("generate", "captions=story.txt", "source=frame.png"), "frame.png", "smaller")


def test_an_animated_source_gives_its_first_frame_and_it_is_said(command: Command, story: Path) -> None:  # noqa: F811
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
def test_a_seed_out_of_range_is_one_line(command: Command, story: Path, seed: str) -> None:  # noqa: F811
    assert_mistake(command("generate", "captions=story.txt", f"seed={seed}"), "seed=", "2**63 - 1")


@pytest.mark.parametrize(
    "setting",
    [
        *("num_candidates=0", "num_candidates=100000", "num_candidates=1.5", "temperature=-1", "temperature=hot"),
        *("top_k=0", "top_p=1.5", "guidance=-1", "seconds=0"),
    ],
)
def test_a_sampling_setting_out_of_range_is_one_line(command: Command, story: Path, setting: str) -> None:  # noqa: F811
    assert_mistake(command("generate", "captions=story.txt", setting), setting.partition("=")[0])


def test_the_largest_seed_draws(command: Command, story: Path) -> None:  # noqa: F811
    assert command("generate", "captions=story.txt", f"seed={2**63 - 1}").status == 0


def test_what_the_model_refuses_is_one_line(command: Command, story: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def refuse(self: PaintingModel, *arguments: Any, **settings: Any) -> Any:
        raise ValueError("guidance=3: this model was not trained for it")

    monkeypatch.setattr(PaintingModel, "generate", refuse)
    assert_mistake(command("generate", "captions=story.txt", "guidance=3"), "not trained")
