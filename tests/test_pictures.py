"""Every picture of a file comes through one function: known formats alone, upright, with its tones."""

import ast
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from storydalle.stories.pictures import FORMATS, ClipError, decode_picture, open_picture

PACKAGE = Path(__file__).parent.parent / "storydalle"
RAMP = np.arange(256).reshape(16, 16)
PROGRAM = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"


def calls_of(path: Path) -> set[str]:
    """The calls of a file, as they are written, such as Image.open."""
    nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}


def test_pictures_are_opened_in_one_place() -> None:
    opening = {path.name for path in PACKAGE.rglob("*.py") if calls_of(path) & {"Image.open", "PIL.Image.open"}}
    assert opening == {"pictures.py"}


def test_formats_that_start_programs_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS file called .png made Pillow start gs."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: pytest.fail("a program was started"))
    (tmp_path / "frame.png").write_bytes(PROGRAM)
    for file in (tmp_path / "frame.png", BytesIO(PROGRAM)):
        with pytest.raises(ClipError, match=r"^corrupt: .*not a picture"):
            open_picture(file)
    assert not {"EPS", "PDF", "WMF", "MPO"} & set(FORMATS)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "gif", "bmp", "tif", "ppm", "avif", "jp2", "tga"])
def test_usual_formats_are_opened_whatever_they_are_called(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (32, 16), (200, 100, 50)).save(tmp_path / f"frame.{suffix}")
    (tmp_path / f"frame.{suffix}").rename(tmp_path / "frame.dat")
    picture = open_picture(tmp_path / "frame.dat")
    assert (picture.mode, picture.size) == ("RGB", (32, 16))
    np.testing.assert_allclose(picture.getpixel((3, 3)), (200, 100, 50), atol=8)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_photograph_is_turned_upright_wherever_it_is_read(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a phone that was held upright
    Image.new("RGB", (20, 10), "red").save(tmp_path / f"frame.{suffix}", exif=exif)
    assert open_picture(tmp_path / f"frame.{suffix}").size == (10, 20)


def as_uint16(file: Path) -> None:
    Image.fromarray((RAMP * 257).astype(np.uint16)).save(file.with_suffix(".png"))


def as_big_endian(file: Path) -> None:
    Image.frombytes("I;16B", (16, 16), (RAMP * 257).astype(">u2").tobytes()).save(file.with_suffix(".tif"))


def as_pgm(file: Path) -> None:
    file.with_suffix(".pgm").write_bytes(b"P5 16 16 65535\n" + (RAMP * 257).astype(">u2").tobytes())


def as_int32(file: Path) -> None:
    Image.fromarray((RAMP * 1000).astype(np.int32)).save(file.with_suffix(".tif"))


def as_shares(file: Path) -> None:
    Image.fromarray((RAMP / 255).astype(np.float32)).save(file.with_suffix(".tif"))


def as_large_floats(file: Path) -> None:
    Image.fromarray((RAMP * 3.5).astype(np.float32)).save(file.with_suffix(".tif"))


def below_zero(file: Path) -> None:
    Image.fromarray((RAMP / 127.5 - 1).astype(np.float32)).save(file.with_suffix(".tif"))


@pytest.mark.parametrize(
    ("write", "is_stretched"),
    [
        *((as_uint16, False), (as_big_endian, False), (as_pgm, False), (as_shares, False)),
        *((as_int32, True), (as_large_floats, True), (below_zero, True)),
    ],
)
def test_pictures_of_more_than_eight_bits_keep_their_tones(
    tmp_path: Path, write: Callable[[Path], None], is_stretched: bool
) -> None:
    write(tmp_path / "frame")
    decoded = decode_picture(next(tmp_path.iterdir()))
    assert decoded.is_stretched == is_stretched
    np.testing.assert_array_equal(np.asarray(decoded.picture), np.repeat(RAMP[..., None], 3, -1))


def test_dark_pictures_of_sixteen_bits_stay_dark(tmp_path: Path) -> None:
    """How bright white is says the form, not the brightest pixel."""
    Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "frame.png")
    (tmp_path / "frame.pgm").write_bytes(b"P5 4 4 65535\n" + np.full(16, 200, ">u2").tobytes())
    for name in ("frame.png", "frame.pgm"):
        assert open_picture(tmp_path / name).getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pictures_of_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    values = np.zeros((4, 4), np.float32)
    values[1, 1] = value
    Image.fromarray(values).save(tmp_path / "frame.tif")
    with pytest.raises(ClipError, match=r"^unsupported: numbers"):
        open_picture(tmp_path / "frame.tif")


@pytest.mark.parametrize("limit", [900, 400])
def test_a_huge_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """Pillow warns above its limit and refuses above twice that; both are refused here."""
    Image.new("RGB", (40, 30)).save(tmp_path / "frame.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ClipError, match=r"^too large"):
        open_picture(tmp_path / "frame.png")


def test_transparency_is_laid_on_white_or_dropped(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (255, 0, 0, 0)).save(tmp_path / "frame.png")
    decoded = decode_picture(tmp_path / "frame.png")
    assert decoded.is_transparent and decoded.picture.getpixel((0, 0)) == (255, 255, 255)
    assert open_picture(tmp_path / "frame.png", on_white=False).getpixel((0, 0)) == (255, 0, 0)


def test_whatever_a_decoder_raises_the_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import PngImagePlugin

    def fail(*arguments: object) -> None:
        raise KeyError("a table")

    Image.new("RGB", (4, 4)).save(tmp_path / "frame.png")
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(ClipError, match=r"^corrupt: 'a table'"):
        open_picture(tmp_path / "frame.png")
    with pytest.raises(ClipError, match=r"^unreadable"):
        open_picture(tmp_path)
