"""Files are there whole or not at all, whatever stops their writing."""

import ast
from pathlib import Path

import pytest
from PIL import Image

import storydalle
from storydalle.files.whole import replaced_when_whole, save_picture, write_text

PACKAGE = Path(storydalle.__file__).parent
# Writes into folders that get their names when they are whole, or of a moment.
ELSEWHERE = {
    *(
        "released/release.py",
        "tokens/encoding.py",
        "commands/generate.py",
        "files/outputs.py",
        "bench/data_speed.py",
        "reporting/strips.py",
    ),
    *("evaluation/vistorybench.py", "commands/demo.py", "files/locks.py"),
    "files/process_memory.py",  # a file of the system's
}


def test_what_stops_half_way_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(KeyboardInterrupt), replaced_when_whole(tmp_path / "a.txt") as file:
        file.write(b"ne")
        assert (tmp_path / "a.txt").read_text() == "old"
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_texts_and_pictures_are_written_as_they_are(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "Pip wav\u00e9s \udc80\n")
    assert (tmp_path / "a.txt").read_bytes() == b"Pip wav\xc3\xa9s \\udc80\n"
    save_picture(Image.new("RGB", (3, 2), "teal"), tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (3, 2) and picture.getpixel((1, 1)) == (0, 128, 128)


def test_no_file_is_written_in_its_place() -> None:
    """Methods that write a file at once, outside of the modules whose folders appear when they are whole."""
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).as_posix() not in ELSEWHERE:
            called = {node.func.attr for node in ast.walk(ast.parse(path.read_text())) if is_call(node)}
            assert not called & {"write_text", "write_bytes"}, f"{path} writes in place: take storydalle.files.whole"


def is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
