"""generate: draw a strip from captions and a source picture.

  storydalle generate captions=story.txt source=frame.png
  storydalle generate 'captions=["Pip waves in the meadow.", "Pip runs to the beach."]' seed=3 num_candidates=4
  storydalle generate captions=story.txt num_candidates=8 reranker=clip
  storydalle generate captions=story.txt num_candidates=16 assertions=FILE   keep of each frame what shows most of FILE
  storydalle generate story=strips/story/story.json seed=4

Writes strip.png, strip.gif, frames/, index.html and story.json (everything needed to draw the story again).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple, NotRequired, TypedDict

from PIL import Image
from tqdm import tqdm

import storydalle
from storydalle.commands import inputs
from storydalle.commands.application import Request
from storydalle.commands.default_folders import beside, changes, named, numbered
from storydalle.commands.importing import quick_imports
from storydalle.files import outputs
from storydalle.files.paths import user_path
from storydalle.files.whole import save_picture
from storydalle.mistakes import UserError, told_in_one_line
from storydalle.models import kinds, zoo
from storydalle.reporting import pages, strips
from storydalle.settings import Between, Count, Number, OneOf, Seed, filled

if TYPE_CHECKING:
    from storydalle.metrics.reranking import MostAssertions
    from storydalle.models.drawing import Drawn, Reranker
    from storydalle.models.pretrained import PretrainedModel
    from storydalle.stories.toon.asserted import Assertions
else:  # a story is read and checked before torch is imported
    Assertions = Drawn = MostAssertions = PretrainedModel = Reranker = object

RECORD, FRAMES = "story.json", "frames"
SOURCE = f"{FRAMES}/00-source.png"
RECORDED = ("num_candidates", "temperature", "top_k", "top_p", "guidance", "packing", "reranker")
UNNAMED = ("captions", "source", "story", "out", "overwrite")  # beside what the default folder's name tells
REDRAWN = ("captions", "source", "model", "seed", "assertions", *RECORDED)  # what story.json sets, unless the user does


@dataclass(frozen=True)
class GenerateSettings:
    captions: list[object] | str | None  # themselves, or a file of them
    source: Path | None  # the picture that opens the story
    story: Path | None  # a story.json: drawn again
    model: str  # a name in the zoo, a folder, or a hub id
    out: Path | None
    overwrite: bool
    seed: Seed
    num_candidates: Annotated[int, Between(1, 512)]  # frames drawn for each caption
    reranker: Annotated[str, OneOf(kinds.RERANKERS)]
    temperature: Annotated[Number, Between(0, 100)] | None  # null, like those below, is the model card's value
    top_k: Count | None  # codes
    top_p: Annotated[Number, Between(0, 1)] | None  # share of probability
    guidance: Annotated[Number, Between(0, 100)] | None
    packing: str | None  # of the weights
    seconds: Annotated[float, Between(0.02, 60)]  # of a frame in strip.gif
    assertions: list[object] | str | None  # lines on what frames show, or a file of them
    weights_sha256: str | None = None  # those that the story of ``story`` was drawn with

    def sampling(self) -> dict[str, object]:
        return {name: getattr(self, name) for name in RECORDED}


class GivenStory(NamedTuple):
    """A story to draw: captions, an upright square source, and remarks on both."""

    captions: list[str]
    source: Image.Image | None
    notes: list[str]
    assertions: Assertions | None = None


class StripRecord(TypedDict):
    """story.json: everything needed to draw the story again, and nothing that changes from run to run."""

    captions: list[str]
    source: str | None  # paths of pictures are relative to the record's folder
    model: str
    weights_sha256: str
    seed: int
    sampling: dict[str, object]
    frames: list[str]
    candidates: list[list[str]]  # of each frame, the best first
    scores: list[list[float]]
    notes: list[str]
    assertions: NotRequired[list[str]]


def run(request: Request) -> None:
    asked = request.settings
    if asked["story"] is not None:
        asked = asked | saved_settings(user_path(asked["story"]), request.given)
    settings = filled(GenerateSettings, asked)
    story = read_story(settings)
    out = settings.out or default_folder(request, settings, story)
    with outputs.taken(out, "generate", settings.overwrite, megabytes=20 + len(story.captions)):
        write(out, story, settings)


def write(out: Path, story: GivenStory, settings: GenerateSettings) -> None:
    """Draw the story, and write strip, frames and record into ``out``."""
    folder = kinds.locate(settings.model)
    with quick_imports():
        model = kinds.open_model(folder)
    drawn = draw(model, story, settings)
    sha256 = zoo.weights_sha256(folder)
    if settings.weights_sha256 not in (None, sha256):
        story.notes.append(f"the weights of {settings.model} have changed since {settings.story} was written")
    record = strip_record(story, drawn, settings, sha256)
    with outputs.filled_folder(out) as partial:
        write_story(partial, story, drawn, record, settings.seconds)
    for note in record["notes"]:
        print(f"note: {note}")
    print(f"wrote {out / 'strip.png'}, and strip.gif, frames/, index.html, {RECORD} beside it")


def read_story(settings: GenerateSettings) -> GivenStory:
    """Captions, the source as an upright square of at most 512 pixels, and remarks on what was changed in it."""
    captions = inputs.read_captions(settings.captions)
    assertions = inputs.read_assertions(settings.assertions, len(captions))
    if settings.source is None:
        return GivenStory(captions, None, [], assertions)
    picture, notes = inputs.open_source(settings.source)
    from storydalle.stories.pictures import centre_square

    source = centre_square(picture)
    if picture.width != picture.height:
        size = f"{picture.width}x{picture.height}"
        notes.append(f"source {settings.source.name} ({size}) was cropped to its central square")
    source.thumbnail((inputs.MAX_SOURCE_SIDE, inputs.MAX_SOURCE_SIDE), Image.Resampling.LANCZOS)
    return GivenStory(captions, source, notes, assertions)


def default_folder(request: Request, settings: GenerateSettings, story: GivenStory) -> Path:
    """A folder named by the file of the captions (or of the story) and by the other changes of the command line.

    Where it holds a strip of other captions, or of another source, there is a number behind its name.
    """
    if settings.story is not None:
        changed = changes(request, saved_settings(settings.story, frozenset({"source"})), UNNAMED)
        folder = beside(settings.story.parent, changed)
    else:
        captions = settings.captions
        base = Path("strips") / (user_path(captions).stem if isinstance(captions, str) else "story")
        folder = named(base, "generate", request, UNNAMED)
    return numbered(folder, lambda found: holds_another(found, story))


def holds_another(folder: Path, story: GivenStory) -> bool:
    """True if the folder holds a strip of other captions or of another source."""
    from storydalle.stories.pictures import open_picture

    try:
        record = outputs.read_record(folder / RECORD)
    except (OSError, ValueError):
        return False  # no strip of ours: files of others are refused
    if record.get("captions") != story.captions:
        return True
    if record.get("source") is None or story.source is None:
        return record.get("source") is not None or story.source is not None
    try:
        saved, given = open_picture(folder / SOURCE), story.source.convert("RGB")
    except (OSError, ValueError):
        return True
    return saved.size != given.size or saved.tobytes() != given.tobytes()


def saved_settings(path: Path, given: frozenset[str]) -> dict[str, object]:
    """The settings of an earlier strip, except those that the command line sets."""
    if not path.exists():
        raise UserError(f"no story {str(path)!r}: give the story.json of an earlier strip")
    try:
        record = outputs.read_record(path)
        sampling, model = record.get("sampling"), record.get("model")
        if not isinstance(sampling, dict) or not isinstance(model, str) or not isinstance(record.get("captions"), list):
            raise ValueError(f"{path} lacks captions, a model or its sampling")
    except ValueError as error:
        raise UserError(f"story={path} is not a story.json that generate wrote") from error
    saved: dict[str, object] = {key: record.get(key) for key in ("captions", "model", "seed", "assertions")}
    saved |= {name: sampling[name] for name in RECORDED if name in sampling}
    saved["source"] = None if "source" in given else source_of(path, record.get("source"))
    if "model" not in given:
        saved["weights_sha256"] = record.get("weights_sha256")
    return {key: saved[key] for key in (*REDRAWN, "weights_sha256") if key in saved and key not in given}


def source_of(story: Path, named: object) -> str | None:
    """The picture that a record names; it must lie in the record's folder, as a stranger's may not show other files."""
    if named is None:
        return None
    folder = story.parent.resolve()
    try:
        is_inside = isinstance(named, str) and (folder / named).resolve().is_relative_to(folder)
    except (OSError, RuntimeError, ValueError):  # a zero byte, a circle of links
        is_inside = False
    if not is_inside:
        raise UserError(
            f"story={story} names the source {named!r}, which is outside its folder: if you want to use it, give "
            "source=FILE"
        )
    return str(story.parent / str(named))


def draw(model: PretrainedModel, story: GivenStory, settings: GenerateSettings) -> Drawn:
    """Draw the frames, with a progress bar if this is a terminal."""
    with tqdm(desc="drawing", unit="code", disable=None, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        with told_in_one_line(""):
            reranker, asserted = chosen_by(story, settings)
            drawn = model.generate(
                story.captions,
                story.source,
                num_candidates=settings.num_candidates,
                seed=settings.seed,
                temperature=settings.temperature,
                top_k=settings.top_k,
                top_p=settings.top_p,
                guidance=settings.guidance,
                packing=settings.packing,
                reranker=reranker,
                progress=advance,
                announce=tqdm.write,
                choose=None if asserted is None else asserted.choose,
            )
            return drawn if asserted is None else asserted.first(drawn)


def chosen_by(story: GivenStory, settings: GenerateSettings) -> tuple[Reranker | None, MostAssertions | None]:
    """What orders the candidates: a reranker, and the story's assertions, which come first."""
    if settings.reranker != kinds.CLIP and story.assertions is None:
        return None, None
    from storydalle.metrics.reranking import MostAssertions, open_reranker  # and with it what reads pictures
    from storydalle.models.drawing import Judge

    reranker = open_reranker() if settings.reranker == kinds.CLIP else None
    if story.assertions is None:
        return reranker, None
    judge = None if reranker is None else Judge(reranker, story.captions)
    return reranker, MostAssertions(story.assertions, judge)


