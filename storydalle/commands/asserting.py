"""The part of evaluate that checks assertions on pictures: a table, a record and marked strips."""

from pathlib import Path

from storydalle.evaluation.asserted_pictures import (
    CheckedFrame,
    assertion_record,
    assertion_table,
    checked_pictures,
)
from storydalle.evaluation.evaluation_settings import EvaluationSettings
from storydalle.evaluation.protocol import reader_record
from storydalle.files import locks
from storydalle.files.paths import user_path
from storydalle.files.records import write_record
from storydalle.files.whole import save_picture, write_text
from storydalle.metrics.held_facts import FACT_READER, open_fact_reader
from storydalle.mistakes import told_in_one_line
from storydalle.reporting.marked_strips import MarkedFrame, marked_strip
from storydalle.stories.toon.asserted import read_assertion_file

RECORD = "assertions.json"


def check_assertions(out: Path, settings: EvaluationSettings) -> None:
    """Check the assertions on each folder of ``images``, and write what is found into ``out``."""
    assert settings.assertions is not None
    with told_in_one_line(""):
        assertions = read_assertion_file(settings.assertions)
    reader = open_fact_reader()
    checked = {folder: checked_pictures(user_path(folder), assertions, reader) for folder in settings.images}
    tables = [f"**{folder}**\n\n{assertion_table(frames)}" for folder, frames in checked.items()]
    print("\n\n".join(tables))
    names = ["strip.png", *(f"strip-{number}.png" for number in range(2, len(checked) + 1))]
    with locks.held(out, "evaluate"):
        write_text(out / "table.md", "\n\n".join(tables) + "\n")
        for name, frames in zip(names, checked.values(), strict=True):
            save_picture(marked_strip([marked_frame(frame) for frame in frames]), out / name)
        record = {folder: assertion_record(frames) for folder, frames in checked.items()}
        about = {"assertions": list(assertions.lines), "label_reader": vars(reader_record(FACT_READER))}
        write_record(out / RECORD, {**about, "images": record})
    print(f"wrote {out / 'table.md'}, and {RECORD}, {', '.join(names)} beside it")


def marked_frame(frame: CheckedFrame) -> MarkedFrame:
    held, failed = ([str(each) for each in frame.facts if each.holds == holds] for holds in (True, False))
    return MarkedFrame(str(frame.number) if frame.number else "source", frame.picture, held, failed)
