"""Assertions on pictures: true ones hold on real frames, at chance on others; tables, marks and messages."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from storydalle.evaluation.asserted_pictures import story_pictures
from storydalle.metrics.held_facts import named_frame, number_held, open_fact_reader, read_labels
from storydalle.metrics.reranking import MostAssertions
from storydalle.mistakes import UserError
from storydalle.models.drawing import Drawn, Judge
from storydalle.stories.images import from_images, to_tensor
from storydalle.stories.toon.asserted import Assertions, read_assertions
from storydalle.stories.toon.assertions import ACTIONS, HATS, PROPS, SETTINGS, TINTS
from storydalle.stories.toonsv import ToonSV2
from storydalle.stories.toonsv.facts import as_facts
from tests.command_line import Command, PaintingModel, assert_mistake, command, painting, story  # noqa: F401


def assertions_of(stories: ToonSV2, index: int) -> Assertions:
    """All that is known of each frame of a story, as a person would write it."""
    tale = stories.facts(index)
    lines = [f"frames[{i}]: {', '.join(map(str, as_facts(tale, scene)))}" for i, scene in enumerate(tale.frames)]
    return read_assertions(lines, "facts")


def shares_that_hold(stories: ToonSV2, other: int) -> dict[str, float]:
    """The share of true facts of each kind that hold in the frames of the story ``other`` places further."""
    reader = open_fact_reader()
    held: dict[str, list[bool]] = {}
    pictures = [np.stack([stories[i].source, *stories[i].frames]) for i in range(len(stories))]
    for i in range(len(stories)):
        assertions = assertions_of(stories, i)
        read = read_labels(reader, to_tensor(pictures[(i + other) % len(stories)]))
        for number, facts in assertions.frames.items():
            frame = named_frame(read[number], assertions, facts)
            for fact in facts:
                held.setdefault(fact.kind, []).append(frame.holds(fact))
    return {kind: float(np.mean(values)) for kind, values in held.items()} | {
        "all": float(np.mean([value for values in held.values() for value in values]))
    }


@pytest.mark.slow
@pytest.mark.parametrize("split", ["test", "unseen"])
def test_true_assertions_hold_on_real_frames(split: str) -> None:
    shares = shares_that_hold(ToonSV2(split, 100, num_targets=4, resolution=128), other=0)
    assert shares["all"] > 0.99 and min(shares.values()) > 0.98, shares


@pytest.mark.slow
def test_true_assertions_hold_at_chance_on_the_frames_of_other_stories() -> None:
    """Of what is asserted of a character most fails, as it is not there; a place and a light are one of a few."""
    shares = shares_that_hold(ToonSV2("test", 100, num_targets=4, resolution=128), other=1)
    assert shares["cast"] < 0.05 and shares["action"] < 0.15
    assert shares["setting"] == pytest.approx(1 / len(SETTINGS), abs=0.08)
    assert shares["light"] == pytest.approx(1 / len(TINTS), abs=0.1)
    assert shares["all"] < 0.35, (shares, len(ACTIONS), len(HATS), len(PROPS))


@pytest.fixture
def story_folder(tmp_path: Path) -> Path:
    """A source and three frames, as generate writes them, with a further candidate."""
    stories = ToonSV2("test", 6, num_targets=3, resolution=128)
    folder = tmp_path / "strip" / "frames"
    folder.mkdir(parents=True)
    told = stories[5]
    for name, pixels in zip(("00-source", "01", "02", "03"), (told.source, *told.frames), strict=True):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    Image.fromarray(told.source).save(folder / "02-2.png")
    return folder.parent


def lines_of(number: int, change: str = "") -> str:
    tale = ToonSV2("test", 6, num_targets=3).facts(5)
    facts = [str(fact) for fact in as_facts(tale, tale.frames[number])]
    return f"frames[{number}]: {', '.join([*facts[:-1], change or facts[-1]])}"


def other_light(number: int) -> str:
    tale = ToonSV2("test", 6, num_targets=3).facts(5)
    return TINTS[(tale.frames[number].light + 1) % 3]


def test_evaluate_tells_frame_by_frame_what_holds(command: Command, story_folder: Path) -> None:  # noqa: F811
    asserted = "\n".join([lines_of(0), lines_of(1), lines_of(3, other_light(3))])
    Path("asserted.txt").write_text(asserted)
    run = command("evaluate", f"images={story_folder}", "assertions=asserted.txt", "out=checked")
    assert run.status == 0, run.err
    assert "| frames[0] | pass |" in run.out and "| frames[3] | FAIL |" in run.out and "2 of 3 pass" in run.out
    assert f"{other_light(3)} (seen: " in run.out and "frames[2]" not in run.out
    record = json.loads(Path("checked/assertions.json").read_text())
    found = record["images"][str(story_folder)]
    assert found["held"] == found["of"] - 1 and record["assertions"] == asserted.splitlines()
    assert sum(not each["holds"] for each in found["frames"]["3"]) == 1
    assert Path("checked/table.md").read_text().strip() in run.out
    with Image.open("checked/strip.png") as strip:
        colors = {color for _, color in strip.convert("RGB").getcolors(10**6)}
    assert {(61, 154, 80), (210, 59, 59)} <= colors, "no frame is marked green, or none red"


@pytest.mark.parametrize(
    ("line", "settings", "said"),
    [
        ("frames[1]: Pip walks", [], "asserted.txt, line 1: 'walks' is no action"),
        ("frames[9]: Pip runs", [], "has no picture of frames[9]: it has those of 0, 1, 2, 3"),
        ("frames[1]: Pip runs", ["images=null"], "give images=FOLDER"),
        ("frames[1]: Pip runs", ["model=story_dalle"], "no model"),
        ("frames[1]: Pip runs", ["images=nowhere"], "images=nowhere is not a folder"),
        ("frames[1]: Pip runs", ["assertions=lost.txt"], "no assertions file"),
    ],
)
def test_mistakes_are_told_in_a_line(
    command: Command,  # noqa: F811
    story_folder: Path,
    line: str,
    settings: list[str],
    said: str,
) -> None:
    Path("asserted.txt").write_text(line)
    run = command("evaluate", f"images={story_folder}", "assertions=asserted.txt", *settings)
    assert run.status == 2 and said in run.err and len(run.err.splitlines()) == 1, run.err


def test_pictures_of_any_names_count_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.jpg", "c.png"):
        Image.new("RGB", (64, 64)).save(tmp_path / name)
    assert {n: path.name for n, path in story_pictures(tmp_path).items()} == {1: "a.jpg", 2: "b.png", 3: "c.png"}
    with pytest.raises(UserError, match="holds no picture"):
        (tmp_path / "empty").mkdir()
        story_pictures(tmp_path / "empty")


def test_the_candidate_in_which_most_holds_comes_first_and_others_keep_their_order() -> None:
    stories = ToonSV2("test", 6, num_targets=3, resolution=128)
    frames = [Image.fromarray(pixels) for pixels in stories[5].frames]
    blank = Image.new("RGB", (128, 128))
    candidates = [[blank, frames[0], frames[0]], [frames[1], blank, blank], [blank, blank, frames[2]]]
    scores = torch.tensor([[3.0, 2.0, 1.0]] * 3)
    drawn = Drawn([row[0] for row in candidates], candidates, scores, ["told before"])
    assertions = read_assertions([lines_of(1), lines_of(3, other_light(3))], "facts")
    chosen = MostAssertions(assertions).first(drawn)
    assert chosen.frames == [frames[0], frames[1], frames[2]]
    assert chosen.scores.tolist() == [[2, 1, 3], [3, 2, 1], [1, 3, 2]]
    assert chosen.candidates[0][2] is blank and chosen.candidates[1] == candidates[1]
    of = sum(len(facts) for facts in assertions.frames.values())
    assert chosen.notes[0] == "told before" and chosen.notes[-1] == f"{of - 1} of {of} assertions hold"
    assert any(f"frames[3]: {other_light(3)} does not hold" in note for note in chosen.notes)


def test_a_model_with_memory_remembers_the_candidate_in_which_most_holds() -> None:
    true = ToonSV2("test", 6, num_targets=3, resolution=128)[5]
    assertions = read_assertions([lines_of(1)], "facts")
    blank = np.zeros_like(true.frames[0])
    rows = torch.from_numpy(np.stack([blank, true.frames[0], true.frames[0]]))[None]
    asserted = MostAssertions(assertions)
    assert asserted.choose(0, rows).tolist() == [1]  # the likelier of two in which all holds
    assert asserted.choose(1, rows).tolist() == [0]  # of this frame nothing is asserted
    judge = Judge(lambda images, caption: torch.arange(3.0), ["first", "second"])
    assert MostAssertions(assertions, judge).choose(0, rows).tolist() == [2]
    assert MostAssertions(assertions, judge).choose(1, rows).tolist() == [2]


def test_numbers_of_facts_that_hold_are_those_of_single_frames() -> None:
    stories = ToonSV2("test", 6, num_targets=3, resolution=128)
    assertions, reader = assertions_of(stories, 5), open_fact_reader()
    images = from_images([Image.fromarray(pixels) for pixels in stories[5].frames], 128)
    together = read_labels(reader, images)
    for number, image in enumerate(images, start=1):
        facts = assertions.frames[number]
        alone = named_frame(read_labels(reader, image[None])[0], assertions, facts)
        assert number_held(alone, facts) == number_held(named_frame(together[number - 1], assertions, facts), facts)


@pytest.fixture
def drawing(monkeypatch: pytest.MonkeyPatch) -> list[Image.Image]:
    """Let the painting model draw, for each caption, a black picture and then a true frame; these frames."""
    frames = [Image.fromarray(pixels) for pixels in ToonSV2("test", 6, num_targets=3, resolution=128)[5].frames]

    def generate(self: PaintingModel, captions: list[str], *_: object, **__: object) -> Drawn:
        candidates = [[Image.new("RGB", (128, 128)), frame] for frame in frames[: len(captions)]]
        scores = torch.tensor([[2.0, 1.0]] * len(captions))
        return Drawn([row[0] for row in candidates], candidates, scores, [])

    monkeypatch.setattr(PaintingModel, "generate", generate)
    return frames


def test_generate_keeps_what_shows_most_and_a_strip_is_drawn_again_with_its_assertions(
    command: Command,  # noqa: F811
    story: Path,  # noqa: F811
    drawing: list[Image.Image],
) -> None:
    Path("asserted.txt").write_text(lines_of(2, other_light(2)))
    settings = ("captions=story.txt", "num_candidates=2", "assertions=asserted.txt")
    run = command("generate", *settings, "out=strip")
    assert run.status == 0, run.err
    with Image.open("strip/frames/02.png") as kept, Image.open("strip/frames/01.png") as first:
        assert kept.tobytes() == drawing[1].tobytes() and not np.asarray(first).any(), (
            "nothing is asserted of the first"
        )
    record = json.loads(Path("strip/story.json").read_text())
    assert record["assertions"] == [lines_of(2, other_light(2))] and record["scores"] == [[2, 1], [1, 2]]
    assert f"frames[2]: {other_light(2)} does not hold" in run.out
    assert command("generate", "story=strip/story.json", "out=again").status == 0
    assert json.loads(Path("again/story.json").read_text()) == record
    assert command("generate", *settings[:2], "out=plain").status == 0
    assert "assertions" not in json.loads(Path("plain/story.json").read_text())


def test_generate_refuses_assertions_before_it_draws(
    command: Command,  # noqa: F811
    story: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PaintingModel, "generate", lambda *_, **__: pytest.fail("something was drawn"))
    for line, said in (
        ("frames[1]: Pip walks", "line 1: 'walks'"),
        ("frames[3]: Pip", "frames[3], but there are 2 captions"),
    ):
        Path("asserted.txt").write_text(line)
        assert_mistake(command("generate", "captions=story.txt", "assertions=asserted.txt"), said)
