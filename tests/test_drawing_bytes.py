"""The memory that drawing needs is told before it starts: counted by a formula, and measured to be that."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from storydalle.bench.peak_memory import PeakMemory
from storydalle.commands.main import main
from storydalle.models.backbones.backbone import Backbone
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.drawing import StoryRequest
from storydalle.models.packing import decoding_view, exact
from storydalle.models.story_dalle import drawing_bytes, model, sampling
from storydalle.models.story_dalle.drawing_bytes import MOST_ROWS, rows_that_fit, view_bytes, wave_memory
from storydalle.models.story_dalle.drawing_plan import DrawingPlan, largest
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import retrofit
from storydalle.models.story_dalle.sampling import largest_wave
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.tokens.dvae import DVAE
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.vqgan import VQGAN
from tests.tiny import CAPTIONS, tiny_story_dalle

TEXT = 40  # columns of captions, of which few are used


def made(
    kind: str = "dalle", num_codes: int = 512, pads: bool = True, prompts: int = 0, dim: int = 128, memory: str = "none"
) -> StoryDALLE:
    """Four blocks, 64 codes a frame of 32 pixels."""
    torch.manual_seed(0)
    images = VQGAN(32, 16, (1, 2), 1, (), 16, num_codes, 4, 4, mid_attention=False, pixel_shuffle=2)
    captions = CaptionTokenizer.train(CAPTIONS, vocab_size=200, text_length=TEXT)
    sizes = {"text_length": TEXT, "image_length": 64, "dim": dim, "depth": 4, "num_heads": 4}
    if kind == "mega":
        rows = dict.fromkeys(("image_vocab_size", "num_codes", "start_code"), num_codes) | {"pad_id": captions.pad_id}
        backbone: Backbone = MegaDALLE(captions.vocab_size, glu_dim=2 * dim, **rows, **sizes)
    else:
        backbone = DALLE(captions.vocab_size, num_codes, pad_id=captions.pad_id if pads else None, **sizes)
    model = retrofit(backbone, num_prompt_tokens=prompts, memory=memory)
    return StoryDALLE(images, captions, model, {"guidance": True}).eval()


def request(
    story_dalle: StoryDALLE, num_stories: int, num_frames: int, num_candidates: int, as_pixels: bool = True, **how
) -> StoryRequest:
    chosen = story_dalle.sampling(**{"packing": "plain", "temperature": 1.0} | how)
    source = torch.zeros(num_stories, 3, story_dalle.resolution, story_dalle.resolution)
    captions = [CAPTIONS[:1] * num_frames] * num_stories
    return StoryRequest(captions, source, chosen, num_candidates, as_pixels=as_pixels)


def plan(story_dalle: StoryDALLE, asked: StoryRequest) -> DrawingPlan:
    return story_dalle.plan(asked)


@torch.inference_mode()
def measured(story_dalle: StoryDALLE, asked: StoryRequest) -> int:
    with PeakMemory([*story_dalle.parameters(), *story_dalle.buffers()]) as memory:
        story_dalle.draw_candidates(asked)
    return memory.peak


@pytest.mark.parametrize("shape", [(1, 4, 1), (1, 2, 64), (8, 4, 1), (3, 4, 4)])
@pytest.mark.parametrize(
    "sizes", [{}, {"pads": False}, {"kind": "mega"}, {"prompts": 8}, {"num_codes": 8192}], ids=lambda sizes: str(sizes)
)
def test_the_bound_is_above_what_is_measured_and_near_it(shape: tuple[int, int, int], sizes: dict[str, object]) -> None:
    story_dalle = made(**sizes)
    asked = request(story_dalle, *shape)
    assert 1 <= plan(story_dalle, asked).memory.total / measured(story_dalle, asked) < 1.2


@pytest.mark.parametrize("shape", [(1, 12, 1), (1, 4, 64), (8, 4, 1), (3, 12, 4)])
@pytest.mark.parametrize("memory", ["last", "all"])
@pytest.mark.parametrize("kind", ["dalle", "mega"])
def test_the_bound_counts_the_frames_that_are_remembered(kind: str, memory: str, shape: tuple[int, int, int]) -> None:
    story_dalle = made(kind, memory=memory)
    asked = request(story_dalle, *shape)
    assert 1 <= plan(story_dalle, asked).memory.total / measured(story_dalle, asked) < 1.2


@pytest.mark.parametrize("memory", ["last", "all"])
def test_a_long_story_takes_no_more_memory_than_its_pictures(memory: str) -> None:
    """Of 8 frames the last remembers as many as all later ones."""
    story_dalle = made(memory=memory)
    short, long = (request(story_dalle, 1, num_frames, 1) for num_frames in (10, 50))
    growth = 40 * (16 * 64 + 7 * 32**2)  # codes and pictures
    captions = plan(story_dalle, long).memory.total - plan(story_dalle, short).memory.total - growth
    assert measured(story_dalle, long) - measured(story_dalle, short) - growth <= max(captions, 0)
    sizes = [wave_memory(story_dalle.model, largest_wave(plan(story_dalle, each).whole, 1)) for each in (short, long)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("how", [{"top_k": 32}, {"top_p": 0.9}, {"temperature": 0}, {"guidance": 2.0}], ids=str)
def test_the_bound_holds_for_every_way_to_choose_codes(how: dict[str, float]) -> None:
    story_dalle = made(num_codes=8192)
    asked = request(story_dalle, 1, 4, 16, **how)
    assert 1 <= plan(story_dalle, asked).memory.total / measured(story_dalle, asked) < 1.2


def test_pictures_as_numbers_are_counted_with_the_room_they_take() -> None:
    story_dalle = made(dim=32)
    asked = request(story_dalle, 16, 4, 16, as_pixels=False)
    found = plan(story_dalle, asked).memory
    assert found.pictures == 2 * 1024 * 4 * 3 * 32**2
    assert 1 <= found.total / measured(story_dalle, asked) < 1.2


TOKENIZERS: list[Callable[[], ImageTokenizer]] = [
    lambda: VQGAN(64, 16, (1, 1, 2, 2), 2, (8,), 16, 64, 8, 4),
    lambda: VQGAN(64, 16, (1, 2, 4), 1, (16,), 16, 64, 8, 4),
    lambda: VQGAN(64, 16, (1, 1, 3), 1, (), 16, 64, 8, 4, mid_attention=False, pixel_shuffle=4),
    lambda: VQGAN(64, 16, (1, 1), 1, (64,), 16, 64, 8, 4),
    lambda: DVAE(resolution=64, hidden=16, num_groups=3, blocks_per_group=2, codebook_size=64, embed_dim=16),
    lambda: DVAE(64, 16, 3, 1, 64, 16, pixel_shuffle=2),
    lambda: DVAE(64, 64, 2, 1, 64, 16, pixel_shuffle=4),
]


@pytest.mark.parametrize("make", TOKENIZERS)
@torch.inference_mode()
def test_a_picture_is_decoded_with_the_bytes_that_its_tokenizer_says(make: Callable[[], ImageTokenizer]) -> None:
    images = make().eval()
    codes = torch.zeros(2, images.num_codes, dtype=torch.long)
    with PeakMemory([*images.parameters(), *images.buffers()]) as memory:
        start = memory.now
        images.decode(codes)
    assert 0.98 < 2 * images.picture_bytes / (memory.peak - start) < 1.2


def test_candidates_beyond_a_wave_cost_codes_and_pictures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing_bytes, "MOST_ROWS", 32)
    story_dalle = made()
    wave, twice = (request(story_dalle, 1, 1, number) for number in (32, 64))
    growth = 32 * (16 * 64 + 7 * 32**2)
    assert measured(story_dalle, twice) - measured(story_dalle, wave) <= growth
    assert plan(story_dalle, twice).memory.total - plan(story_dalle, wave).memory.total <= growth


def test_memory_does_not_grow_over_waves() -> None:
    story_dalle = made()
    asked, peaks = request(story_dalle, 1, 2, 4), []
    for number in (1, 2, 8):
        with torch.inference_mode(), PeakMemory([*story_dalle.parameters(), *story_dalle.buffers()]) as memory:
            for _ in range(number):
                story_dalle.draw_candidates(asked)
        peaks.append(memory.peak)
    assert len(set(peaks)) == 1


# ------------------------------------------------------------------------------------------------ packed copies


@pytest.mark.parametrize("is_half", [False, True])
def test_packed_copies_are_those_that_packing_makes(is_half: bool) -> None:
    """In the bytes that each packing keeps of a weight; joined layers are copied even where they are not packed."""
    story_dalle = made(dim=320)
    if is_half:
        for parameter in story_dalle.parameters():
            parameter.data = parameter.data.half().float()
    network, kept = story_dalle.model, {"plain": 0, "fp16": 2, "onednn": 4}
    layers = [layer for block in network.backbone.blocks for layer in (block.attn.proj, block.mlp[0], block.mlp[2])]
    layers += [network.backbone.head_img]
    layers += [layer for each in network.source_attention.values() for layer in (each.query, each.proj)]
    expected = sum(kept[exact(layer.weight)] * layer.weight.numel() for layer in layers)
    fused = decoding_view(network).backbone.blocks[0].attn.fused.layer.weight
    joined = {"plain": 4}.get(exact(fused), kept[exact(fused)]) * fused.numel()
    encoder_joined = 4 * fused.numel()  # of the story encoder's block, which a step does not call
    all_joined = (len(network.backbone.blocks) + 1) * 4 * fused.numel()
    expected += len(network.backbone.blocks) * joined + encoder_joined
    assert view_bytes(network, "exact") == max(expected, all_joined)
    assert view_bytes(network, "plain") == all_joined


# ------------------------------------------------------------------------------------------------ what fits


def test_a_wave_takes_at_most_half_of_what_is_free_unless_it_is_of_one_row() -> None:
    assert rows_that_fit(lambda rows: 10 * rows, free=10**6) == MOST_ROWS
    assert rows_that_fit(lambda rows: 10 * rows, free=20 * MOST_ROWS - 1) == MOST_ROWS // 2
    assert rows_that_fit(lambda rows: 10 * rows, free=70) == 2
    assert rows_that_fit(lambda rows: 10 * rows, free=10) == 1


@pytest.mark.parametrize("most", [0, 1, 7])
def test_the_largest_that_fits_is_found(most: int) -> None:
    assert largest(lambda number: number <= most, 9) == most


def free(monkeypatch: pytest.MonkeyPatch, number: float) -> None:
    for module in (model, sampling):
        monkeypatch.setattr(module, "free_on", lambda _: int(number))


def test_with_less_memory_waves_are_smaller_and_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    story_dalle = made()
    asked, heard = request(story_dalle, 1, 2, 64), []
    whole = story_dalle.draw_candidates(asked).frames
    free(monkeypatch, 15e6)
    small = story_dalle.draw_candidates(asked._replace(announce=heard.append)).frames
    assert "in waves of at most 16 frames" in heard[0] and "15 MB are free" in heard[0]
    assert (whole != small).float().mean() < 0.01
    assert measured(story_dalle, asked) <= plan(story_dalle, asked).memory.total


def test_a_request_that_cannot_fit_is_refused_with_the_largest_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    story_dalle = made()
    free(monkeypatch, 12e6)
    asked = request(story_dalle, 1, 2, 512)
    with pytest.raises(ValueError, match=r"drawing 1024 frames needs at most .* and 12 MB are free") as refused:
        story_dalle.draw_candidates(asked)
    said = str(refused.value)
    most = int(said.split("num_candidates=")[1].split()[0])
    assert 1 < most < 512
    found = plan(story_dalle, asked._replace(num_candidates=most)).memory
    assert found.total - found.weights <= 12e6
    with pytest.raises(ValueError, match=f"num_candidates={most} is the most that fits"):
        plan(story_dalle, asked._replace(num_candidates=most + 1))


def test_where_not_even_one_frame_fits_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 1000)
    with pytest.raises(ValueError, match="not even one frame fits, close other programs"):
        plan(made(), request(made(), 1, 2, 4))


def test_too_many_captions_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    story_dalle = made(dim=32)
    asked = request(story_dalle, 1, 50, 2)
    least = plan(story_dalle, asked._replace(captions=[CAPTIONS[:1] * 10], num_candidates=1)).memory
    free(monkeypatch, least.total - least.weights)
    with pytest.raises(ValueError, match=r"with num_candidates=1, 1\d captions a story are the most that fit"):
        plan(story_dalle, asked)


def test_generate_tells_the_bound_first_and_refuses_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_story_dalle().save_folder("tiny")
    asked = ["generate", "model=tiny", 'captions=["Pip waves."]', "num_candidates=260"]
    assert main([*asked, "out=drawn"]) == 0
    said = capfd.readouterr().out.splitlines()
    assert said[0].startswith("drawing needs at most ") and "in waves of at most 256 frames" in said[0]
    free(monkeypatch, 1000)
    assert main([*asked, "out=refused"]) == 2
    error = capfd.readouterr().err
    assert "not even one frame fits" in error and "Traceback" not in error
    assert not Path("refused").exists()
