"""Encoded stories on disk: the same as encoding at once, kept when nothing changed, made again when something did."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storydalle.stories.images import to_tensor
from storydalle.tokens.cache import HEADER, CachedStories, FrameEncoder, StoryCodes, encode_stories, write_encoded
from storydalle.tokens.vqgan import VQGAN
from tests.tiny import FRAMES, GRID, tiny_stories, tiny_story_dalle


def data(folder: Path, num_stories: int = 7, seed: int = 0, **options: Any) -> StoryCodes:
    made = tiny_story_dalle(seed)
    train, val = tiny_stories(num_stories), tiny_stories(3, seed=1)
    return StoryCodes(train, val, made.image_tokenizer, made.caption_tokenizer, folder, batch_size=2, **options)


def test_a_cached_batch_is_what_encoding_gives(tmp_path: Path):
    made, stories = tiny_story_dalle(), tiny_stories(7)
    encode_stories(stories, made.image_tokenizer, made.caption_tokenizer, tmp_path / "x", {"key": 1}, chunk_size=3)
    batch = CachedStories(tmp_path / "x").batch([5, 0])
    for row, index in enumerate((5, 0)):
        story = stories[index]
        with torch.no_grad():
            codes = made.image_tokenizer.encode(to_tensor(torch.from_numpy(story.frames)))
            source = made.image_tokenizer.encode(to_tensor(torch.from_numpy(story.source[None])))
        assert torch.equal(batch.codes[row], codes)
        assert torch.equal(batch.source[row], source[0])
        assert torch.equal(batch.tokens[row], made.caption_tokenizer.encode(story.captions).tokens)
        assert torch.equal(batch.descriptions[row], made.caption_tokenizer.encode(story.descriptions).tokens)
        with torch.no_grad():
            other = made.image_tokenizer.encode(to_tensor(torch.from_numpy(story.probes["other"][None])))
        assert torch.equal(batch.probes["other"][row], other[0])
        assert torch.equal(batch.labels["mood"][row], torch.from_numpy(story.labels["mood"]))
    assert batch.mask.shape == (2, FRAMES)


def test_windows_seen_before_give_the_codes_of_whole_pictures():
    made = tiny_story_dalle()
    config = made.image_tokenizer.config | {"encoder_window": 4}
    tokenizer = VQGAN(**config).eval()
    torch.nn.init.normal_(tokenizer.quantize.embedding.weight, std=0.3)
    encode = FrameEncoder(tokenizer)
    frames = np.stack([story.source for story in tiny_stories(4)])
    frames[1] = frames[0][::-1]
    with torch.no_grad():
        whole = tokenizer.encode(to_tensor(torch.from_numpy(frames))).numpy()
    assert (encode(frames) == whole).all()
    num_known = len(encode.known)
    assert (encode(frames[::-1].copy()) == whole[::-1]).all()
    assert len(encode.known) == num_known <= 4 * GRID**2


def written(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_an_unchanged_set_is_not_encoded_again(tmp_path: Path):
    data(tmp_path).prepare_data()
    before = written(tmp_path)
    data(tmp_path).prepare_data()
    assert written(tmp_path) == before


@pytest.mark.parametrize("change", [{"num_stories": 6}, {"seed": 3}])
def test_another_set_or_tokenizer_is_encoded_again(change: dict[str, int], tmp_path: Path):
    data(tmp_path).prepare_data()
    before = json.loads((tmp_path / "train" / HEADER).read_text())
    data(tmp_path, **change).prepare_data()
    assert json.loads((tmp_path / "train" / HEADER).read_text()) != before


def test_a_decoder_that_trained_on_keeps_the_cache(tmp_path: Path):
    module = data(tmp_path)
    module.prepare_data()
    before = written(tmp_path / "train")
    for part, kept in ((module.image_tokenizer.decoder, True), (module.image_tokenizer.quantize, False)):
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.add_(0.1)
        module.prepare_data()
        assert (written(tmp_path / "train") == before) is kept


def test_an_encoding_that_was_cut_off_is_made_again(tmp_path: Path):
    module = data(tmp_path)
    module.prepare_data()
    (tmp_path / "train" / HEADER).unlink()
    (tmp_path / "train" / "codes.npy").write_bytes(b"half")
    module.prepare_data()
    assert module.training_set().read([0]).codes.shape == (1, FRAMES, 9)


def test_of_two_that_want_the_same_cache_one_encodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    encoded: list[str] = []

    def slowly(*arguments: Any) -> None:
        encoded.append(threading.current_thread().name)
        time.sleep(0.2)
        write_encoded(*arguments)

    monkeypatch.setattr("storydalle.tokens.cache.write_encoded", slowly)
    threads = [threading.Thread(target=data(tmp_path).prepare_data) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(encoded) == 2, "train and val, once each"
    assert len(CachedStories(tmp_path / "train")) == 7


def test_loaders_yield_batches_and_validation_covers_every_story_once(tmp_path: Path):
    module = data(tmp_path)
    module.prepare_data()
    assert next(iter(module.train_dataloader())).codes.shape[0] == 2
    assert [len(batch.codes) for batch in module.val_dataloader()] == [2, 1]


def test_repeats_train_on_stories_with_a_label_more_often_and_leave_validation_alone(tmp_path: Path):
    module = data(tmp_path, repeats={"mood": ("mood", 1, 3)})
    module.prepare_data()
    plain, repeated = CachedStories(tmp_path / "train"), module.training_set()
    times = [3 if 1 in plain.arrays["label_mood"][row] else 1 for row in range(7)]
    assert set(times) == {1, 3}
    rows = [row for row, count in enumerate(times) for _ in range(count)]
    assert len(repeated) == len(rows)
    assert torch.equal(repeated.read(list(range(len(rows)))).codes, plain.batch(rows).codes)
    assert len(module.validation_set()) == 3


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path):
    module = data(tmp_path, num_stories=1)
    module.prepare_data()
    with pytest.raises(ValueError, match="batch_size=2"):
        module.train_dataloader()
