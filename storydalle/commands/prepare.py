"""prepare: looks at a data set: a contact sheet with captions and labels, and the counts.

  storydalle prepare data=toon
  storydalle prepare data=toon split=unseen num_stories=12 out=look

Writes contact_sheet.png and counts.json.
"""

import json
from pathlib import Path

from storydalle.commands import inputs, outputs
from storydalle.commands.application import Request
from storydalle.commands.mistakes import UserError, nearest, told_in_one_line


def run(request: Request) -> None:
    settings = request.settings
    inputs.check_number("num_stories", settings["num_stories"], 1, 100, whole=True)
    name = settings["data"]["name"]
    out = Path("prepared") / name if settings["out"] is None else Path(str(settings["out"])).expanduser()
    if out.exists() and not out.is_dir():
        raise UserError(f"out={out} is a file: choose a folder")
    outputs.check_space(out, megabytes=50)
    from storydalle.stories import toon

    split = str(settings["split"])
    if split not in toon.SPLITS:
        raise UserError(f"{name} has no split {split!r}; {nearest(split, toon.SPLITS)}")
    with told_in_one_line(""):
        sheet = toon.contact_sheet(split, settings["num_stories"], settings["data"]["resolution"])
        counts = toon.counts(split)
    out.mkdir(parents=True, exist_ok=True)
    sheet.save(out / "contact_sheet.png")
    (out / "counts.json").write_text(json.dumps(counts, indent=2) + "\n")
    num_frames = sum(counts["setting"].values())
    print(f"{name}, {split}: {num_frames} target frames")
    for label, table in counts.items():
        print(f"  {label:<16}" + ", ".join(f"{value} {number}" for value, number in table.items()))
    print(f"wrote {out / 'contact_sheet.png'} and {out / 'counts.json'}")