def strip_record(story: GivenStory, drawn: Drawn, settings: GenerateSettings, sha256: str) -> StripRecord:
    names = frame_names(drawn.candidates)
    record: StripRecord = {
        "captions": story.captions,
        "source": None if story.source is None else SOURCE,
        "model": settings.model,
        "weights_sha256": sha256,
        "seed": settings.seed,
        "sampling": settings.sampling(),
        "frames": [row[0] for row in names],
        "candidates": names,
        "scores": [[round(float(score), 3) for score in row] for row in drawn.scores],
        "notes": [*story.notes, *drawn.notes],
    }
    if story.assertions is not None:
        record["assertions"] = list(story.assertions.lines)
    return record


def frame_names(candidates: list[list[Image.Image]]) -> list[list[str]]:
    """The files of each frame's candidates, the best first: frames/01.png, frames/01-2.png, ..."""
    return [
        [f"{FRAMES}/{i:02d}.png", *(f"{FRAMES}/{i:02d}-{k}.png" for k in range(2, len(row) + 1))]
        for i, row in enumerate(candidates, start=1)
    ]


def write_story(folder: Path, story: GivenStory, drawn: Drawn, record: StripRecord, seconds: float) -> None:
    (folder / FRAMES).mkdir()
    if story.source is not None:
        save_picture(story.source, folder / SOURCE)
    for names, pictures in zip(record["candidates"], drawn.candidates, strict=True):
        for name, picture in zip(names, pictures, strict=True):
            save_picture(picture, folder / name)
    strip = strips.Strip(story.captions, drawn.frames, story.source, drawn.candidates)
    save_picture(strips.strip_image(strip), folder / "strip.png")
    strips.save_gif(strip, folder / "strip.gif", seconds)
    facts = {
        "model": f"{record['model']} (weights {record['weights_sha256'][:12]})",
        "seed": str(record["seed"]),
        "sampling": ", ".join(f"{name} {value}" for name, value in record["sampling"].items() if value is not None),
        "drawn by": f"storydalle {storydalle.__version__}",
    }
    page = pages.story_page([strip], "A story in frames", record["notes"], facts)
    (folder / "index.html").write_text(page, encoding="utf-8")
    outputs.write_record(folder, RECORD, record)
