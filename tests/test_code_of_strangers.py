"""Code that a folder of a stranger brings: never run, and never asked about."""

import ast
import builtins
import json
from pathlib import Path
from typing import Any

import pytest

import storydalle
from storydalle.metrics.networks.clip import TransformersCLIP
from storydalle.models.story_gan.language_models import LOCAL, CLIPCaptionEncoder, RobertaCaptionEncoder
from tests.test_clip import clip_folder  # noqa: F401 (a fixture)
from tests.test_gan_caption_encoder import tiny_clip, tiny_roberta

PACKAGE = Path(storydalle.__file__).parent
OPENERS = ("from_pretrained", "load_dataset", "load_metric", "pipeline", "from_config", "hub.load", "torch.load")


def calls_of_libraries() -> list[tuple[Path, str]]:
    """Calls that open what another library understands: those of our own classes are not among them."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")}
    ours = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
    ours |= {"cls", "super()", "encoders[kind]", "kind", "model_class(folder)"}  # as registries give them
    found = []
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(OPENERS):
                receiver = ast.unparse(node.func).rpartition(".")[0]
                if receiver not in ours:
                    found.append((path, ast.unparse(node)))
    return found


def test_every_call_of_a_library_that_opens_a_folder_says_that_its_code_is_not_run() -> None:
    found = calls_of_libraries()
    assert len(found) >= 8, "the calls are found at all"
    for path, text in found:
        assert "**LOCAL" in text or "weights_only=True" in text, f"{path}: {text}"
    assert dict(LOCAL) == {"local_files_only": True, "trust_remote_code": False}


def with_code(folder: Path, marker: Path) -> Path:
    """The folder, its tokenizer now of a class that it brings as a Python file."""
    (folder / "evil.py").write_text(
        f"from pathlib import Path\nfrom transformers import CLIPTokenizer\nPath({str(marker)!r}).touch()\n"
        "class Evil(CLIPTokenizer):\n    pass\nclass EvilFast(Evil):\n    pass\n"
    )
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(
        json.dumps(config | {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.EvilFast"]}})
    )
    config, auto = (
        json.loads((folder / "config.json").read_text()),
        {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil"},
    )
    (folder / "config.json").write_text(json.dumps(config | {"tokenizer_class": "Evil", "auto_map": auto}))
    return folder


@pytest.fixture
def nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(*question: Any) -> str:
        raise AssertionError(f"the user was asked {question}")

    monkeypatch.setattr(builtins, "input", answer)


@pytest.mark.usefixtures("nobody_is_asked")
@pytest.mark.parametrize("kind", ["clip", "roberta"])
def test_a_caption_encoder_runs_no_code_of_its_folder(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("transformers")
    made, cls = {"clip": (tiny_clip, CLIPCaptionEncoder), "roberta": (tiny_roberta, RobertaCaptionEncoder)}[kind]
    encoder = made()
    encoder.save(tmp_path / "folder")
    encoder.model.save_pretrained(tmp_path / "folder")
    folder = with_code(tmp_path / "folder", tmp_path / "it_ran")
    for open_it in (cls.open, cls.from_pretrained):
        try:
            open_it(folder)
        except ValueError as error:
            assert "it holds" in str(error) or str(folder) in str(error)
    assert not (tmp_path / "it_ran").exists()


@pytest.mark.usefixtures("nobody_is_asked")
def test_a_clip_runs_no_code_of_its_folder(clip_folder: Path, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("transformers")
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    folder = with_code(tmp_path, tmp_path / "it_ran")
    try:
        TransformersCLIP.from_pretrained(folder)
    except ValueError as error:
        assert str(folder) in str(error)
    assert not (tmp_path / "it_ran").exists()
