"""READMEs of saved models: the hub reads licence, tags and scores from them, and people how the model was made."""

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from storydalle.metrics.declared import declared
from storydalle.models.cards import SCORES, add_results, model_card, tokenizer_card
from storydalle.models.zoo import zoo_folder

CARD: dict[str, Any] = {
    "license": "mit",
    "experiment": "toon/story_dalle",
    "num_steps": 7,
    "data": {"name": "toon", "train": {"num_stories": 12}},
}
SCORED = {
    "test": {
        "real frames": {"character_micro_f1": 1.0},
        "runs/a/tiny": {"character_micro_f1": 0.123456, "fid": float("nan"), "error_at_1": 0.5, "frame_accuracy": None},
        "runs/a/tiny (best of 3 by clip)": {"character_micro_f1": 0.9},
    },
    "unseen": {"tiny": {"toon_fd": 2.0}},
}


def written(card: dict[str, Any]) -> str:
    return model_card("tiny", "StoryDALLE", {"parameters": "8.6 M"}, card)


def test_the_hub_reads_licence_library_task_and_tags() -> None:
    data = ModelCard(written(CARD)).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("mit", "storydalle", "text-to-image")
    assert "story-continuation" in data.tags
    assert data.eval_results is None and "model-index" not in written(CARD), "it was not scored"


def test_people_read_how_it_was_made_and_how_it_is_used() -> None:
    text = ModelCard(written(CARD)).text
    assert text.startswith("# toon/story_dalle\n\nContinues a story")
    assert "| --- | --- |\n| parameters | 8.6 M |\n| recipe | `storydalle train" in text
    assert "| data | toon, 12 training stories |\n\n```python\nfrom storydalle import StoryDALLE" in text
    assert written(CARD).endswith("with their protocol.\n")


def test_without_a_record_there_is_no_licence() -> None:
    made = ModelCard(written({}))
    assert made.data.license is None and "license" not in written({})
    assert made.text.startswith("# tiny\n")


def test_the_model_index_holds_the_models_own_finite_scores_of_each_split() -> None:
    data = ModelCard(written(CARD | {"scores": SCORED})).data
    assert data.model_name == "tiny"
    found = {(each.dataset_name, each.dataset_split, each.metric_type): each.metric_value for each in data.eval_results}
    assert found == {("toon", "test", "character_micro_f1"): 0.1235, ("toon", "unseen", "toon_fd"): 2.0}


def test_every_score_that_the_hub_shows_is_declared_by_a_metric() -> None:
    assert {column.score.replace("*", "toon") for each in declared() for column in each.columns} >= SCORES.keys()


@pytest.mark.parametrize("scores", [[], "x", {"test": 3}, {"test": {"tiny": [1]}}, {"test": {"tiny": {"fid": "x"}}}])
def test_scores_of_a_strangers_kind_are_left_out(scores: object) -> None:
    assert "model-index" not in written(CARD | {"scores": scores})


def test_a_licence_cannot_say_more_than_a_licence() -> None:
    made = ModelCard(written({"license": "mit\ntags: [x]\n---\n# other"}))
    assert made.data.license == "mit\ntags: [x]\n---\n# other" and "x" not in made.data.tags


def test_a_tokenizer_is_not_offered_as_a_model_that_draws() -> None:
    text = tokenizer_card("codes", {"pictures": "8 x 8 pixels"}, {"license": "other"})
    data = ModelCard(text).data
    assert data.license == "other" and data.pipeline_tag is None
    assert "# codes" in text and "| pictures | 8 x 8 pixels |" in text and "from_pretrained" not in text


def test_scores_join_a_readme_whose_words_stay(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(written(CARD) + "\nWritten by hand: é.\n", encoding="utf-8")
    before = ModelCard.load(readme).text
    for _ in range(2):
        add_results(readme, "tiny", CARD | {"scores": SCORED})
    made = ModelCard.load(readme)
    assert made.text == before and len(made.data.eval_results) == 2 and made.data.license == "mit"
    assert readme.read_text(encoding="utf-8").startswith("---\nlicense: mit\n")


@pytest.mark.parametrize("name", ["story_dalle", "storyganc"])
def test_models_that_ship_show_the_hub_their_scores(name: str) -> None:
    data = ModelCard.load(zoo_folder() / name / "README.md").data
    scores = json.loads((zoo_folder() / name / "card.json").read_text())["scores"]
    for each in data.eval_results:
        assert each.metric_value == round(scores[each.dataset_split][name][each.metric_type], 4)
    assert {each.dataset_split for each in data.eval_results} == {"test", "unseen"}
    assert {each.metric_type for each in data.eval_results} <= SCORES.keys()
