"""Contact sheets: nothing is cut, nothing overlaps, and every picture keeps its shape."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from storydalle.reporting.sheets import SIDE, FrameCell, StoryRow, draw_sheet, fitted, story_rows, toon_rows
from storydalle.reporting.strips import CARD, EDGE, INK, MARGIN, PAPER, RADIUS
from storydalle.stories.toon import ToonSV
from tests.toy_set import ToySet, noise, story

RED = (255, 0, 0)


def is_color(picture: Image.Image, color: str) -> np.ndarray:
    return (np.asarray(picture) == ImageColor.getrgb(color)).all(-1)


def red(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), "red")


def test_pictures_of_any_shape_are_shown_whole() -> None:
    shown = fitted(red(300, 60), (100, 100))
    assert is_color(shown, "red")[40:60].all()
    assert is_color(shown, EDGE)[:39].all() and is_color(shown, EDGE)[61:].all()
    assert is_color(fitted(Image.new("L", (1, 900)), (100, 100)), EDGE)[:, :49].all()
    assert is_color(fitted(red(20, 20), (100, 100)), "red").all()
    assert is_color(fitted(red(20, 10), (100, 50)), "red").all()


@pytest.mark.parametrize(("shape", "height"), [((40, 40), SIDE), ((300, 100), round(SIDE / 3)), ((50, 100), SIDE)])
def test_cards_are_as_high_as_the_pictures_of_a_story(shape: tuple[int, int], height: int) -> None:
    one = is_color(draw_sheet([StoryRow("s", [FrameCell(red(*shape), "") for _ in range(2)])]), "red")
    assert one.any(1).sum() == height
    assert one.any(0).sum() == 2 * min(SIDE, round(SIDE * shape[0] / shape[1]))


def test_no_caption_is_cut_or_drawn_over_a_picture_or_beyond_its_card() -> None:
    cells = [FrameCell(red(40, 40), "word " * 300, "Ada " * 100)] * 9
    one, two = draw_sheet([StoryRow("s", cells)]), draw_sheet([StoryRow("s", cells), StoryRow("t", cells)], "A heading")
    num_red = is_color(one, "red").sum()
    corners = 9 * 4 * RADIUS**2
    assert 9 * SIDE**2 - corners < num_red <= 9 * SIDE**2, "nothing but the round corners is missing"
    assert is_color(two, "red").sum() == 2 * num_red
    frame = np.ones((one.height, one.width), bool)
    frame[MARGIN:-MARGIN, MARGIN:-MARGIN] = False
    assert is_color(one, PAPER)[frame].all()
    most, fewer = (draw_sheet([StoryRow("s", [FrameCell(red(40, 40), "word " * number)])]) for number in (300, 299))
    assert is_color(most, INK).sum() > is_color(fewer, INK).sum() > 0
    assert is_color(most, CARD)[-MARGIN - RADIUS, MARGIN + RADIUS : MARGIN + SIDE].all(), "words end before the card"


def test_a_row_names_the_source_the_characters_the_group_and_the_credit(tmp_path) -> None:
    for i in (1, 2):
        noise(i, 40, 40).save(tmp_path / f"{i}.png")
    record = story("s#1", "1.png 2.png", ["Once.", "Ada runs."], "book", characters=((1, 1), (0, 0)))
    made = ToySet(tmp_path)
    made.credit = lambda record: f"by {record.id}"  # type: ignore[method-assign]
    (shown,) = story_rows(made, [record])
    assert (shown.id, shown.group, shown.credit) == ("s#1", "book", "by s#1")
    assert [cell[1:] for cell in shown.cells] == [("Once.", "Ada, Bo"), ("Ada runs.", "")]
    assert next(story_rows(made, [story("s#1", "1.png 2.png", group="s")])).group == "", "the id tells it"
    small = next(story_rows(made, [record], lambda picture: picture.resize((8, 8))))
    assert {cell.picture.size for cell in small.cells} == {(8, 8)}


def test_a_sheet_of_toon_has_a_row_a_story_with_frames_and_labels() -> None:
    stories = ToonSV("val", 2)
    rows = list(toon_rows(stories, range(2)))
    for row, one in zip(rows, stories, strict=True):
        assert row.id == one.id
        assert (np.asarray(row.cells[0].picture) == one.source).all()
        assert [cell.caption for cell in row.cells] == ["", *one.captions]
        assert all(cell.remarks for cell in row.cells)
    assert draw_sheet(rows).height > 1.8 * draw_sheet(rows[:1]).height
