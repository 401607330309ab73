"""evaluate: the rows, the records and the README's table, from a tiny model and from a folder of pictures."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from PIL import Image
from torch import nn

from storydalle.commands.application import Request
from storydalle.commands.evaluate import default_models
from storydalle.commands.main import main
from storydalle.evaluation import evaluation
from storydalle.mistakes import UserError
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.zoo import zoo_folder
from storydalle.stories.toon import ToonSV
from tests.evaluations import reader_measured_once  # noqa: F401
from tests.tiny import tiny_story_dalle
from tests.tiny_gan import tiny_story_gan

pytestmark = pytest.mark.skipif(
    not (zoo_folder() / "label_reader" / "config.json").is_file(), reason="the label reader does not ship yet"
)
RESOLUTION, STORIES = 72, 3


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    made = tiny_story_dalle(resolution=RESOLUTION)
    made.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def evaluate(*settings: str) -> int:
    return main(["evaluate", "text_to_image=null", f"num_stories={STORIES}", "out=out", *settings])


def test_a_model_is_scored_beside_the_ceilings_and_the_readme_gets_the_same_table(model: Path, capsys):
    readme = Path("README.md")
    readme.write_text("before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n")
    assert evaluate(f"model={model}", f"text_to_image={model}", "readme=README.md", "card=true") == 0
    printed = capsys.readouterr().out
    for row in ("real frames", "tokenizer reconstruction", "copy the source", "text-to-image alone", str(model)):
        assert f"| {row} |" in printed
    table = next(line for line in printed.splitlines() if line.startswith(f"| {model} |"))
    page = readme.read_text()
    assert table in page
    assert page.startswith("before\n") and page.endswith("after\n") and "old" not in page
    card = json.loads((model / "card.json").read_text())
    assert set(card["scores"]) == {"test", "unseen"}
    assert len(card["tables"]) == 2
    shown = ModelCard.load(model / "README.md").data
    assert shown.model_name == model.name
    found = {(each.dataset_split, each.metric_type): each.metric_value for each in shown.eval_results}
    own = card["scores"]["unseen"][str(model)]
    assert found["unseen", "character_micro_f1"] == round(own["character_micro_f1"], 4)
    for split in ("test", "unseen"):
        record = json.loads(Path("out", split, "metrics.json").read_text())
        assert record["values"]["real frames"]["character_micro_f1"] == 1
        assert record["values"][str(model)]["probe_source"] == 0
        assert len(record["protocol_hash"]) >= 12


def test_the_true_frames_in_a_folder_score_as_real_frames(model: Path):
    for story in ToonSV("test", STORIES, resolution=128):
        folder = Path("frames") / story.id
        folder.mkdir(parents=True)
        for i, frame in enumerate(story.frames):
            Image.fromarray(frame).save(folder / f"{i + 1:02d}.png")
    assert evaluate("images=frames", f"model={model}", "splits=[test]") == 0
    values = json.loads(Path("out", "test", "metrics.json").read_text())["values"]
    assert values["frames"]["character_micro_f1"] == values["frames"]["action"] == 1


def test_a_story_without_its_pictures_is_named(model: Path, capsys):
    (Path("frames") / "toon" / "test" / "000000").mkdir(parents=True)
    assert evaluate("images=frames", f"model={model}", "splits=[test]") == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "frames" in said


def test_the_models_of_a_sweep_stand_in_one_table_with_what_each_path_is_worth(model: Path, capsys):
    for name in ("full-seed0", "no_story-seed0"):
        shutil.copytree(model, Path("sweep") / name / "model")
    assert evaluate("compare=sweep", "splits=[test]") == 0
    printed = capsys.readouterr().out
    for row in ("real frames", "full-seed0", "no_story-seed0", "full-seed0, test"):
        assert f"| {row} |" in printed
    losses = [line for line in printed.splitlines() if line.startswith("| no story |")]
    assert len(losses) == 3
    assert all(line.endswith("| NO |") for line in losses), "equal models lose nothing"
    record = json.loads(Path("out", "test", "metrics.json").read_text())
    assert {"full-seed0", "no_story-seed0"} <= set(record["systems"])
    assert record["values"]["full-seed0"] == record["values"]["no_story-seed0"]


def test_models_of_two_kinds_stand_in_one_table_each_with_its_own_targets(model: Path, capsys):
    tiny_story_gan(resolution=64, num_characters=10).save_folder("gan")
    assert evaluate(f"model=[gan,{model}]", "splits=[test]") == 0
    printed = capsys.readouterr().out
    for row in ("real frames", "tokenizer reconstruction", "gan", str(model), "gan, test", f"gan - {model}"):
        assert f"| {row} |" in printed
    of_gan, of_other = printed.split("**gan**")[1].split(f"**{model}**")
    assert "| setting from source | .900 |" in of_gan and "carried state" not in of_gan
    assert "| setting from source | .970 |" in of_other and "carried state" in of_other
    record = json.loads(Path("out", "test", "metrics.json").read_text())
    assert [record["systems"][name]["resolution"] for name in ("gan", str(model))] == [64, RESOLUTION]


def test_a_model_may_stand_beside_a_sweep_whose_full_variant_comes_first(model: Path, capsys):
    for name in ("bare", "full", "no_attention"):
        shutil.copytree(model, Path("sweep") / name / "model")
    assert evaluate("compare=sweep", f"model={model}", "splits=[test]") == 0
    table = capsys.readouterr().out.split("\n\n")[2]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]
    assert rows[-4:] == [str(model), "full", "bare", "no_attention"]


def test_an_experiment_is_evaluated_with_its_newest_run_or_the_model_that_it_ships(
    tmp_path: Path, capsys: pytest.CaptureFixture
):
    def chosen(experiment: str | None, **settings: object) -> list[str]:
        settings = {"images": None, "compare": None, "runs": str(tmp_path)} | settings
        return default_models(Request(settings, choices={"experiment": experiment} if experiment else {}))

    assert chosen(None) == chosen("toon/story_dalle") == ["story_dalle"]
    assert chosen("toon/text_to_image") == ["text_to_image"] and chosen("toon/storyganc") == ["storyganc"]
    assert chosen(None, images="frames") == chosen("toon/story_dalle", compare="runs") == []
    for experiment in ("openstory/storyganc", "pororo/story_dalle_full"):
        with pytest.raises(UserError, match=f"experiment={experiment} has no finished run .* or give model=FOLDER"):
            chosen(experiment)
    for age, name in ((2, "older"), (1, "newer")):
        for experiment in ("openstory/storyganc", "toon/story_dalle"):
            (folder := tmp_path / experiment / name / "model").mkdir(parents=True)
            (folder / "config.json").write_text("{}")
            os.utime(folder / "config.json", (1e9 - age, 1e9 - age))
    (tmp_path / "openstory" / "storyganc" / "unfinished").mkdir()
    assert chosen("openstory/storyganc") == [str(tmp_path / "openstory" / "storyganc" / "newer" / "model")]
    assert chosen("toon/story_dalle") == [str(tmp_path / "toon" / "story_dalle" / "newer" / "model")]
    assert "scoring the model of the newest finished run of openstory/storyganc" in capsys.readouterr().out


def test_models_that_draw_differently_are_not_compared(model: Path, capsys):
    for name, temperature in (("full", 1.0), ("no_story", 0.5)):
        shutil.copytree(model, folder := Path("sweep") / name / "model")
        (folder / "card.json").write_text(json.dumps({"sampling": {"temperature": temperature}}))
    assert evaluate("compare=sweep", "splits=[test]") == 2
    said = capsys.readouterr().err
    assert "full and no_story differ in sampling" in said and "temperature=0.5" in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [(["compare=nothing"], "nothing holds no model"), (["compare=x", "card=true"], "leave out images= and card=")],
)
def test_a_comparison_of_nothing_or_into_a_card_is_one_line(settings: list[str], said: str, model: Path, capsys):
    assert evaluate(*settings) == 2
    assert said in capsys.readouterr().err


def write_true_frames(folder: Path, stories: int = STORIES, size: int = 128) -> None:
    for story in ToonSV("test", stories, resolution=size):
        (folder / story.id).mkdir(parents=True)
        for i, frame in enumerate(story.frames):
            Image.fromarray(frame).save(folder / story.id / f"{i + 1}.png")


def record_of(out: str = "out") -> dict:
    return json.loads(Path(out, "test", "metrics.json").read_text())


def test_pictures_score_alike_whatever_their_names_order_and_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_true_frames(Path("frames"), 7)
    rows = ["story,frame,file"]
    for i, file in enumerate(sorted(Path("frames").rglob("*.png"), reverse=True)):
        shutil.copy(file, f"renamed-{i}.png")
        rows.append(f"{file.parent.relative_to('frames')},{file.stem},renamed-{i}.png")
    Path("files.csv").write_text("\n".join(rows) + "\n")
    several = ("splits=[test]", "num_stories=7")
    assert evaluate("images=frames", *several, "batch_size=3") == 0
    first = record_of()
    assert evaluate("images=files.csv", *several, "batch_size=5", "out=other") == 0
    second = record_of("other")
    assert first["protocol_hash"] == second["protocol_hash"] and first["truth_sha256"] == second["truth_sha256"]
    assert first["systems"]["frames"]["images"]["sha256"] == second["systems"]["files.csv"]["images"]["sha256"]
    for row, own in (("real frames", "real frames"), ("frames", "files.csv")):
        for name, value in first["values"][row].items():
            assert second["values"][own][name] == (None if value is None else pytest.approx(value, abs=1e-6)), name


def test_a_partial_set_is_scored_on_demand_alone_and_under_another_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    write_true_frames(Path("frames"), 4)
    several = ("images=frames", "splits=[test]", "num_stories=4")
    assert evaluate(*several) == 0
    whole = record_of()
    Path("frames/toon/test/000001/2.png").unlink()
    assert evaluate(*several) == 2
    said = capsys.readouterr().err
    assert "toon/test/000001 frame 2: missing" in said and "allow_partial=true" in said
    assert evaluate(*several, "allow_partial=true") == 0
    part = record_of()
    assert part["protocol"]["num_stories"] == 3 and part["protocol"]["left_out"]
    assert part["protocol_hash"] != whole["protocol_hash"]


def test_each_score_puts_real_copied_and_shuffled_frames_in_their_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    stories = list(ToonSV("test", 8, resolution=128))
    for i, story in enumerate(stories):
        (folder := Path("shuffled") / story.id).mkdir(parents=True)
        for number, frame in enumerate(stories[(i + 3) % len(stories)].frames, start=1):
            Image.fromarray(frame).save(folder / f"{number}.png")
    assert evaluate("images=shuffled", "splits=[test]", "num_stories=8") == 0
    real, copied, shuffled = (record_of()["values"][name] for name in ("real frames", "copy the source", "shuffled"))
    assert real["character_micro_f1"] == 1 > copied["character_micro_f1"] > shuffled["character_micro_f1"]
    assert copied["copy_rate"] == 1 > real["copy_rate"] > shuffled["copy_rate"]
    assert copied["consistency_self"] == pytest.approx(1) and copied["consistency_source"] == pytest.approx(1)
    assert real["consistency_source"] > real["consistency_source_chance"]
    assert shuffled["consistency_source"] < real["consistency_source"]
    assert shuffled["consistency_self"] == pytest.approx(real["consistency_self"], abs=1e-6)
    assert copied["character_recall_in_source"] == 1 and copied["character_recall_not_in_source"] == 0
    assert real["clip_t"] > copied["clip_t"] and real["clip_t"] > shuffled["clip_t"]


def test_a_model_is_diagnosed_by_other_inputs_and_other_seeds(model: Path):
    made = StoryDALLE.from_pretrained(model)
    for module in made.model.backbone.modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.3)  # captions decide what is drawn
    made.save_pretrained(model)
    assert evaluate(f"model={model}", "splits=[test]", "diagnose=2") == 0
    rows = record_of()["diagnostics"][str(model)]["rows"]
    assert set(rows) == {"true inputs", "another story's source", "blank source", "shuffled captions", "other seeds"}
    assert rows["shuffled captions"]["change_shuffled_captions_pixels"] > 0
    assert rows["blank source"]["change_blank_source_pixels"] == 0, "a fresh retrofit does not see its source"
    page = Path("out/test/index.html").read_text()
    assert "other seeds" in page and page.count("<svg") == 3
    assert not re.search(r"(src|href)=.https?:|url\(.?http|@import", page), "a page needs no other file"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["images=absent"], "absent"),
        (["layout=zip", "images=."], "layout=zip is none of"),
        (["reranker=taste"], "no reranker=taste"),
        (["protocol.classifier=absent.pt"], "no classifier at absent.pt"),
        (["protocol.text_network=absent"], "holds no image-text network"),
        (["protocol.features={network: inception}"], "pt_inception-2015-12-05"),
        (["num_candidates=0"], "num_candidates"),
    ],
)
def test_a_mistake_is_one_line(settings: list[str], said: str, model: Path, capsys: pytest.CaptureFixture, monkeypatch):
    monkeypatch.setenv("STORYDALLE_WEIGHTS", "nowhere")
    Image.new("RGB", (8, 8)).save("x.png")
    assert evaluate(f"model={model}", "splits=[test]", *settings) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1 and said in err, err


def test_saved_frames_score_as_the_model_that_drew_them_beside_other_folders(
    model: Path, capsys: pytest.CaptureFixture
):
    several = ("splits=[test]", "num_stories=4", "batch_size=3")
    assert evaluate(f"model={model}", "save=saved", *several) == 0
    drawn = record_of()["values"][str(model)]
    write_true_frames(Path("truth"), 4)
    assert evaluate("images=[saved/tiny,truth]", "export=shots", *several, "out=other") == 0
    record = record_of("other")
    assert record["values"]["saved/tiny"]["error"] == pytest.approx(drawn["error"], abs=0.01), "but for 8 bits a colour"
    assert record["values"]["truth"]["error"] == 0
    differences = record["comparisons"]["truth"]
    assert differences["error"]["difference"] == pytest.approx(record["values"]["saved/tiny"]["error"])
    assert differences["error"]["p_holm"] >= differences["error"]["p_permutation"]
    assert "| saved/tiny - truth |" in capsys.readouterr().out
    assert len(list(Path("shots").glob("truth/toon-test/en/*/*/shots/shot_00.png"))) == 4


def test_the_best_of_several_candidates_is_declared_in_its_row(model: Path):
    one = ("splits=[test]", "num_stories=3")
    assert evaluate(f"model={model}", "num_candidates=3", "reranker=clip", *one) == 0
    record = record_of()
    row = f"{model} (best of 3 by clip)"
    assert record["systems"][row]["best_of"] == 3 and record["systems"][row]["chosen_by"] == "tiny-clip"
    assert evaluate(f"model={model}", *one, "out=one") == 0
    assert record["values"][row]["clip_t"] > record_of("one")["values"][str(model)]["clip_t"]
    assert record["protocol_hash"] == record_of("one")["protocol_hash"], "how a system draws is not how it is judged"


def test_a_model_that_orders_no_candidates_is_scored_by_one_and_says_so(model: Path, capsys: pytest.CaptureFixture):
    tiny_story_gan(resolution=64, num_characters=10).save_folder("gan")
    one = ("splits=[test]", "num_stories=2", "diagnose=null")
    assert evaluate("model=gan", "num_candidates=3", *one) == 0
    assert "note: gan puts its candidates in no order" in capsys.readouterr().out
    system = record_of()["systems"]["gan"]
    assert (system["best_of"], system["chosen_by"]) == (1, "first drawn")
    assert evaluate("model=gan", *one, "out=one") == 0
    assert record_of()["values"]["gan"] == record_of("one")["values"]["gan"]


def test_long_stories_have_a_score_a_frame(model: Path):
    assert evaluate(f"model={model}", "splits=[test]", "num_stories=2", "data.num_targets=7", "diagnose=null") == 0
    values = record_of()["values"][str(model)]
    assert {f"error_at_{i}" for i in range(1, 8)} <= values.keys() and "error_slope" in values
    assert record_of()["protocol"]["num_targets"] == 7


def test_the_page_shows_the_frames_that_were_scored_and_draws_again_only_those_of_a_large_evaluation(
    model: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn: list[str] = []
    draw = StoryDALLE.draw_stories

    def counted(*asked: Any, **named: Any) -> Any:
        drawn.append("a batch")
        return draw(*asked, **named)

    monkeypatch.setattr(StoryDALLE, "draw_stories", counted)
    strips = []
    for largest, num_batches in ((2**26, 1), (0, 1 + 3 + 1)):  # three strips, and the patches of one story
        monkeypatch.setattr(evaluation, "KEPT_BYTES", largest)
        drawn.clear()
        assert evaluate(f"model={model}", "splits=[test]") == 0
        assert len(drawn) == num_batches
        strips.append([path.read_bytes() for path in sorted(Path("out/test").glob("strip-*.png"))])
    assert len(strips[0]) == 3 and strips[0] == strips[1]


def test_one_story_is_scored_without_what_needs_another(model: Path, capsys: pytest.CaptureFixture):
    assert evaluate(f"model={model}", "splits=[test]", "num_stories=1") == 0
    record = record_of()
    assert {"copy_rate", "consistency", "frechet", "kernel", "r_precision"} <= set(record["not_scored"])
    assert "Left out:" in capsys.readouterr().out
    assert record["intervals"]["real frames"]["error"] == [None, None], "one story has no interval"


def test_pictures_of_other_stories_and_splits_may_lie_beside_those_that_are_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    write_true_frames(Path("frames"), 5)
    shutil.copytree("frames/toon/test", "frames/toon/unseen")
    assert evaluate("images=frames", "splits=[test]", "num_stories=2") == 0
    assert record_of()["values"]["frames"]["error"] == 0
    assert "32 pictures of stories that are not scored were ignored" in capsys.readouterr().out
    shutil.copytree("frames/toon/test", "frames/elsewhere/test")
    assert evaluate("images=frames", "splits=[test]", "num_stories=2") == 2
    assert "no story" in capsys.readouterr().err
