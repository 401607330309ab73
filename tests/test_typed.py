"""Paths, names and sentences mean what was typed: they pass Hydra's grammar unchanged."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from storydalle.commands import application
from storydalle.commands.application import Request
from storydalle.commands.typed import LISTS, PATHS, SENTENCES, TEXTS, as_typed
from storydalle.files.conf import conf_folder
from storydalle.mistakes import UserError

# Settings without a value of their own that are numbers, switches, choices among few, or parts of a config.
NO_TEXTS = frozenset(
    (
        *("format", "layout", "dtype", "texts", "sampling", "experiment", "variant", "sweep", "output_subdir", "clip"),
        *("partition", "search"),
        *(
            "top_k",
            "top_p",
            "threads",
            "temperature",
            "num_heads",
            "num_stories",
            "num_targets",
            "drawn_frames",
            "tau_steps",
            "beta_steps",
            "story_reach",
            "stories_per_batch",
            "workers",
        ),
        *(
            "guidance",
            "packing",
            "diagnose",
            "memory_limit_gb",
            "ema_decay",
            "halve_every",
            "check_val_every_n_epoch",
            "splits",
            "leave_out",
        ),
    )
)
ODD = ("2024_11_26", "1.50", "1e3", "007", "true", "inf", "a,b.png", "[a].png", "{a}", "photo (1).jpg", "it's", "a=b")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The settings that a command gets from a command line, one dictionary a job."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["storydalle"])

    def of(command: str, *arguments: str) -> list[dict[str, Any]]:
        seen: list[Request] = []
        application.run(command, seen.append, list(arguments))
        return [request.settings for request in seen]

    return of


@pytest.mark.parametrize("value", [*ODD, "~/story", "a\\b", "null.png", "-1.5", "1_000.png", "range(1,3)", "a: b"])
def test_a_path_stays_what_was_typed(settings: Any, value: str) -> None:
    keys = ("out", "source", "story", "model", *(["captions"] if "[" not in value else []))
    (seen,) = settings("generate", *(f"{key}={value}" for key in keys))
    assert {key: seen[key] for key in keys} == dict.fromkeys(keys, value)


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("evaluate", ["images", "save", "export", "compare", "readme", "runs", "pretrained", "text_to_image", "out"]),
        ("convert", ["source", "target", "image_encoder"]),
        ("report", ["runs", "out", "readme"]),
        ("prepare", ["caption_tokenizer", "pretrained", "shards", "runs", "out"]),
        ("bench", ["model", "out", "readme"]),
        ("demo", ["model", "out"]),
    ],
)
def test_paths_of_every_command_stay_what_was_typed(settings: Any, command: str, keys: list[str]) -> None:
    (seen,) = settings(command, *(f"{key}={value}" for key, value in zip(keys, ODD, strict=False)))
    assert {key: seen[key] for key in keys} == dict(zip(keys, ODD, strict=False))


def test_nested_paths_and_names_stay_what_was_typed(settings: Any) -> None:
    given = ["data=folder", "data.root=2024_11_26", "data.ids=1.50"]
    (seen,) = settings("prepare", *given)
    assert (seen["data"]["root"], seen["data"]["set"]["root"], seen["data"]["ids"]) == (
        "2024_11_26",
        "2024_11_26",
        "1.50",
    )
    (seen,) = settings("train", "experiment=toon/story_dalle", "name=2024_11_26", "runs=1.50", "pretrained=1e3")
    assert (seen["name"], seen["runs"], seen["pretrained"]) == ("2024_11_26", "1.50", "1e3")


def test_lists_of_paths_stay_what_was_typed(settings: Any) -> None:
    (seen,) = settings("evaluate", 'images=[2024_11_26, 1.50,"x, y",a(1).png,null]')
    assert seen["images"] == ["2024_11_26", "1.50", "x, y", "a(1).png", None]
    assert settings("evaluate", "model=[]")[0]["model"] == []


def test_numbers_switches_and_null_stay_what_they_are(settings: Any) -> None:
    (seen,) = settings(
        "generate", "seed=1_000", "temperature=1.50", "overwrite=true", "top_k=null", "out=null", "source='null'"
    )
    assert [seen[key] for key in ("seed", "temperature", "overwrite", "top_k", "out")] == [1000, 1.5, True, None, None]
    assert seen["source"] == "null"


@pytest.mark.parametrize("value", ["", "''", '""', " "])
def test_an_empty_path_is_refused_by_name(settings: Any, value: str) -> None:
    """As a shell leaves it of a variable that is not set: it would be the folder that one stands in."""
    with pytest.raises(UserError, match="out= is empty"):
        settings("generate", f"out={value}")


def test_captions_never_interpolate_and_paths_do(settings: Any) -> None:
    typed = 'captions=["Pip pays ${seed} coins.", "\'${nothing}\' is on the sign.", ${seed}, "\\\\${seed}"]'
    (seen,) = settings("generate", typed, "out=x${seed}", "source='${out}/1,2.png'", "seed=7")
    assert seen["captions"] == ["Pip pays ${seed} coins.", "'${nothing}' is on the sign.", "${seed}", "\\${seed}"]
    assert (seen["out"], seen["source"]) == ("x7", "x7/1,2.png")


def test_in_a_sweep_commas_part_values_and_each_stays_what_was_typed(settings: Any) -> None:
    seen = settings(
        "generate", "-m", "seed=0,1", "out=x${seed}", "source=2024_11_26,1.50,'a,b'", 'captions=["a ${seed}, b"]'
    )
    assert [(one["source"], one["seed"], one["out"]) for one in seen] == [
        (source, seed, f"x{seed}") for seed in (0, 1) for source in ("2024_11_26", "1.50", "a,b")
    ]
    assert {str(one["captions"]) for one in seen} == {"['a ${seed}, b']"}
    seen = settings("evaluate", "-m", "model=[1.50,b],1e3", "seed=range(0,2)")
    assert [one["model"] for one in seen] == [["1.50", "b"], ["1.50", "b"], "1e3", "1e3"]


def test_a_caption_may_begin_like_a_home(settings: Any) -> None:
    assert settings("generate", 'captions=["~nosuchuser waves."]')[0]["captions"] == ["~nosuchuser waves."]
    with pytest.raises(ValueError, match="~nosuchuser"):
        settings("generate", "captions=~nosuchuser/story.txt")


def test_a_sweep_may_give_each_seed_a_folder(settings: Any) -> None:
    seen = settings("evaluate", "-m", "seed=0,1,2", "out=evaluated/seed${seed}")
    assert len({one["out"] for one in seen}) == len(seen) > 1 and not any("$" in one["out"] for one in seen)


@pytest.mark.parametrize("argument", ["-m", "--cfg", "~out", "out", "seed=1", "+trainer.max_time=1", 'captions=["a"]'])
def test_what_is_no_path_is_handed_on_as_it_is(argument: str) -> None:
    assert as_typed([argument], application.reading) == [argument]


def test_every_setting_without_a_value_is_known_to_be_a_text_or_not() -> None:
    """A new setting that is null by default has to be named here or in TEXTS; a text is nowhere a number."""

    def leaves(tree: Any) -> list[tuple[str, Any]]:
        items = tree.items() if isinstance(tree, dict) else []
        return [
            leaf for key, value in items for leaf in ([(key, value)] if not isinstance(value, dict) else leaves(value))
        ]

    found = [leaf for path in conf_folder().rglob("*.yaml") for leaf in leaves(yaml.safe_load(path.read_text()))]
    assert {str(key) for key, value in found if value is None or value == "???"} <= TEXTS | NO_TEXTS
    assert not TEXTS & NO_TEXTS and LISTS | SENTENCES | PATHS <= TEXTS
    assert not {key for key, value in found if isinstance(value, int | float) and key in TEXTS}
    assert {key for key, _ in found} >= PATHS, "a path that no config has"
