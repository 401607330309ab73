"""Pages: they need no other file, show everything that is given, and take no word for html."""

import html.parser
import re

import pytest

from storydalle.reporting import pages
from storydalle.reporting.blocks import Cell, Grid, Paragraph, blocks_of
from storydalle.reporting.strips import Strip
from tests.test_strips import frames

TEMPLATES = sorted(name for name in pages.environment().list_templates())


class Links(html.parser.HTMLParser):
    """Collects what a page would load, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_needs_no_other_file_and_shows_everything() -> None:
    pictures = frames(2)
    strip = Strip(["First <b>.", "Second."], pictures, frames(1)[0], [[p, p, p] for p in pictures], pictures)
    page = pages.story_page([strip], "A title", ["a note"], {"seed": "7"}, ["| a | b |\n|---|---:|\n| x | .91 |"])
    links = Links()
    links.feed(page)
    assert len(links.sources) == 1 + 2 + 6 + 2
    assert all(source.startswith("data:image/webp;base64,") for source in links.sources)
    assert "http" not in page
    assert all(text in links.text for text in ("First <b>.", "Second.", "A title", "a note", "seed", "7", ".91"))


def test_a_page_is_readable_in_the_dark() -> None:
    assert re.search(r"prefers-color-scheme: dark", pages.story_page([], "title"))


def test_words_are_never_taken_for_html() -> None:
    bad = "<script>alert('x')</script>&amp;\""
    strip = Strip([bad], frames(1), None, [frames(2)], frames(1))
    page = pages.story_page([strip], bad, [bad], {bad: bad}, [f"| {bad} |\n| --- |\n| {bad} |\n\n{bad} *{bad}*"])
    assert "<script" not in page and "&amp;amp;" in page
    links = Links()
    links.feed(page)
    assert links.text.count("<script>alert('x')</script>&amp;\"") == 10
    assert page.count('alt="&lt;script&gt;') == 1, "a quote in a caption does not end the words of its picture"


def test_what_cannot_be_shown_is_left_out_of_a_page() -> None:
    page = pages.story_page([], "a\x07b\ud83d", facts={"seed": "1\x00"})
    assert "<h1>a b?</h1>" in page and "<dd>1 </dd>" in page


def test_a_page_is_the_same_bytes_each_time() -> None:
    strip = Strip(["One."], frames(1), frames(1)[0])
    assert pages.story_page([strip], "title") == pages.story_page([strip], "title")


def test_only_plots_and_pictures_go_into_a_page_as_they_are() -> None:
    environment = pages.environment()
    assert environment.autoescape is True
    for name in TEMPLATES:
        source, _, _ = environment.loader.get_source(environment, name)
        unescaped = re.findall(r"{{([^}]*)\|\s*safe", source)
        assert {each.strip() for each in unescaped} <= {"plot.svg", "picture | data_uri"}, name
        assert "autoescape" not in source, name


def test_every_page_is_of_the_one_base() -> None:
    environment = pages.environment()
    whole = set(TEMPLATES) - {"base.html", "parts.html", "style.css"}
    assert {"story.html", "evaluation.html", "report.html"} <= whole
    for name in whole:
        source, _, _ = environment.loader.get_source(environment, name)
        assert source.startswith('{% extends "base.html" %}'), name


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        (".91", Cell(".91")),
        (".91 [.90, .92]", Cell(".91", "[.90, .92]")),
        (".91 ± .02", Cell(".91", "[± .02]")),
        ("ours size=8", Cell("ours size=8")),
        ("", Cell("")),
    ],
)
def test_an_interval_stands_apart_from_its_value(text: str, cell: Cell) -> None:
    assert Cell.of(text) == cell


def test_markdown_is_read_as_tables_and_paragraphs_in_their_order() -> None:
    text = "Before.\n\n| | a |\n| --- | ---: |\n| x \\| y | - |\n| | |\n\n*FD*: a distance"
    assert blocks_of(text) == [
        Paragraph(["Before."]),
        Grid(["", "a"], [[Cell("x | y"), Cell("-")], [Cell(""), Cell("")]]),
        Paragraph(["", "FD", ": a distance"]),
    ]
    assert blocks_of("") == [] and blocks_of("| - |") == [Grid(["-"], [])]
