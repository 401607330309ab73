"""bench=decode: the plain loop that our decoding is compared with draws what ours draws."""

import json
from pathlib import Path

import pytest
import torch

from storydalle.bench import decode_speed
from storydalle.bench.released_loop import released_sample
from storydalle.bench.shapes import Network
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


TINY = (
    *("bench=decode", "rounds=2", "decode.network.dim=32", "decode.network.num_heads=4", "decode.network.depth=2"),
    *("decode.drawings=[{image_length: 5, num_candidates: 2}]",),
)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict]:
    """What a small bench=decode prints, and what it records."""
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *TINY, "out=out"]) == 0
    return capsys.readouterr().out, json.loads(Path("out/metrics.json").read_text())


def test_the_table_has_both_loops_and_the_floor_with_and_without_the_source(bench: tuple[str, dict]) -> None:
    printed, record = bench
    rows = record["rows"]["decode"]
    cases = {row["case"] for row in rows}
    assert cases == {f"0.22 M, 5 codes, best of 2, {source}" for source in ("with source", "without")}
    for case in cases:
        of_case = {row["variant"]: row for row in rows if row["case"] == case}
        assert list(of_case)[:3] == ["released loop", "ours", "floor in fp32"]
        assert of_case["ours"]["agreement"] == 1, "all codes are equal"
        seconds = {name: row["timing"]["median"] for name, row in of_case.items()}
        for name, row in list(of_case.items())[:3]:
            assert row["ratio"] == pytest.approx(seconds["released loop"] / seconds[name])
        assert of_case["ours"]["floor"] == pytest.approx(seconds["floor in fp32"])
        assert of_case["ours"]["own_floor"] >= of_case["ours"]["floor"] > 0
        assert f"| {case} | released loop |" in printed
    assert "| 100.0 % |" in printed


def test_weights_are_numbers_of_half_precision() -> None:
    network = Network(32, 1, 4, 50, 40, 6, "all")
    model = decode_speed.random_model(network, 9, has_source=True, seed=0)
    assert all(torch.equal(weight, weight.half().float()) for weight in model.parameters())
