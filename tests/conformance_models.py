"""Checks that every model of stories passes: ``PretrainedModel`` says what it promises, these hold it to that.

A check takes a factory of a small model that is ready to draw; ``tests/conformance.py`` says how to use them.
"""

import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from storydalle.models.drawing import Sampling
from storydalle.models.pretrained import PretrainedModel
from storydalle.stories.images import from_images

MakeModel = Callable[[], PretrainedModel]
CAPTIONS = ["a red square on the left", "a blue square on the right", "a green square on the left"]
OTHERS = ["a green red on the right", "a red square on the right", "a blue blue on the left"]


def picture(seed: int = 0, size: tuple[int, int] = (40, 40)) -> Image.Image:
    """Blocks of random colours: what an image tokenizer of a few codes can tell apart."""
    blocks = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize(size, Image.Resampling.NEAREST)


def pixels(images: list[Image.Image]) -> list[bytes]:
    return [image.tobytes() for image in images]


def made_by(make: MakeModel) -> PretrainedModel:
    torch.manual_seed(0)
    model = make()
    assert not model.training, "a model that is handed out is ready to draw"
    return model


def stories_are_as_long_as_their_captions_and_of_the_models_size(make: MakeModel) -> None:
    model = made_by(make)
    for num_captions in (1, 2, 7, 50):
        drawn = model.generate((CAPTIONS * 17)[:num_captions], picture(), num_candidates=2)
        assert [image.size for image in drawn.frames] == [(model.resolution, model.resolution)] * num_captions
        assert [len(row) for row in drawn.candidates] == [2] * num_captions
        assert drawn.scores.shape == (num_captions, 2)


def the_best_candidate_is_the_frame_and_candidates_differ(make: MakeModel) -> None:
    drawn = made_by(make).generate(CAPTIONS, picture(), num_candidates=4)
    assert torch.equal(drawn.scores, drawn.scores.sort(1, descending=True).values)
    assert drawn.scores.std(1).min() > 0
    assert all(frame is row[0] for frame, row in zip(drawn.frames, drawn.candidates, strict=True))
    assert all(len(set(pixels(row))) > 1 for row in drawn.candidates)


def a_reranker_decides_the_order_instead(make: MakeModel) -> None:
    seen = []

    def darkest(images: list[Image.Image], caption: str) -> list[int]:
        seen.append(caption)
        return [-sum(image.convert("L").tobytes()) for image in images]

    drawn = made_by(make).generate(CAPTIONS, picture(), num_candidates=4, reranker=darkest)
    assert seen == CAPTIONS
    for row in drawn.candidates:
        brightness = [sum(image.convert("L").tobytes()) for image in row]
        assert brightness == sorted(brightness) and len(set(brightness)) > 1


def the_same_seed_draws_the_same_bytes_and_another_does_not(make: MakeModel) -> None:
    """Drawing neither reads nor moves the global generator."""
    model, draws = made_by(make), []
    for state, seed in ((1, 3), (2, 3), (2, 4)):
        torch.manual_seed(state)
        before = torch.random.get_rng_state()
        draws.append(pixels(model.generate(CAPTIONS, picture(), seed=seed).frames))
        assert torch.equal(torch.random.get_rng_state(), before)
    assert draws[0] == draws[1] != draws[2]


def a_candidate_is_the_same_however_many_are_drawn(make: MakeModel) -> None:
    model = made_by(make)
    one, many = (model.generate(CAPTIONS, picture(), num_candidates=number) for number in (1, 3))
    for frame, row in zip(one.frames, many.candidates, strict=True):
        levels = [np.abs(np.asarray(frame, dtype=int) - np.asarray(each, dtype=int)).max() for each in row]
        assert min(levels) <= 1, "the same picture, but for what a larger batch rounds otherwise"


def source_and_captions_both_change_the_first_and_the_last_frame(make: MakeModel) -> None:
    model = made_by(make)
    base = pixels(model.generate(CAPTIONS, picture()).frames)
    for captions, source in ((CAPTIONS, picture(1)), (OTHERS, picture())):
        changed = pixels(model.generate(captions, source).frames)
        assert changed[0] != base[0] and changed[-1] != base[-1]


@torch.no_grad()
def a_story_is_the_same_whatever_stands_beside_it(make: MakeModel) -> None:
    """Stories of other lengths force padding on it; its number, and not its place in the batch, keys its draws."""
    model = made_by(make)
    stories = [CAPTIONS, CAPTIONS[:2], [*OTHERS, CAPTIONS[0]]]
    source = from_images([picture(seed) for seed in range(3)], model.resolution)
    together = model.draw_stories(stories, source, seed=5, first=10, num_candidates=2)
    assert together.shape == (3, 4, 2, 3, model.resolution, model.resolution)
    assert together[0, :3].abs().max() <= 1.1, "pictures lie in [-1, 1], but for what rounding takes back"
    for i, captions in enumerate(stories):
        alone = model.draw_stories([captions], source[i : i + 1], seed=5, first=10 + i, num_candidates=2)
        torch.testing.assert_close(together[i : i + 1, : len(captions)], alone, atol=1e-5, rtol=1e-4)
    moved = model.draw_stories([stories[1]], source[1:2], seed=5, first=10, num_candidates=2)
    assert not torch.allclose(together[1:2, :2], moved, atol=1e-4)


