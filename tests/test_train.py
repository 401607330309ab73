"""train: the folders and names of runs, and trainings that build on each other."""

import os
from pathlib import Path

import pytest

from storydalle.commands import application
from tests.command_line import Command, Run, assert_mistake, command, files, painting, story  # noqa: F401


def test_runs_have_folders_of_their_own_and_resume_finds_the_newest(tmp_path: Path) -> None:
    from storydalle.mistakes import UserError
    from storydalle.training.runs import LAST, run_folder

    with pytest.raises(UserError, match="nothing to resume"):
        run_folder(tmp_path, None, resume=True)
    first, second = run_folder(tmp_path, None, resume=False), run_folder(tmp_path, None, resume=False)
    assert first != second
    for age, folder in ((100, first), (50, second)):
        (folder / LAST).parent.mkdir(parents=True)
        (folder / LAST).write_bytes(b"")
        os.utime(folder / LAST, (1e9 - age, 1e9 - age))
    assert run_folder(tmp_path, None, resume=True) == second
    assert run_folder(tmp_path, first.name, resume=True) == first
    with pytest.raises(UserError, match="resume=true"):
        run_folder(tmp_path, first.name, resume=False)
    assert run_folder(tmp_path, "new", resume=True) == tmp_path / "new"


def test_runs_that_differ_in_the_seed_alone_share_a_name_in_reports() -> None:
    from storydalle.commands.train import config_name

    choices = {"experiment": "toon/story_dalle"}
    names = [
        config_name(
            application.Request({}, ("experiment=toon/story_dalle", f"seed={seed}", "retrofit=no_story"), choices)
        )
        for seed in (0, 1)
    ]
    assert names == ["toon/story_dalle retrofit=no_story"] * 2


TINY = (
    *("data.resolution=64", "data.train.num_stories=8", "data.val.num_stories=4", "data_module.batch_size=4"),
    *("trainer=smoke", "backbone=tiny", "tokenizer=tiny", "save_every=1"),
)


@pytest.mark.slow
def test_the_trainings_build_on_each_other_and_end_in_a_strip(command: Command) -> None:  # noqa: F811
    """The whole of ``make zoo`` in two steps each; then a story from the weights it made, and the runs' table."""
    shipped = ("image_tokenizer", "image_decoder", "text_to_image", "story_dalle", "storyganc")
    for experiment in (f"toon/{name}" for name in shipped):
        run = command("train", f"experiment={experiment}", "name=first", *TINY)
        assert run.status == 0, run.err
        folder = Path("runs") / experiment / "first"
        written = set(files(folder))
        assert written >= {"config.yaml", "metrics.json", "checkpoints/last.safetensors", "model/model.safetensors"}
    Path("story.txt").write_text("Pip waves.\nPip sleeps.\n")
    assert command("generate", "captions=story.txt", "model=runs/toon/story_dalle/first/model").status == 0
    source = f"source={next(Path('strips').glob('story-model_first*/frames/*.png'))}"
    of_gan = command("generate", "captions=story.txt", "model=runs/toon/storyganc/first/model", source, "out=gan")
    assert of_gan.status == 0, of_gan.err
    assert "toon/story_dalle" in command("report", "runs=runs").out
    assert_last_line(command("train", "experiment=toon/story_dalle", "resume=true", *TINY), "first is finished")
    assert_last_line(command("train", "experiment=toon/story_dalle", "name=first", *TINY), "first is finished")
    Path("runs/toon/story_dalle/first/metrics.json").unlink()  # as a run that was killed before its end
    assert_last_line(command("train", "experiment=toon/story_dalle", "name=first", *TINY), "resume=true")
    again = command("train", "experiment=toon/story_dalle", "resume=true", *TINY)
    assert again.status == 0, again.err
    assert "resuming" in again.out
    Path("runs/toon/story_dalle/first/metrics.json").unlink()
    assert_last_line(command("train", "experiment=toon/story_dalle", "+system.colour=3", *TINY), "colour")
    checkpoint = Path("runs/toon/story_dalle/first/checkpoints/last.safetensors")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    assert_last_line(
        command("train", "experiment=toon/story_dalle", "name=first", "resume=true", *TINY), str(checkpoint)
    )
    assert_last_line(command("train", "experiment=toon/text_to_image", "pretrained=nothing", *TINY), "nothing")


def assert_last_line(run: Run, *words: str) -> None:
    """A mistake whose one line may stand below what Lightning says while it starts."""
    assert_mistake(run._replace(err=run.err.splitlines()[-1]), *words)
