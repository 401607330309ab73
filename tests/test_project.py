"""The house itself: who imports whom, and what is tracked."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "storydalle"
# Imports point only upward in this list.
LAYERS = (
    *("mistakes", "files", "settings", "configured", "stories", "tokens", "models", "released", "training", "metrics"),
    *("evaluation", "reporting", "bench", "zoo", "commands", "__main__"),
)
HYDRA = {"hydra", "omegaconf"}
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_TRACKED_BYTES = 48 * 2**20
MAX_LINES, MAX_FUNCTION_LINES = 400, 45  # of a file, of a function
IMPORT_NAMES = {"pillow": "PIL", "hydra-core": "hydra", "pytorch-lightning": "pytorch_lightning"}
NAMED_IN_CONF = {"hydra-joblib-launcher": "defaults:\n  - joblib"}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports_of(path: Path) -> list[str]:
    """Dotted names that a file imports anywhere, inside functions too."""
    names: list[str] = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            assert node.module is not None
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def layer_of(dotted: str) -> str | None:
    """The layer of a module of the package; nothing for the package itself and for the world outside."""
    head, _, rest = dotted.partition(".")
    layer = rest.partition(".")[0]
    return layer if head == "storydalle" and layer in LAYERS else None


def own_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("path", MODULES, ids=own_name)
def test_imports_point_only_upward(path: Path) -> None:
    layer = layer_of(own_name(path))
    if layer is None:
        assert path == PACKAGE / "__init__.py", f"{path} is in no layer"
        return
    for name in imports_of(path):
        imported = layer_of(name)
        assert imported is None or LAYERS.index(imported) <= LAYERS.index(layer), f"{own_name(path)} imports {name}"


def test_one_file_knows_hydra() -> None:
    knowing = {own_name(path) for path in MODULES if {n.partition(".")[0] for n in imports_of(path)} & HYDRA}
    assert knowing == {"storydalle.commands.application"}


def is_for_types_alone(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def modules_imported_by(path: Path) -> set[str]:
    """Modules of the package that a file needs when it runs, inside functions too."""
    names = {own_name(module).removesuffix(".__init__") for module in MODULES}
    found, todo = set[str](), [tree_of(path)]
    while todo:
        node: ast.AST = todo.pop()
        if isinstance(node, ast.ImportFrom):
            dotted = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (dotted & names) or ({node.module} & names)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & names
        children = node.orelse if is_for_types_alone(node) else ast.iter_child_nodes(node)  # type: ignore[attr-defined]
        todo.extend(children)  # type: ignore[arg-type]
    return found


def test_no_modules_import_each_other_in_a_circle() -> None:
    """Every module can be put behind all that it imports, were it inside a function."""
    graph = {own_name(path).removesuffix(".__init__"): modules_imported_by(path) for path in MODULES}
    assert any(graph.values())
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"modules import each other: {' -> '.join(error.args[1])}")


def requirements() -> dict[str, list[str]]:
    """Names that pyproject.toml asks for, by extra; the package's own under an empty name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [re.split(r"[<>=!~\[ ]", entry)[0] for entry in entries] for extra, entries in groups.items()}


def test_every_dependency_is_imported_somewhere() -> None:
    imported = {name.partition(".")[0] for path in MODULES for name in imports_of(path)}
    conf = "\n".join(path.read_text() for path in (ROOT / "conf").rglob("*.yaml"))
    for name in requirements()[""]:
        if name in NAMED_IN_CONF:
            assert NAMED_IN_CONF[name] in conf
        else:
            assert IMPORT_NAMES.get(name, name) in imported, f"{name} is imported nowhere"


def test_every_dependency_is_pinned_in_the_constraints() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    for extra, names in requirements().items():
        assert set(names) <= pinned, f"{extra}: {set(names) - pinned}"


def test_what_an_extra_installs_is_imported_where_its_name_is_told() -> None:
    """Of the extras whose packages are only needed in some place; that of the app has no code yet."""
    for extra in ("text", "8bit", "data"):
        for name in requirements()[extra]:
            importing = [path for path in MODULES if name in {each.partition(".")[0] for each in imports_of(path)}]
            assert importing, f"{name} is imported nowhere"
            assert all(f"storydalle[{extra}]" in path.read_text() for path in importing), f"{name}: {importing}"


def test_drawing_works_where_what_only_training_and_judging_need_is_missing(tmp_path: Path) -> None:
    missing = ("pytorch_lightning", "torchmetrics", "wandb", "matplotlib", "joblib", "transformers")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing})); from storydalle.commands.main import main; "
        "sys.exit(main(['generate', 'captions=[Pip waves.]', 'out=drawn']))"
    )
    environment = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "drawn" / "strip.png").is_file()


def test_messages_name_extras_that_exist() -> None:
    for path in MODULES:
        named = re.findall(r"storydalle\[([^\]]+)\]", path.read_text())
        assert set(named) <= requirements().keys(), f"{own_name(path)} names {named}"


@pytest.mark.parametrize("path", [".ci/run", "constraints.txt", "CONTRIBUTING.md"])
def test_all_extras_are_asked_for_together(path: str) -> None:
    (named,) = re.findall(r"\.\[([\w,]+)\]", (ROOT / path).read_text())
    assert sorted(named.split(",")) == sorted(requirements().keys() - {""})


def test_conf_goes_into_the_wheel() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert build["only-include"] == ["storydalle", "conf"]
    assert build["sources"] == {"conf": "storydalle/conf"}


def test_templates_of_pages_go_into_the_wheel_as_they_are_tracked() -> None:
    """Hatch packs the folder of the package but for what git ignores."""
    templates = {path for path in tracked_files() if path.parent == PACKAGE / "reporting" / "templates"}
    assert templates == set((PACKAGE / "reporting" / "templates").iterdir())
    assert {path.name for path in templates} >= {"base.html", "style.css"}


def tracked_files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_tracked_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in tracked_files()) < MAX_TRACKED_BYTES


def test_no_two_classes_of_the_package_have_one_name() -> None:
    names = [node.name for path in MODULES for node in tree_of(path).body if isinstance(node, ast.ClassDef)]
    assert not sorted({name for name in names if names.count(name) > 1})


@pytest.mark.parametrize("path", [*MODULES, *sorted((ROOT / "tests").rglob("*.py"))], ids=lambda path: path.name)
def test_files_and_functions_stay_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    functions = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or node.lineno) - node.lineno + 1 for node in functions}
    assert not {name: number for name, number in lengths.items() if number > MAX_FUNCTION_LINES}


def test_no_file_names_a_machine() -> None:
    """No absolute paths of a machine and no package index in what is tracked."""
    places = re.compile(r"(?<![\w.\"'=])/(?:root|home|work|opt|mnt)/\w|index-url|find-links")
    for path in tracked_files():
        if path.suffix in (".py", ".yaml", ".toml", ".md", ".txt") and path != Path(__file__).resolve():
            found = places.search(path.read_text(encoding="utf-8"))
            assert not found, f"{path.relative_to(ROOT)} names {found}"
