"""README and docs keep their word: every command runs, every link leads somewhere, every number was recorded."""

import gc
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import storydalle
from storydalle.commands import main
from storydalle.metrics.declared import by_name
from storydalle.mistakes import UserError
from storydalle.reporting.compared_runs import Report
from storydalle.reporting.result_pages import fill_pages
from storydalle.stories.toon import ToonSV
from tests.documents import DOCS, LINES, PAGES, ROOT, STORYDALLE, Line, blocks, files_of, page_name, shell_lines
from tests.test_folder_recipes import write_own_stories

README = ROOT / "README.md"
TINY_TOON = (
    *("data.resolution=64", "data.train.num_stories=4", "data.val.num_stories=2", "data_module.batch_size=2"),
    *("trainer=smoke", "backbone=tiny", "tokenizer=tiny", "save_every=1"),
)
Run = Callable[..., tuple[int, str, str]]
FEW = ("num_stories=2",)


def each(lines: list[Line]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("line", lines, ids=lambda line: f"{line.page}: {line.text}"[:90])


# ------------------------------------------------------------------------------------------------ the README


def test_the_readme_shows_a_picture_the_commands_and_the_results() -> None:
    text = README.read_text(encoding="utf-8")
    assert text.index("docs/strip.png") < text.index("make demo")
    lines = [line.words for line in shell_lines(README)]
    assert any(line.startswith("storydalle generate captions=") for line in lines)
    training = [line.words for line in shell_lines(ROOT / "docs" / "training.md")]
    assert any(line.startswith("storydalle train ") for line in training)
    assert text.index("<!-- results:begin -->") < text.index("<!-- results:end -->")


def test_the_readme_is_short() -> None:
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert text.count("![") == 1
    rows = results().splitlines()
    assert len(rows) == 2 + 5, "a head and five rows"
    assert {row.count("|") - 1 for row in rows} == {6}


def results(page: Path = README) -> str:
    text = page.read_text(encoding="utf-8")
    return text.partition("<!-- results:begin -->\n")[2].partition("\n<!-- results:end -->")[0]


def test_the_table_of_the_readme_is_that_of_the_recorded_run(tmp_path: Path) -> None:
    record = json.loads((ROOT / "experiments" / "story_dalle" / "metrics.json").read_text())
    copy = tmp_path / "README.md"
    copy.write_text(README.read_text(encoding="utf-8").replace(results(), "gone"), encoding="utf-8")
    fill_pages([str(copy)], "all tables", record["values"])
    assert copy.read_text(encoding="utf-8") == README.read_text(encoding="utf-8")


def test_the_table_of_the_studies_is_what_the_command_on_its_page_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = ROOT / "experiments" / "README.md"
    (line,) = [line for line in shell_lines(page) if line.words.startswith("storydalle report ")]
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments", ignore=shutil.ignore_patterns("*.png", "*.html"))
    copy = tmp_path / "experiments" / "README.md"
    copy.write_text(copy.read_text(encoding="utf-8").replace(results(page), "gone"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Report, "write", lambda *_: [])  # neither pages nor plots
    assert main.main(shlex.split(line.words)[1:]) == 0
    assert copy.read_bytes() == page.read_bytes()


def test_a_page_without_columns_gets_all_tables_and_an_unknown_column_is_named(tmp_path: Path) -> None:
    whole, small = tmp_path / "whole.md", tmp_path / "small.md"
    rows = {"ours": {"action": 0.5, "error": 0.25}}
    whole.write_text("<!-- results:begin -->\n<!-- results:end -->\n")
    small.write_text("<!-- columns: error; action = doing -->\n<!-- results:begin -->\n<!-- results:end -->\n")
    fill_pages([str(whole), str(small)], "all tables", rows)
    assert "\nall tables\n" in whole.read_text()
    assert "|  | error | doing |\n" in small.read_text() and "| ours | .250 | .500 |\n" in small.read_text()
    small.write_text(small.read_text().replace("error;", "eror;"))
    with pytest.raises(UserError, match=r"column 'eror', which was not scored; .*error"):
        fill_pages(str(small), "all tables", rows)


# ------------------------------------------------------------------------------------------------ links and names


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    """A link leads to a file beside the page or, where the project says that it has an address, to that address.

    A package index shows the README alone: as soon as pyproject.toml has a repository, its links begin with that.
    """
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {})
    repository = {name.lower(): url for name, url in urls.items()}.get("repository")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if repository is not None and page == README:
            assert target.startswith(("https://", "http://")), f"{target} is no link on a package index"
        if not target.startswith(("https://", "http://")):
            assert (page.parent / target).exists(), f"{page_name(page)} links to {target}"
        elif repository is not None and target.startswith(repository):
            assert (ROOT / target.rpartition("/main/")[2]).exists(), f"{page_name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"`((?:storydalle|conf|tests|data|experiments)/[\w/.-]*)`", page.read_text(encoding="utf-8"))
    for name in named:
        assert "NAME" in name or (ROOT / name).exists(), f"{page_name(page)} names {name}"


@pytest.mark.parametrize("page", DOCS, ids=page_name)
def test_the_readme_links_every_page_of_docs(page: Path) -> None:
    assert f"({page_name(page)})" in README.read_text(encoding="utf-8")


def test_the_rules_name_every_room() -> None:
    rooms = {path.parent.name for path in (ROOT / "storydalle").glob("*/__init__.py")}
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `storydalle/(\w+)/` \|", text, re.MULTILINE)) == rooms


def test_modules_that_moved_lie_where_the_changelog_says() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `([\w.]+)` \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert len(rows) > 50
    for before, now in rows:
        assert importlib.util.find_spec(f"storydalle.{now}") is not None, now
        assert not (ROOT / "storydalle" / f"{before.replace('.', '/')}.py").exists(), before


def test_a_public_ci_calls_what_our_own_calls() -> None:
    ours = re.findall(r"^make (\w+)", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    public = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert re.findall(r"run: make (\w+)", public) == ours == ["lint", "test"]


def test_the_citation_has_the_version_of_the_package() -> None:
    assert f"\nversion: {storydalle.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------ commands


@each(LINES)
def test_every_line_is_of_a_kind_that_a_test_runs(line: Line) -> None:
    programs = ("make ", "storydalle ", "python examples/", "pip install ", 'eval "$(storydalle --shell-completion ')
    assert line.words.startswith(programs)


@each([line for line in LINES if line.text.startswith("make ")])
def test_make_knows_the_targets_of_the_readme(line: Line) -> None:
    done = subprocess.run(
        [*shlex.split(line.text), "PYTHON=python3", "--dry-run"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"make {shlex.split(line.text)[1]}" in listed_targets()


@cache
def listed_targets() -> str:
    return subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True).stdout


@each([line for line in LINES if line.text.startswith("pip install ")])
def test_extras_that_are_installed_exist(line: Line) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = re.search(r"\[(.*)\]", line.text)
    assert asked is not None and set(asked[1].split(",")) <= set(extras)
    assert all((ROOT / name).is_file() for name in re.findall(r"-c (\S+)", line.text))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a line in a folder that holds what its page speaks of; its status and both outputs."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for name, text in [file for page in DOCS for file in files_of(page).items()]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)  # PYTHONPATH=.
    monkeypatch.setenv("WANDB_MODE", "disabled")
    monkeypatch.setattr(sys, "argv", ["storydalle"])

    def run(line: Line, *more: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main.main([*shlex.split(line.words)[1:], *more])
        return status, *capsys.readouterr()

    return run


@pytest.mark.readme
@each(STORYDALLE)
def test_settings_of_the_readme_are_understood(line: Line, run: Run) -> None:
    """The settings of a sweep are read with the first value of each, and without those of a cluster."""
    text = re.sub(r"(\w+=\w+),[\w,]+", r"\1", line.words.replace(" -m ", " "))
    text = re.sub(r" hydra[/.]launcher\S+", "", text)
    status, out, err = run(Line(line.page, text), *([] if "--cfg" in text else ["--cfg", "job"]))
    assert status == 0, err
    assert ":" in out


@each([line for line in STORYDALLE if line.needs_what_is_absent])
def test_what_is_not_there_is_refused_in_one_line(line: Line, run: Run) -> None:
    status, _, err = run(line)
    (told,) = [text for text in err.splitlines() if text.startswith("storydalle: ")]
    assert status == 2 and "Traceback" not in err
    # What it lacks is a value of its own, or what a line above it makes.
    page = [word for other in STORYDALLE if other.page == line.page for word in shlex.split(other.text)[2:]]
    assert any(value in told for value in (word.rpartition("=")[2] for word in page)), told


def as_typed(page: str, run: Run, *commands: str, **more: tuple[str, ...]) -> None:
    """Run a page's lines of these commands in order; ``more`` has what is added to those of a command.

    A line of the README is not run again on another page.
    """
    lines = [line for line in STORYDALLE if line.page == page and line.words.split()[1] in commands]
    ran = [line.words for line in shell_lines(README) if page != page_name(README)]
    assert lines
    for line in [line for line in lines if line.words not in ran]:
        if not line.needs_what_is_absent:
            status, _, err = run(line, *more.get(line.words.split()[1], ()))
            assert status == 0, f"{line.text}: {err}"


@pytest.mark.readme
def test_the_first_strips_are_drawn_as_typed_and_the_first_is_the_picture_of_the_readme(run: Run) -> None:
    as_typed("README.md", run, "generate")
    with Image.open("strips/story/strip.png") as drawn, Image.open(ROOT / "docs" / "strip.png") as shown:
        assert drawn.size == shown.size
        difference = np.abs(np.asarray(drawn, dtype=float) - np.asarray(shown, dtype=float)).mean()
    assert difference < 10, "of 255: another processor may round one code of a frame otherwise"
    as_typed("docs/first-strip.md", run, "generate", "prepare")
    assert all(Path("strips", name, "strip.png").is_file() for name in ("pip", "pip-again", "gan"))
    assert Path("prepared/toon/contact_sheet.png").is_file()


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=page_name)
def test_python_blocks_run(page: Path, run: Run) -> None:
    for block in blocks(page, "python"):
        names = {"__name__": "block"}
        exec(compile(block, page_name(page), "exec"), names)
        names.clear()
    gc.collect()  # a class of a page is no score of the package
    assert "brightness" not in by_name()


def test_the_shell_reads_the_line_that_completes() -> None:
    (line,) = [line.text for line in LINES if line.text.startswith("eval ")]
    inner = line.removeprefix('eval "$(').removesuffix(')"')
    assert main.main(shlex.split(inner)[1:]) == 0


# ------------------------------------------------------------------------------------------------ minutes


def write_comics(root: Path) -> None:
    """ToonSV's stories as comic strips: panels side by side, captions beside them."""
    for split, number in (("train", 6), ("val", 2), ("test", 2)):
        (root / split).mkdir(parents=True)
        for i, story in enumerate(ToonSV(split, number, resolution=64)):
            Image.fromarray(np.concatenate([story.source, *story.frames], axis=1)).save(root / split / f"{i}.png")
            (root / split / f"{i}.txt").write_text("\n".join([story.descriptions[0], *story.captions]) + "\n")


def test_a_set_of_ones_own_is_prepared(run: Run) -> None:
    write_comics(Path("comics"))
    as_typed("docs/extending.md", run, "prepare")
    assert Path("prepared/comics/ids-test.txt").read_text().splitlines() == ["test/0", "test/1"]


@pytest.mark.slow
def test_a_set_of_ones_own_is_trained_on_and_evaluated(run: Run) -> None:
    """Trainings end after two steps."""
    write_comics(Path("comics"))
    train = next(line for line in STORYDALLE if "data=comics" in line.text and " train " in line.text)
    assert run(train, "trainer=smoke", "tokenizer.image.ch=8")[0] == 0
    as_typed("docs/extending.md", run, "evaluate")
    assert Path("evaluated/comics/story_dalle/test/metrics.json").is_file()


@pytest.mark.slow
def test_every_training_of_the_docs_ends_and_the_ablation_leaves_four_models(run: Run) -> None:
    """Each for two steps at small sizes, on what the one before has made; the sweep and its tables behind them."""
    lines = [line for line in shell_lines(ROOT / "docs" / "training.md") if line.is_storydalle]
    own = [line for line in lines if not line.needs_what_is_absent and not re.search("trainer=|--cfg", line.text)]
    if importlib.util.find_spec("optuna") is None:
        own = [line for line in own if not is_search(line)]
    for line in own:
        command = line.words.split()[1]
        few = (*FEW, "splits=[test]", "text_to_image=null") if command == "evaluate" else ()
        builds_on_shipped = "pretrained=story_dalle" in line.text
        tiny = [each for each in TINY_TOON if not (builds_on_shipped and each.startswith("data.resolution"))]
        if "experiment=toon/dvae" in line.text:  # the tiny tokenizer is a VQGAN
            tiny.remove("tokenizer=tiny")
        launched = ("hydra.launcher.n_jobs=1",) if "sweep=" in line.text else ()
        if is_search(line):
            launched = (*launched, "search.trials=2")
        if "pretrained={" in line.text or "from_nothing" in line.text:
            launched = tuple(f"++pretrained.{each}" for each in tiny)
        if "from_nothing" in line.text:
            launched += tuple(f"++pretrained.pretrained.{each}" for each in tiny)
        status, _, err = run(line, *(tiny if command == "train" else few), *launched)
        assert status == 0, f"{line.text}: {err}"
    assert len(list(Path("runs/toon/story_dalle/ablation").glob("*/model"))) == 4
    searched = [Path("runs/toon/story_dalle", name) for name in ("search", "rates")]
    assert not any(map(is_search, own)) or all(len(list(each.glob("trial-*/model"))) == 2 for each in searched)


def is_search(line: Line) -> bool:
    return re.search("sweep=(search|rates)", line.text) is not None


@pytest.mark.slow
def test_every_evaluation_of_the_docs_ends_without_an_error(run: Run) -> None:
    """On two stories of each split, and on pictures that two systems may have drawn."""
    for folder in ("mine", "theirs"):
        for split in ("test", "unseen"):
            for story in ToonSV(split, 2, resolution=128):
                place = Path("frames") / folder / story.id
                place.mkdir(parents=True)
                for number, frame in enumerate(story.frames, start=1):
                    Image.fromarray(frame).save(place / f"{number}.png")
    for line in [line for line in STORYDALLE if line.page == "docs/evaluating.md" and not line.needs_what_is_absent]:
        few = FEW if line.words.split()[1] == "evaluate" else ()
        status, _, err = run(line, *few)
        assert status == 0, f"{line.text}: {err}"


@pytest.mark.slow
def test_the_way_of_ones_own_stories_leads_to_a_strip(run: Run) -> None:
    write_own_stories(Path("stories"), 12)
    Path("new.txt").write_text("Mimi waves.\nShe jumps.\n")
    shutil.copy("stories/story 1/1.png", "first.png")
    smoke = ("trainer=smoke", "tokenizer.image.ch=8")
    as_typed("docs/your-own-stories.md", run, "prepare", "train", "generate", train=smoke)
    assert Path("strip/strip.png").is_file()


@pytest.mark.slow
def test_the_measured_evaluation_of_the_readme_fills_its_table(run: Run) -> None:
    shutil.copy(README, "README.md")
    (line,) = [line for line in STORYDALLE if line.page == "README.md" and "readme=README.md" in line.text]
    status, _, err = run(line, *FEW, "diagnose=2")
    assert status == 0, err
    rows = Path("README.md").read_text().partition("<!-- results:begin -->\n")[2].splitlines()
    assert rows[0] == results().splitlines()[0]
    assert rows[6].startswith("| story_dalle | ")
