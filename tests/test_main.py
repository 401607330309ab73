"""The command line: help, settings and completion, and that a mistake is one line, exit status 2."""

import errno
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from PIL import Image

from storydalle.commands import application, completion, main
from storydalle.mistakes import nearest
from storydalle.reporting import strips
from tests.command_line import Command, Run, assert_mistake, command, painting, story  # noqa: F401

# They take long to import. Torch's compiler needs sympy; Pillow imports its PDF where it knows a format not yet.
UNUSED = {"sympy", "pytorch_lightning", "transformers", "scipy", "huggingface_hub", "PIL.PdfImagePlugin"}


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in main.COMMANDS)])
def test_help_imports_neither_torch_nor_lightning_nor_hydra(arguments: list[str]) -> None:
    code = (
        "import sys; from storydalle.commands.main import main; "
        f"assert main({arguments!r}) == 0; "
        "heavy = {'torch', 'pytorch_lightning', 'hydra', 'omegaconf', 'numpy', 'transformers'} & set(sys.modules); "
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "storydalle" in done.stdout


def test_a_mistake_in_the_captions_is_told_without_importing_torch() -> None:
    code = (
        "import sys; from storydalle.commands.main import main; "
        "assert main(['generate', 'captions=missing.txt']) == 2; "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0
    assert len(done.stderr.splitlines()) == 1


def test_drawing_a_strip_imports_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    code = (
        "import sys, torch; there = set(sys.modules); from storydalle.commands.main import main; "
        f"assert main(['generate', 'captions=[\"Pip waves.\"]', 'out={tmp_path / 'strip'}']) == 0; "
        f"sys.exit(' '.join({UNUSED} & set(sys.modules) - there))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == ""


@pytest.mark.parametrize("arguments", [["evaluate"], ["train", "experiment=toon/story_dalle"]])
def test_settings_are_shown_without_importing_torch(arguments: list[str]) -> None:
    code = (
        "import sys; from storydalle.commands.main import main; "
        f"assert main({[*arguments, '--cfg', 'job']}) == 0; "
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "data:" in done.stdout


def test_an_evaluation_imports_no_lightning() -> None:
    code = "import sys; import storydalle.commands.evaluate; sys.exit('pytorch_lightning' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_collector_leaves_alone_what_a_command_imports_and_nothing_later() -> None:
    code = (
        "import gc, sys; from storydalle.commands.main import command_module; command_module('evaluate'); "
        "assert 'torch' in sys.modules and gc.isenabled(); "
        "assert gc.get_freeze_count() > 10 * len(gc.get_objects())"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_package_runs_as_a_module_and_hands_on_the_status() -> None:
    line = [sys.executable, "-m", "storydalle"]
    assert subprocess.run([*line, "--version"], capture_output=True, text=True).stdout.startswith("storydalle ")
    assert subprocess.run([*line, "nothing"], capture_output=True).returncode == 2


def test_a_reader_that_has_seen_enough_gets_no_traceback() -> None:
    line = [sys.executable, "-m", "storydalle", "--help"]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == main.STOPPED


def test_importing_the_package_imports_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", "import storydalle, sys; sys.exit('torch' in sys.modules)"])
    assert done.returncode == 0


def test_the_package_needs_no_transformers_until_it_is_asked_for() -> None:
    """Where it is installed: of an import of it nothing would be seen otherwise."""
    pytest.importorskip("transformers")
    asked = "import storydalle.commands.convert; from storydalle import StoryDALLE, StoryGANc"
    code = f"import sys, storydalle; {asked}; sys.exit('transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_lists_every_command_and_a_command_lists_every_setting(command: Command) -> None:  # noqa: F811
    overview = command("--help").out
    assert all(f"  {name} " in overview for name in main.COMMANDS)
    text = command("train", "--help").out
    assert all(word in text for word in ("resume", "experiment=NAME", "toon/story_dalle", "sweep=NAME"))
    settings = application.compose("generate", [])
    assert all(f"{key}:" in command("generate", "-h").out for key in settings)


def test_no_command_shows_the_help(command: Command) -> None:  # noqa: F811
    assert command().out == command("--help").out


def test_cfg_job_shows_the_settings_with_overrides(command: Command) -> None:  # noqa: F811
    run = command("generate", "--cfg", "job", "seed=3")
    assert run.status == 0
    assert "seed: 3" in run.out


def test_commands_leave_no_folder_of_hydra(command: Command, story: Path) -> None:  # noqa: F811
    command("generate", "captions=story.txt")
    assert {path.name for path in story.parent.iterdir()} == {"story.txt", "frame.png", "strips"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generat"], ["no command 'generat'", "generate"]),
        (["generate", "sead=3"], ["no setting 'sead'", "seed"]),
        (["generate", "+style=oil"], ["no setting '+style=oil'"]),
        (["generate", "story.txt"], ["'story.txt'", "key=value"]),
        (["generate", "--seeds"], ["no flag --seeds"]),
        (["generate", "--cfg", "jb"], ["jb"]),
        (["generate", 'captions=["Pip waves.'], ["cannot read"]),
        (["generate", "captions=${nothing}"], ["nothing"]),
        (["train"], ["experiment=NAME", "toon/story_dalle"]),
        (["train", "experiment=toon/story_dale"], ["no experiment 'toon/story_dale'", "toon/story_dalle"]),
        (["train", "experiment=toon/story_dalle", "data=tune"], ["no data 'tune'", "toon"]),
        (["train", "experiment=toon/story_dalle", "sweep=ablations"], ["no sweep", "ablation"]),
        (["train", "experiment=toon/story_dalle", "trainer.max_step=3"], ["trainer.max_step'", "trainer.max_steps"]),
        (["train", "experiment=toon/story_dalle", "retrofitt=full"], ["'retrofitt'", "retrofit"]),
        (["prepare", "data=tone"], ["no data 'tone'", "toon"]),
        (["prepare", "split=tests"], ["no split 'tests'", "test"]),
        (["report", "runs=nowhere"], ["nowhere"]),
        (["--shell-completion"], ["install=SHELL"]),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_ones(
    command: Command,  # noqa: F811
    arguments: list[str],
    words: list[str],
) -> None:
    assert_mistake(command(*arguments), *words)


def test_nearest_names_only_the_nearest() -> None:
    assert nearest("max_step", ["max_steps", "min_step", "seed"]) == "did you mean max_steps?"
    assert nearest("xyz", ["toon"]) == "choose one of toon"
    assert nearest("xyz", []) == "there are none yet"


def test_a_mistake_is_one_line_in_a_process_of_its_own(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "storydalle", "generate", "captions=missing.txt"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert_mistake(Run(done.returncode, done.stdout, done.stderr), "missing.txt")


def test_a_traceback_is_there_for_those_who_ask(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("STORYDALLE_TRACEBACK", "1")
    assert "Traceback" in command("generate").err


def test_an_error_of_ours_keeps_its_traceback(command: Command, story: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def broken(strip: strips.Strip) -> Image.Image:
        raise KeyError("a bug")

    monkeypatch.setattr(strips, "strip_image", broken)
    with pytest.raises(KeyError):
        command("generate", "captions=story.txt")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("storydalle ", set(main.COMMANDS)),
        ("storydalle ge", {"generate"}),
        ("storydalle generate num_c", {"num_candidates="}),
        ("storydalle train exp", {"experiment="}),
        ("storydalle train experiment=", {"experiment=toon/story_dalle"}),
        ("storydalle train retrofit=no_", {"retrofit=no_source", "retrofit=no_story"}),
    ],
)
def test_tab_completes_commands_and_what_follows_them(
    command: Command,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    expected: set[str],
) -> None:
    monkeypatch.setenv("COMP_LINE", line)
    run = command("-sc", "query=bash")
    assert run.status == 0
    assert {word for word in run.out.split() if word.startswith(line.split(" ")[-1])} >= expected


def test_the_shell_is_bound_to_our_name(command: Command) -> None:  # noqa: F811
    assert command("--shell-completion", "install=bash").out.rstrip().endswith("hydra_bash_completion storydalle")
    assert completion.__doc__


def test_a_full_disk_anywhere_else_is_one_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    def full(arguments: Sequence[str]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/last")

    monkeypatch.setattr(main, "dispatch", full)
    assert_mistake(command("train"), "no disk space", "runs/last")


OWN_SWEEP = """\
# @package _global_
defaults: [/experiment/toon/image_tokenizer]
hydra: {mode: MULTIRUN, sweeper: {params: {seed: "0,1"}}}
"""


def test_a_config_is_composed_once_and_may_still_say_that_it_is_a_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])
    (tmp_path / "own" / "experiment").mkdir(parents=True)
    (tmp_path / "own" / "experiment" / "seeds.yaml").write_text(OWN_SWEEP)
    compositions: list[str] = []
    compose = ConfigLoaderImpl.load_configuration

    def counted(loader: ConfigLoaderImpl, *asked: object, **named: object) -> object:
        compositions.append("one")
        return compose(loader, *asked, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(ConfigLoaderImpl, "load_configuration", counted)
    requests: list[application.Request] = []
    application.run("train", requests.append, ["experiment=toon/image_tokenizer"])
    assert len(requests) == len(compositions) == 1
    application.run("train", requests.append, ["--config-dir", "own", "experiment=seeds"])
    assert [request.settings["seed"] for request in requests[1:]] == [0, 1]
    application.run("train", requests.append, ["experiment=toon/image_tokenizer", "seed=3,4", "hydra.mode=MULTIRUN"])
    assert [request.settings["seed"] for request in requests[3:]] == [3, 4]
