"""demo: draw stories with the shipped weights; needs no settings.

  storydalle demo
  storydalle demo split=unseen num_stories=12 seed=1

Writes demo/index.html (the source, the drawn frames and the true frames of each story, and the scores of the model),
and a strip-<number>.png for each story.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from PIL import Image
from tqdm import tqdm

from storydalle.commands.application import Request
from storydalle.commands.default_folders import named
from storydalle.files import outputs
from storydalle.files.whole import save_picture
from storydalle.mistakes import UserError, nearest, told_in_one_line
from storydalle.models import kinds, zoo
from storydalle.reporting import pages, strips
from storydalle.settings import Between, Seed, filled
from storydalle.stories import toon
from storydalle.stories.story import Story

UNNAMED = ("out", "overwrite", "num_stories")  # more stories of the same kind are no other demo


@dataclass(frozen=True)
class DemoSettings:
    model: str  # a name in the zoo, a folder, or a hub id
    split: str  # of ToonSV
    num_stories: Annotated[int, Between(1, 100)]
    seed: Seed
    out: Path | None  # by default demo, with what else is changed behind it
    overwrite: bool

    def __post_init__(self) -> None:
        if self.split not in toon.SPLITS:
            raise UserError(f"ToonSV has no split {self.split!r}; {nearest(self.split, toon.SPLITS)}")


def run(request: Request) -> None:
    settings = filled(DemoSettings, request.settings)
    out = settings.out or named(Path("demo"), "demo", request, UNNAMED)
    with outputs.taken(out, "demo", settings.overwrite, megabytes=50):
        write(out, settings, request.settings)


def write(out: Path, settings: DemoSettings, asked: Mapping[str, object]) -> None:
    """Draw stories, and write their page and a record of the settings into ``out``."""
    folder = kinds.locate(settings.model)
    model = kinds.open_model(folder)
    with told_in_one_line(f"model={settings.model} does not draw ToonSV"):
        stories = toon.ToonSV(settings.split, settings.num_stories, resolution=model.resolution)
    drawn = [draw(model, story, settings.seed) for story in tqdm(stories, desc="drawing stories", disable=None)]
    tables = [str(table) for table in getattr(model, "card", {}).get("tables", [])]
    page = pages.story_page(
        drawn,
        "Stories continued by StoryDALL-E",
        notes=[
            "The source frame and the captions are given; the frames are drawn. Beneath each stands the true frame.",
            "No caption says what a guest looks like: it can only be seen in the source frame.",
        ],
        facts={
            "model": f"{settings.model} (weights {zoo.weights_sha256(folder)[:12]})",
            "seed": str(settings.seed),
        },
        tables=tables,
    )
    with outputs.filled_folder(out) as partial:
        for number, strip in enumerate(drawn, start=1):
            save_picture(strips.strip_image(strip), partial / f"strip-{number}.png")
        (partial / "index.html").write_text(page, encoding="utf-8")
        outputs.write_record(partial, "demo.json", {"settings": asked})
    for table in tables:
        print(table)
    print(f"wrote {out / 'index.html'} and {len(drawn)} strips beside it")


def draw(model: kinds.PretrainedModel, story: Story, seed: int) -> strips.Strip:
    """Draw a story of the data set; the result also has the true frames."""
    source = Image.fromarray(story.source)
    frames = model.generate(list(story.captions), source, seed=seed).frames
    return strips.Strip(story.captions, frames, source, references=[Image.fromarray(frame) for frame in story.frames])
