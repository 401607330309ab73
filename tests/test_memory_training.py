"""A StoryDALL-E with memory as a whole: it trains, is opened and continued, draws, and is probed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from storydalle import StoryDALLE
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey
from storydalle.training.building import story_dalle as built
from storydalle.training.own_draws import own_draws
from storydalle.training.probes import OtherStories, probe_paths
from storydalle.training.story_dalle_training import StoryDALLETraining
from tests.test_story_dalle import CAPTIONS, awake, picture, pixels
from tests.tiny import FRAMES, TinyData, felt, tiny_batch, tiny_story_dalle, trainer

memories = pytest.mark.parametrize("memory", ["last", "all"])


# ------------------------------------------------------------------------------------------------ training


@memories
def test_positions_of_remembered_frames_train_and_are_saved(memory: str, tmp_path: Path) -> None:
    made = tiny_story_dalle(memory=memory)
    before = {name: value.detach().clone() for name, value in made.named_parameters()}
    system = StoryDALLETraining(made, max_steps=3, warmup_steps=1, memory_noise=0.5)
    trainer(tmp_path, 3).fit(system, TinyData(made))
    moved = {name for name, value in made.named_parameters() if not torch.equal(value, before[name])}
    assert felt(name for name in before if name.startswith("model.")) <= moved
    positions = {name for name in moved if name.endswith(".positions")}
    assert len(positions) == len(made.model.source_attention)
    used = FRAMES - 1  # a story of three frames has none from longer ago
    for name in positions:
        assert made.get_parameter(name)[:used].abs().sum(1).all() and not made.get_parameter(name)[used:].any()
    made.save_pretrained(tmp_path / "x")
    again = StoryDALLE.from_pretrained(tmp_path / "x")
    assert again.model.config["memory"] == memory
    for name in positions:
        torch.testing.assert_close(again.get_parameter(name), made.get_parameter(name), atol=1e-3, rtol=1e-3)


def with_memory(**options: Any) -> StoryDALLETraining:
    return StoryDALLETraining(awake(memory="all"), **options)


def test_the_frames_that_are_remembered_are_the_models_own_in_a_share_of_steps() -> None:
    system = with_memory(memory_noise=0.3)
    batch = tiny_batch(system.story_dalle, [0, 1])
    story = system.model.encode_story(batch.tokens, batch.mask)
    found = [system.remembered(batch, story, 0) for _ in range(2)]
    assert all(each is None for each in found) or torch.equal(*found), "a function of the step"
    drawn = 0
    for step in range(200):
        system._number_of = lambda _, step=step: step  # type: ignore[method-assign, misc]
        drawn += system.remembered(batch, story) is not None
    assert 35 < drawn < 85
    assert with_memory().remembered(batch, story) is None


def test_own_draws_are_what_the_model_predicts_after_the_true_codes() -> None:
    system = with_memory()
    model, batch = system.model, tiny_batch(system.story_dalle, [0, 1])
    story = model.encode_story(batch.tokens, batch.mask)
    greedy = own_draws(model, batch, story, CodeSampling(temperature=0), [1, 2])
    logits = model(batch.tokens, batch.codes, batch.source[:, None], batch.mask, story).image
    assert torch.equal(greedy.flatten(0, 1), logits.argmax(-1)) and not torch.equal(greedy, batch.codes)
    both = own_draws(model, batch, story, CodeSampling(), [1, 2])
    alone = tiny_batch(system.story_dalle, [1])
    assert torch.equal(both[1:], own_draws(model, alone, story[1:], CodeSampling(), [2])), "a story's own draws"
    assert not torch.equal(both, own_draws(model, batch, story, CodeSampling(), [3, 4]))


def test_the_loss_is_of_the_true_frames_whatever_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    system = with_memory(memory_noise=1.0, bag_weight=0.0)
    batch = tiny_batch(system.story_dalle, [0, 1])
    remembered = system.remembered(batch, system.model.encode_story(batch.tokens, batch.mask))
    logits = system.model(batch.tokens, batch.codes, batch.source[:, None], batch.mask, remembered=remembered)
    expected = system.losses(logits, batch).total(system.text_weight)
    monkeypatch.setattr(system, "log_dict", lambda *_, **__: None)
    assert system.training_step(batch, 0).item() == pytest.approx(expected.item(), rel=1e-5)
    system.memory_noise = 0.0
    assert system.training_step(batch, 0).item() != pytest.approx(expected.item(), rel=1e-4)


def test_noise_without_memory_is_refused() -> None:
    with pytest.raises(ValueError, match=r"memory_noise=0\.1 needs a memory"):
        StoryDALLETraining(tiny_story_dalle(), memory_noise=0.1)


# ------------------------------------------------------------------------------------------------ warm start


def continued(tmp_path: Path, base: StoryDALLE, **retrofit: Any) -> StoryDALLE:
    base.save_folder(tmp_path / "base", dtype=torch.float32)
    return built(str(tmp_path / "base"), "runs", {"source_blocks": "all", **retrofit})


@memories
def test_weights_without_memory_open_into_a_model_with_it(
    memory: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = awake()
    made = continued(tmp_path, base, memory=memory)
    assert "with its retrofit" in (said := capsys.readouterr().out)
    assert "new, and zero, are source_attention.*.positions from row 0 on" in said
    weights = made.model.state_dict()
    fresh = {name for name in weights if name.endswith(".positions")}
    assert weights.keys() - base.model.state_dict().keys() == fresh
    assert all(torch.equal(value, weights[name]) for name, value in base.model.state_dict().items())
    assert not any(weights[name].any() for name in fresh)
    alone = {"captions": CAPTIONS[:1], "source": picture(), "temperature": 0}
    assert pixels(made.generate(**alone).frames) == pixels(base.generate(**alone).frames)


def test_a_memory_grows_and_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = awake(memory="last")
    for attention in base.model.source_attention.values():
        torch.nn.init.normal_(attention.positions)
    grown = continued(tmp_path, base, memory="all", memory_frames=3)
    assert "positions from row 1 on" in capsys.readouterr().out
    for name, attention in grown.model.source_attention.items():
        own = base.model.source_attention[name].positions
        assert torch.equal(attention.positions[:1], own) and attention.positions.shape == (3, own.shape[1])
        assert not attention.positions[1:].any()
    continued(tmp_path, base, memory="last")
    assert "new, and zero" not in capsys.readouterr().out
    plain = continued(tmp_path, base)
    assert "its memory is left out" in capsys.readouterr().out
    assert plain.model.state_dict().keys() == tiny_story_dalle().model.state_dict().keys()


def test_a_reach_is_added_to_a_trained_story_encoder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = awake()
    base.card["story_window"] = 2
    made = continued(tmp_path, base, story_reach=3, memory="last")
    assert "positions from row 0 on; new: story_encoder.distances" in capsys.readouterr().out
    assert all(torch.equal(value, made.model.state_dict()[name]) for name, value in base.model.state_dict().items())
    back = continued(tmp_path, made)
    assert back.model.state_dict().keys() == base.model.state_dict().keys()
    tokens = made.caption_tokenizer.encode(CAPTIONS).tokens[None]
    mask = torch.ones(1, 3, dtype=torch.bool)
    torch.testing.assert_close(made._encode_story(tokens), made.model.encode_story(tokens, mask))  # without a window


# ------------------------------------------------------------------------------------------------ drawing and probes


def test_the_first_frame_leads_where_there_is_no_source_and_a_memory_begins_after_it() -> None:
    made = awake(memory="last")
    tokens = made.caption_tokenizer.encode(CAPTIONS).tokens[None]
    keys = [FrameKey(0, 0, frame) for frame in range(3)]
    drawn = made.generate(CAPTIONS, num_candidates=3)
    first = made.draw(tokens, None, keys[:1], 3, frames=slice(0, 1))
    source = first.codes[0, first.log_likelihood[0].argmax()][None]
    rest = made.draw(tokens, source, keys[1:], 3, frames=slice(1, None), before=source[:, None][:, :0])
    expected = torch.cat([first.log_likelihood, rest.log_likelihood]).sort(1, descending=True).values
    torch.testing.assert_close(drawn.scores, expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="draws frame 2 from the frames before it"):
        made.draw(tokens, source, keys[1:], 3, frames=slice(1, None))


@pytest.mark.parametrize("has_source", [True, False])
def test_a_reranker_chooses_what_the_next_frame_remembers_and_is_asked_once(has_source: bool) -> None:
    made, asked = awake(memory="last"), list[str]()

    def reranker(images: list[Image.Image], caption: str) -> list[int]:
        asked.append(caption)
        return [0, 0, 1, 0]

    def drawn(**how: Any) -> list[list[bytes]]:
        found = made.generate(CAPTIONS, picture() if has_source else None, num_candidates=4, seed=3, **how)
        return [pixels(row) for row in found.candidates]

    own, chosen = drawn(), drawn(reranker=reranker)
    assert asked == CAPTIONS
    assert sorted(own[0]) == sorted(chosen[0]), "the candidates of the first frame are the same"
    assert chosen[0][0] == own[0][2]
    assert sorted(own[2]) != sorted(chosen[2]), "those of the last remember another frame"


@memories
def test_a_probe_tells_if_remembered_frames_are_read(memory: str) -> None:
    made = awake(memory=memory)
    batch = tiny_batch(made, [0, 1, 2])
    batch.mask[1, 1:] = False
    others = OtherStories.before(batch, OtherStories.last_of(batch))
    found = probe_paths(made.model, batch, {"mood": ("mood", 1)}, {}, others)
    assert found["probe_memory"].mean.abs() > 0.01 and found["probe_memory_mood"].num_frames == 4 - 1
    # Story 0 comes after a story of three frames, and story 2 after one of a single frame: frame 1 alone has its like.
    assert found["probe_memory"].num_frames == (FRAMES - 1) + 0 + 1
    with torch.no_grad():
        for attention in made.model.source_attention.values():
            attention.proj.weight.zero_()
    assert probe_paths(made.model, batch, {}, {}, others)["probe_memory"].mean.abs() < 1e-5
    assert "probe_memory" not in probe_paths(awake().model, batch, {}, {}, others)
