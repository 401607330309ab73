"""bench=decode: the plain loop that our decoding is compared with draws what ours draws."""

import json
from pathlib import Path

import pytest
import torch

from storydalle.bench import cases, decode_floors, decode_speed, hugging_face, random_models
from storydalle.bench.floors import MULTIPLYING, READING
from storydalle.bench.released_loop import released_sample
from storydalle.bench.shapes import NetworkSizes
from storydalle.commands.main import main
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, retrofit
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey, Prompt, sample


def random_model(source_blocks: str = "all", story_depth: int = 1, pad_id: int | None = None) -> RetrofittedDALLE:
    """Small, with weights that make every path matter."""
    torch.manual_seed(0)
    sizes = {"text_vocab_size": 50, "image_vocab_size": 40, "text_length": 6, "image_length": 9}
    backbone = DALLE(**sizes, dim=32, depth=3, num_heads=4, pad_id=pad_id)
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


def test_the_plain_loop_computes_padding_and_does_not_see_it() -> None:
    model = random_model(pad_id=0)
    prompt = prompt_of(model, num_stories=2, num_frames=3)
    prompt.tokens[0, 0, 2:] = prompt.tokens[0, 1, 4:] = prompt.tokens[1, 2, :5] = 0
    with torch.inference_mode():
        story = model.encode_story(prompt.tokens, torch.ones(2, 3, dtype=torch.bool))
    prompt = prompt._replace(story=story)
    sampling = CodeSampling(top_k=20, top_p=0.9)
    codes = released_sample(model, prompt, 3, sampling)
    assert torch.equal(codes, sample(model, prompt, 3, sampling).codes)
    model.backbone.pad_id = None
    assert not torch.equal(codes, released_sample(model, prompt, 3, sampling))


def test_the_plain_loop_reads_source_and_story() -> None:
    model = random_model()
    prompt = prompt_of(model, 1, 2)
    codes = released_sample(model, prompt, 1, CodeSampling(temperature=0))
    assert prompt.story is not None and prompt.source is not None
    for changed in (prompt._replace(source=prompt.source.flip(-1)), prompt._replace(story=-prompt.story)):
        assert not torch.equal(codes, released_sample(model, changed, 1, CodeSampling(temperature=0)))


TINY = (
    *("bench=decode", "rounds=2", "decode.network.dim=32", "decode.network.num_heads=4", "decode.network.depth=2"),
    *("decode.drawings=[{image_length: 5, num_candidates: 2}]", "large.network.dim=32", "large.network.num_heads=4"),
    *("large.network.depth=3", "large.network.text_vocab_size=60", "large.network.image_vocab_size=70"),
    *("large.num_steps=4", "large.source_length=7"),
)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict]:
    """The output of a small bench=decode, and its record."""
    monkeypatch.chdir(tmp_path)
    assert main(["bench", *TINY, "out=out"]) == 0
    return capsys.readouterr().out, json.loads(Path("out/metrics.json").read_text())


def test_the_table_has_both_loops_and_the_floor_with_and_without_the_source(bench: tuple[str, dict]) -> None:
    printed, record = bench
    rows = record["rows"]["decode"]
    cases = dict.fromkeys(row["case"] for row in rows)
    kinds = ("0.22 M, 5 codes, best of 2", "0.049 M (3 blocks), a step of 4 rows")
    assert list(cases) == [f"{kind}, {source}" for kind in kinds for source in ("with source", "without")]
    for case in cases:
        of_case = {row["variant"]: row for row in rows if row["case"] == case and "/s" not in row["unit"]}
        assert list(of_case)[:2] == ["released loop", "ours"] and list(of_case)[-1] == "floor in fp32"
        assert of_case["ours"]["agreement"] == 1, "all codes are equal"
        seconds = {name: row["timing"]["median"] for name, row in of_case.items()}
        for name, row in of_case.items():
            assert row["ratio"] == pytest.approx(seconds["released loop"] / seconds[name])
        assert of_case["ours"]["floor"] == pytest.approx(seconds["floor in fp32"])
        assert of_case["ours, plain"]["own_floor"] >= of_case["ours"]["floor"] > 0
        assert f"| {case} | released loop |" in printed
        assert "M (" not in case or of_case["ours"]["timing"]["number"] == 2, "steps of one draw, but the first two"
    assert "| 100.0 % |" in printed


