"""Strips and animations: everything given is shown, and nothing overflows or crashes."""

from pathlib import Path

import pytest
from PIL import Image, ImageChops

from storydalle.reporting import lettering, pages, strips
from storydalle.reporting.strips import Strip

COLORS = ("red", "green", "blue", "yellow", "purple", "orange")


def frames(number: int, size: int = 64) -> list[Image.Image]:
    return [Image.new("RGB", (size, size), COLORS[i % len(COLORS)]) for i in range(number)]


def captions(number: int) -> list[str]:
    return [f"Caption {i + 1}." for i in range(number)]


def same(first: Image.Image, second: Image.Image) -> bool:
    return first.size == second.size and ImageChops.difference(first, second).getbbox() is None


@pytest.mark.parametrize(("number", "with_source", "grid"), [(1, False, (1, 1)), (4, True, (5, 1)), (5, True, (3, 2))])
def test_panels_stand_in_balanced_rows_of_at_most_five(number: int, with_source: bool, grid: tuple[int, int]) -> None:
    source = frames(1)[0] if with_source else None
    picture = strips.strip_image(Strip(captions(number), frames(number), source))
    width, height = strips.card_size(strips.panels_of(Strip(captions(number), frames(number), source)))
    columns, rows = grid
    assert picture.width == 2 * strips.MARGIN + columns * width + (columns - 1) * strips.GAP
    assert picture.height == pytest.approx(2 * strips.MARGIN + rows * height + (rows - 1) * strips.GAP, abs=rows * 30)


@pytest.mark.parametrize(("size", "shown"), [(64, 256), (96, 288), (128, 256), (256, 256)])
def test_frames_are_shown_at_a_whole_multiple_of_their_size(size: int, shown: int) -> None:
    assert strips.shown_size(size, size) == (shown, shown)
    assert shown >= 192 and shown % size == 0


def test_the_source_comes_first_and_is_marked() -> None:
    panels = strips.panels_of(Strip(captions(2), frames(2), Image.new("RGB", (300, 300), "white")))
    assert [panel.label for panel in panels] == ["source", "1", "2"]
    assert {panel.picture.size for panel in panels} == {(256, 256)}


def test_every_caption_line_fits_its_card() -> None:
    text = "A caption with Donaudampfschifffahrtsgesellschaftskapitaenswitwe and " + "many other words " * 10
    lines = lettering.wrapped(text, 256)
    assert all(lettering.font(lettering.TEXT_SIZE).getlength(line) <= 256 for line in lines)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")


def test_a_caption_of_a_thousand_words_ends_in_dots() -> None:
    lines = lettering.wrapped("word " * 1000, 256)
    assert len(lines) == lettering.MAX_LINES
    assert lines[-1].endswith("...")
    assert lettering.font(lettering.TEXT_SIZE).getlength(lines[-1]) <= 256


@pytest.mark.parametrize(
    "text", ["Élan über naïve ça", "雪の中でピップが踊る", "مرحبا", "\ud83d half a pair", "tab\there\x07", "🎉", ""]
)
def test_any_text_can_be_drawn(text: str, tmp_path: Path) -> None:
    strip = Strip([text], frames(1))
    strips.strip_image(strip)
    strips.save_gif(strip, tmp_path / "strip.gif")
    pages.story_page([strip], text).encode("utf-8")


def test_accents_that_the_font_lacks_are_taken_off() -> None:
    assert lettering.drawable("Élan über naïve \u2013 ça") == "Elan uber naive - ca"


def test_the_caption_changes_the_picture() -> None:
    first, second = (strips.strip_image(Strip([text], frames(1))) for text in ("Pip waves.", "Pip sleeps."))
    assert not same(first, second)


def test_the_same_story_gives_the_same_bytes(tmp_path: Path) -> None:
    strip = Strip(captions(3), frames(3), frames(1)[0])
    for name in ("first", "second"):
        strips.save_gif(strip, tmp_path / f"{name}.gif")
        strips.strip_image(strip).save(tmp_path / f"{name}.png")
    assert (tmp_path / "first.gif").read_bytes() == (tmp_path / "second.gif").read_bytes()
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_the_animation_shows_source_and_frames_for_the_time_given(tmp_path: Path) -> None:
    path = tmp_path / "strip.gif"
    strips.save_gif(Strip(captions(3), frames(3), frames(1)[0]), path, seconds=0.5)
    with Image.open(path) as animation:
        assert animation.n_frames == 4
        for i in range(4):
            animation.seek(i)
            assert animation.info["duration"] == 500


def test_captions_and_frames_must_agree() -> None:
    with pytest.raises(ValueError, match="2 captions and 1 frames"):
        strips.strip_image(Strip(captions(2), frames(1)))
    with pytest.raises(ValueError, match="all of one size"):
        strips.strip_image(Strip(captions(2), [*frames(1, 64), *frames(1, 32)]))


def test_a_true_frame_stands_beneath_the_drawn_one() -> None:
    drawn, true = frames(3), [Image.new("RGB", (32, 32), "black")] * 3
    picture = strips.compared_image(Strip(captions(3), drawn, frames(1)[0], references=true))
    column = strips.panels_of(Strip(captions(3), drawn, frames(1)[0]))
    width, height = strips.card_size(column)
    middle = strips.MARGIN + 2 * (width + strips.GAP) + width // 2  # of the second frame's card
    below = strips.MARGIN + height + strips.GAP + strips.PADDING + 60
    assert picture.getpixel((middle, strips.MARGIN + strips.PADDING + 60)) == (0, 128, 0)
    assert picture.getpixel((middle, below)) == (0, 0, 0)
    with pytest.raises(ValueError, match="1 true frames for 3 drawn ones"):
        strips.compared_image(Strip(captions(3), drawn, references=true[:1]))