def generate_draws_what_draw_stories_draws(make: MakeModel) -> None:
    model = made_by(make)
    source = from_images([picture()], model.resolution)
    frames = model.draw_stories([CAPTIONS], source, seed=2)[0, :, 0]
    shown = from_images(model.generate(CAPTIONS, picture(), seed=2).frames, model.resolution)
    torch.testing.assert_close(frames.cpu().clamp(-1, 1), shown, atol=0.51 / 127.5, rtol=0)


def a_saved_model_draws_the_same_bytes(make: MakeModel) -> None:
    model = made_by(make).half().float()  # weights are stored in half precision
    model.card |= {"num_steps": 3, "license": "mit"}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "model")
        opened = type(model).from_pretrained(Path(folder) / "model")
    assert not opened.training and opened.card == model.card
    assert all(torch.equal(value, opened.state_dict()[name]) for name, value in model.state_dict().items())
    first, second = (each.generate(CAPTIONS, picture(), num_candidates=2) for each in (model, opened))
    assert pixels(first.frames) == pixels(second.frames) and torch.equal(first.scores, second.scores)


def sampling_is_taken_whole_by_name_and_from_the_card(make: MakeModel) -> None:
    model = made_by(make)
    sampling = model.sampling()
    assert sampling == type(sampling)(**vars(sampling)) == model.sampling(sampling)
    by_card, whole = (model.generate(CAPTIONS, picture(), sampling=given) for given in (None, sampling))
    assert pixels(by_card.frames) == pixels(whole.frames)
    model.card["sampling"] = vars(sampling)
    assert model.sampling() == sampling
    with pytest.raises(ValueError, match=f"{type(model).__name__} takes a {type(sampling).__name__}"):
        model.generate(CAPTIONS, picture(), sampling=Sampling())
    with pytest.raises(ValueError, match="temperature=-1"):
        model.generate(CAPTIONS, picture(), temperature=-1)


def progress_rises_to_its_end(make: MakeModel) -> None:
    told: list[tuple[int, int]] = []
    made_by(make).generate(CAPTIONS, picture(), num_candidates=3, progress=lambda *place: told.append(place))
    assert told and told[-1][0] == told[-1][1] and len({total for _, total in told}) == 1
    assert all(later[0] > earlier[0] for earlier, later in pairwise(told))


def a_crop_is_said_and_a_missing_source_is_refused_or_led(make: MakeModel) -> None:
    model = made_by(make)
    notes = model.generate(CAPTIONS, picture(size=(60, 40))).notes
    assert any("60x40 to its centre 40x40" in note for note in notes)
    assert not any("centre" in note for note in model.generate(CAPTIONS, picture()).notes)
    if model.needs_source:
        with pytest.raises(ValueError, match="give a source"):
            model.generate(CAPTIONS)
    else:
        drawn = model.generate(CAPTIONS, None, num_candidates=2)
        assert len(drawn.frames) == len(CAPTIONS) and any("no source" in note for note in drawn.notes)
        assert len(model.generate(CAPTIONS[:1], None).frames) == 1


def no_captions_and_wild_numbers_are_refused_by_name(make: MakeModel) -> None:
    model = made_by(make)
    with pytest.raises(ValueError, match="at least one caption"):
        model.generate([], picture())
    with pytest.raises(ValueError, match="seed=-1"):
        model.generate(CAPTIONS, picture(), seed=-1)
    with pytest.raises(ValueError, match="num_candidates=0"):
        model.generate(CAPTIONS, picture(), num_candidates=0)


MODEL_CHECKS = (
    stories_are_as_long_as_their_captions_and_of_the_models_size,
    the_best_candidate_is_the_frame_and_candidates_differ,
    a_reranker_decides_the_order_instead,
    the_same_seed_draws_the_same_bytes_and_another_does_not,
    a_candidate_is_the_same_however_many_are_drawn,
    source_and_captions_both_change_the_first_and_the_last_frame,
    a_story_is_the_same_whatever_stands_beside_it,
    generate_draws_what_draw_stories_draws,
    a_saved_model_draws_the_same_bytes,
    sampling_is_taken_whole_by_name_and_from_the_card,
    progress_rises_to_its_end,
    a_crop_is_said_and_a_missing_source_is_refused_or_led,
    no_captions_and_wild_numbers_are_refused_by_name,
)