@pytest.mark.skipif(not hugging_face.is_there(), reason="needs the extra text")
def test_transformers_draws_as_many_codes_beside_ours_with_either_cache(bench: tuple[str, dict]) -> None:
    rows = bench[1]["rows"]["decode"]
    case = "0.22 M, 5 codes, best of 2, without"
    seconds = {row["variant"]: row["timing"]["median"] for row in rows if row["case"] == case}
    both = [seconds[f"transformers.generate, {cache} cache"] for cache in ("dynamic", "static")]
    ratios = bench[1]["values"]["decode"]["times_as_fast_as_generate"]
    assert ratios == {case: pytest.approx(min(both) / seconds["ours"])}
    generating = hugging_face.generating(NetworkSizes(32, 2, 4, 50, 40, 6, "all"), 9, 8, CodeSampling(top_k=5), 0)
    assert [generate().shape for generate in generating.values()] == [(8, 9)] * 2


def test_without_transformers_a_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hugging_face, "find_spec", lambda _: None)
    assert main(["bench", *TINY, "rounds=1"]) == 0
    assert 'pip install "storydalle[text]"' in capsys.readouterr().out


def test_a_model_that_does_not_fit_the_memory_is_left_out_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(decode_speed, "free_bytes", lambda: 1000)
    assert main(["bench", *TINY, "rounds=1"]) == 0
    out = capsys.readouterr().out
    assert "3 blocks of width 32 are not measured: they need 1 MB of memory, and 0 MB are free" in out
    assert "a step of" not in out


def test_each_way_of_ours_has_a_row_with_its_agreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    other = decode_speed.Way(CodeSampling(temperature=0, packing="fp16"), 2.0)
    ways = {"ours": decode_speed.Way(decode_speed.SAMPLING, 4.0), "other": other}
    monkeypatch.setattr(decode_speed, "ways", lambda model: ways)
    rates = {READING: lambda: [1e9], MULTIPLYING: lambda: [1e15]}  # on every machine, reading takes the longer time
    monkeypatch.setattr(cases, "rate_measures", lambda num_bytes: rates)
    assert main(["bench", *TINY, "rounds=1", "out=out"]) == 0
    rows = json.loads(Path("out/metrics.json").read_text())["rows"]["decode"]
    ours, other = ([row for row in rows if row["variant"] == name] for name in ("ours", "other"))
    assert [row["agreement"] for row in ours] == [1] * 4
    assert all(row["agreement"] < 0.5 for row in other), "the likeliest code is seldom the drawn one"
    floors = [(theirs["own_floor"], own["own_floor"]) for theirs, own in zip(other, ours, strict=True)]
    assert all(theirs <= own for theirs, own in floors)
    assert floors[2][0] < floors[2][1], "a step reads half as many bytes of weights"


def test_floors_count_what_has_to_be_read_and_multiplied() -> None:
    model = random_models.random_model(NetworkSizes(32, 2, 4, 50, 40, 6, "all"), 9, seed=0)
    prompt = random_models.random_prompt(model, 3, seed=0, source_length=18)
    blocks = 2 * (12 * 32**2 + 13 * 32)
    without, attending = blocks + 40 * 32, 2 * 2 * 32**2  # a head; queries and outputs of two blocks
    for given, weights in ((prompt, without + attending), (prompt._replace(source=None), without)):
        assert decode_floors.weights_a_step(model, given) == weights
        assert decode_floors.step_floor(model, given, 2) == (4 * weights, 2 * weights * 6)
        # The prompts of three frames, and eight more codes of each of the six rows.
        assert decode_floors.story_floor(model, given, 2) == (9 * 4 * weights, 2 * weights * (3 * 6 + 6 * 8))
        columns = 3 * (1 + 6) + 6 * 4.5  # the prompts of three frames, and half of the codes of six rows
        cache = columns * 2 * 2 * 32 * 4  # keys and values of 2 blocks
        source = 0 if given.source is None else 18 * 2 * 2 * 32 * 4
        assert decode_floors.step_floor(model, given, 2, 2.0).num_bytes == pytest.approx(2 * weights + cache + source)


def test_weights_are_numbers_of_half_precision() -> None:
    network = NetworkSizes(32, 1, 4, 50, 40, 6, "all")
    model = random_models.random_model(network, 9, seed=0)
    assert all(torch.equal(weight, weight.half().float()) for weight in model.parameters())
    assert all(weight.std() > 0 for weight in model.parameters() if weight.dim() > 1)
    assert (
        sum(weight.numel() for weight in model.parameters()) - random_models.num_weights(network)
        == 9 * 32 - (256 + 64 - 6) * 32
    ), "but for the positions, which a default has more of"


def test_no_two_rows_of_a_large_table_are_the_same() -> None:
    pool = torch.arange(random_models.POOL)
    first = random_models.taken(pool, 5, 20_000 * 1536).view(-1, 1536)[:, 0]
    assert len(first.unique()) == len(first)
