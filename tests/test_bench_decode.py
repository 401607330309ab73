"""bench=decode: the plain loop that our decoding is compared with draws what ours draws."""

import json
from pathlib import Path

import pytest
import torch

from storydalle.bench import decode_speed
from storydalle.bench.released_loop import released_sample
from storydalle.commands.main import main
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, retrofit
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey, Prompt, sample


def random_model(source_blocks: str = "all", story_depth: int = 1) -> RetrofittedDALLE:
    """Small, with weights that make every path matter."""
    torch.manual_seed(0)
    sizes = {"text_vocab_size": 50, "image_vocab_size": 40, "text_length": 6, "image_length": 9}
    backbone = DALLE(**sizes, dim=32, depth=3, num_heads=4)
    made = retrofit(backbone, source_blocks=source_blocks, story_depth=story_depth, source_start="random").eval()
    for parameter in made.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.5)
    return made


def prompt_of(model: RetrofittedDALLE, num_stories: int, num_frames: int, with_source: bool = True) -> Prompt:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(1, 50, (num_stories, num_frames, 6), generator=generator)
    with torch.inference_mode():
        story = model.encode_story(tokens, torch.ones(num_stories, num_frames, dtype=torch.bool))
    source = torch.randint(40, (num_stories, 1, 9), generator=generator) if with_source else None
    keys = [FrameKey(5, story, frame) for story in range(num_stories) for frame in range(num_frames)]
    return Prompt(tokens, story, source, keys)


@pytest.mark.parametrize(
    "sampling",
    [CodeSampling(temperature=0), CodeSampling(), CodeSampling(0.7, top_k=5), CodeSampling(1.3, top_k=20, top_p=0.8)],
    ids=str,
)
@pytest.mark.parametrize(("source_blocks", "story_depth"), [("all", 1), ("third", 0), ("none", 1), ("none", 0)])
def test_the_plain_loop_draws_the_same_codes(sampling: CodeSampling, source_blocks: str, story_depth: int) -> None:
    model = random_model(source_blocks, story_depth)
    prompt = prompt_of(model, num_stories=2, num_frames=3)
    codes = released_sample(model, prompt, 4, sampling)
    assert torch.equal(codes, sample(model, prompt, 4, sampling).codes)
    assert sampling.temperature == 0 or len({tuple(row) for row in codes.flatten(0, 1).tolist()}) > 12


def test_the_plain_loop_reads_source_and_story() -> None:
    model = random_model()
    prompt = prompt_of(model, 1, 2)
    codes = released_sample(model, prompt, 1, CodeSampling(temperature=0))
    assert prompt.story is not None and prompt.source is not None
    for changed in (prompt._replace(source=prompt.source.flip(-1)), prompt._replace(story=-prompt.story)):
        assert not torch.equal(codes, released_sample(model, changed, 1, CodeSampling(temperature=0)))


def test_the_table_has_both_loops_with_and_without_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decode_speed, "CASES", (decode_speed.Case("five codes", 5, 2),))
    assert main(["bench", "bench=decode", "rounds=1"]) == 0
    assert "| five codes |" in capsys.readouterr().out
    values = json.loads(Path("benched/decode/bench.json").read_text())["values"]
    assert values["share_of_equal_codes"] == {"five codes, with source": 1, "five codes, without": 1}
    for name, ratio in values["ratio"].items():
        seconds = [values["seconds_a_story"][f"{name}, {loop}"] for loop in ("released loop", "ours")]
        assert ratio == pytest.approx(seconds[0] / seconds[1])
