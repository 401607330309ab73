"""Default folders: the name holds what distinguishes a run, so none silently takes another's place."""

import json
from pathlib import Path

import pytest
from PIL import Image

from storydalle.commands import demo, evaluate
from storydalle.commands.application import Request, compose, plain
from storydalle.commands.default_folders import LONGEST, beside, named
from storydalle.evaluation.evaluation_settings import EvaluationSettings
from tests.command_line import Command, assert_mistake, command, files, painting, story  # noqa: F401


def test_members_of_a_sweep_draw_into_folders_of_their_own(command: Command, story: Path) -> None:  # noqa: F811
    run = command("generate", "-m", "captions=story.txt", "seed=0,1,2")
    assert run.status == 0, run.err
    seeds = {path.parent.name: json.loads(path.read_text())["seed"] for path in Path("strips").glob("*/story.json")}
    assert seeds == {"story": 0, "story-seed1": 1, "story-seed2": 2}


def test_another_seed_leaves_the_strip_of_the_first_as_it_was(command: Command, story: Path) -> None:  # noqa: F811
    command("generate", "captions=story.txt")
    before = files(Path("strips/story"))
    run = command("generate", "captions=story.txt", "seed=7", "top_k=5")
    assert files(Path("strips/story")) == before
    assert "strips/story-seed7-top_k5/strip.png" in run.out


def test_the_same_command_writes_the_same_folder_byte_for_byte(command: Command, story: Path) -> None:  # noqa: F811
    for arguments in (["seed=7", "source=frame.png"], ["reranker=likelihood", "temperature=0.5"]):
        command("generate", "captions=story.txt", *arguments)
        before = files(Path("strips"))
        assert command("generate", "captions=story.txt", *reversed(arguments)).status == 0
        assert files(Path("strips")) == before


def test_a_setting_at_its_default_is_no_other_run(command: Command, story: Path) -> None:  # noqa: F811
    command("generate", "captions=story.txt")
    command("generate", "captions=story.txt", "seed=0", "num_candidates=1", "reranker=likelihood")
    assert [path.name for path in Path("strips").iterdir()] == ["story"]


def test_other_captions_or_another_source_of_one_name_get_a_number(command: Command, story: Path) -> None:  # noqa: F811
    Image.new("RGB", (20, 20), "red").save("red.png")
    of_file = (["captions=story.txt", *source] for source in ([], ["source=frame.png"], ["source=red.png"]))
    stories = [*of_file, ['captions=["Pip sits."]']]
    for arguments in (*stories, *stories):  # the second time each finds its own
        assert command("generate", *arguments).status == 0
    assert sorted(path.name for path in Path("strips").iterdir()) == ["story", "story-2", "story-3", "story-4"]
    told = {path.parent.name: json.loads(path.read_text()) for path in Path("strips").glob("*/story.json")}
    assert told["story"]["source"] is None and told["story-4"]["captions"] == ["Pip sits."]
    with Image.open("strips/story-3/frames/00-source.png") as source:
        assert source.getpixel((0, 0)) == (255, 0, 0)


def test_a_story_drawn_again_with_changes_leaves_the_first(command: Command, story: Path) -> None:  # noqa: F811
    command("generate", "captions=story.txt", "source=frame.png")
    before = files(Path("strips/story"))
    record = "story=strips/story/story.json"
    assert command("generate", record, "seed=4").status == 0
    assert command("generate", record, 'captions=["Lulu sits."]').status == 0
    assert files(Path("strips/story")) == before
    assert sorted(path.name for path in Path("strips").iterdir()) == ["story", "story-2", "story-seed4"]
    assert command("generate", record).status == 0, "without changes it is the same folder"
    assert len(list(Path("strips").iterdir())) == 3


def test_a_folder_of_others_is_refused_and_not_stepped_aside_from(command: Command, story: Path) -> None:  # noqa: F811
    Path("strips/story").mkdir(parents=True)
    Path("strips/story/thesis.txt").write_text("years")
    assert_mistake(command("generate", "captions=story.txt"), "thesis.txt", "overwrite=true")


def test_a_demo_of_other_settings_has_a_folder_of_its_own() -> None:
    def folder(*overrides: str, **settings: object) -> str:
        return named(Path("demo"), "demo", Request(settings, overrides), demo.UNNAMED).name

    assert folder() == folder("num_stories=12", num_stories=12) == folder("split=test", split="test") == "demo"
    assert folder("seed=1", "split=unseen", seed=1, split="unseen") == "demo-seed1-split_unseen"


def evaluated(*overrides: str, **settings: object) -> str:
    """The default folder of an evaluation that the command line asks for with these overrides."""
    composed = plain(compose("evaluate", [])) | {"model": ["story_dalle"]} | settings
    choices = {"data": "toon", "protocol": "toon"}
    for override in overrides:
        key, _, value = override.partition("=")
        if key in choices:
            choices[key] = value
    request = Request(composed, overrides, choices)
    return evaluate.default_folder(request, EvaluationSettings.of(composed)).as_posix()


def test_evaluations_of_other_seeds_models_and_protocols_have_folders_of_their_own() -> None:
    assert evaluated() == evaluated("seed=0", "batch_size=5", "readme=README.md") == "evaluated/toon/story_dalle"
    assert evaluated("seed=1", seed=1) == "evaluated/toon/story_dalle-seed1"
    assert evaluated("protocol=toon") == "evaluated/toon/story_dalle"
    assert evaluated("protocol=toon_short") == "evaluated/toon/story_dalle-protocol_toon_short"
    assert evaluated("model=[storyganc,story_dalle]", model=["storyganc", "story_dalle"]).endswith(
        "storyganc+story_dalle"
    )
    runs = [f"runs/toon/{experiment}/first/model" for experiment in ("story_dalle", "storyganc")]
    one, other = (Path(evaluated(f"model={run}", model=[run])).name for run in runs)
    assert one.startswith("first") and other.startswith("first") and one != other


def test_long_settings_give_short_folder_names_that_differ() -> None:
    one, other = (beside(Path("strips/story"), {"model": "m" * 300, "seed": seed}) for seed in (1, 2))
    assert one != other
    assert len(one.name) <= len("story-") + LONGEST


@pytest.mark.parametrize("value", ["../../x", "a b", "null", "[1,2]"])
def test_no_value_leads_to_a_folder_elsewhere(value: str) -> None:
    folder = named(Path("strips/story"), "generate", Request({"model": value}, (f"model={value}",)), ())
    assert folder.parent == Path("strips")
