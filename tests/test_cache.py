"""Encoded stories on disk: the same as encoding at once, kept when nothing changed, made again where something did."""

import itertools
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from storydalle.files.reading import object_if_whole
from storydalle.files.whole import write_json
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.stories.data import StepSampler
from storydalle.stories.images import to_tensor
from storydalle.stories.story import Story
from storydalle.tokens import encoding
from storydalle.tokens.cache import CachedStories, StoryCodes
from storydalle.tokens.encoded_stories import EncodedStories, collate, encode_batch
from storydalle.tokens.encoding import CODES, HEADER, FrameEncoder, build_cache, encoding_hash, tables_folder
from storydalle.tokens.vqgan import VQGAN
from tests.tiny import FRAMES, GRID, TinyStories, tiny_story_dalle


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "CLIPS_PER_SHARD", 5)
    monkeypatch.setattr(encoding, "FRAMES_PER_BATCH", 4)
    monkeypatch.setattr(encoding, "STORIES_PER_CHUNK", 3)


def data(folder: Path, num_stories: int = 7, seed: int = 0, **options: Any) -> StoryCodes:
    made = tiny_story_dalle(seed)
    train, val = TinyStories(num_stories), TinyStories(3, seed=1)
    return StoryCodes(train, val, made.image_tokenizer, made.caption_tokenizer, folder, batch_size=2, **options)


def cached(stories: TinyStories, folder: Path, made: StoryDALLE | None = None, **options: Any) -> CachedStories:
    made = made or tiny_story_dalle()
    build_cache(stories, made.image_tokenizer, made.caption_tokenizer, folder, **options)
    return CachedStories(folder, tables_folder(folder, made.caption_tokenizer))


def assert_equal(one: EncodedStories, other: EncodedStories) -> None:
    for name in ("tokens", "descriptions", "source", "codes", "mask"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for name in ("labels", "probes"):
        first, second = getattr(one, name), getattr(other, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_cached_batch_is_what_encoding_gives(tmp_path: Path) -> None:
    made, stories = tiny_story_dalle(), TinyStories(7)
    batch = cached(stories, tmp_path).batch([5, 0])
    for row, index in enumerate((5, 0)):
        story = stories[index]
        with torch.no_grad():
            codes = made.image_tokenizer.encode(to_tensor(torch.from_numpy(story.frames)))
            source = made.image_tokenizer.encode(to_tensor(torch.from_numpy(story.source[None])))
            other = made.image_tokenizer.encode(to_tensor(torch.from_numpy(story.probes["other"][None])))
        assert torch.equal(batch.codes[row], codes)
        assert torch.equal(batch.source[row], source[0])
        assert torch.equal(batch.tokens[row], made.caption_tokenizer.encode(story.captions).tokens)
        assert torch.equal(batch.descriptions[row], made.caption_tokenizer.encode(story.descriptions).tokens)
        assert torch.equal(batch.probes["other"][row], other[0])
        assert torch.equal(batch.labels["mood"][row], torch.from_numpy(story.labels["mood"]))
        assert batch.labels["source_mood"][row] == index
    assert batch.mask.shape == (2, FRAMES)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_stories_of_any_length_and_clips_of_many_frames_show_what_their_evaluation_shows(
    num_workers: int, tmp_path: Path
) -> None:
    made, stories = tiny_story_dalle(), TinyStories(9, lengths=(1, 4, 2), clip_frames=(1, 3, 6))
    batch = cached(stories, tmp_path, made, num_workers=num_workers).batch(range(9))
    assert batch.mask.sum(1).tolist() == [1, 4, 2] * 3
    assert batch.tokens.shape[:2] == (9, 4) and batch.descriptions.shape[:2] == (9, 5)
    encode = FrameEncoder(made.image_tokenizer)
    assert_equal(batch, encode_batch(list(stories), encode, made.caption_tokenizer))
    padding = batch.tokens[~batch.mask]
    assert (padding == made.caption_tokenizer.pad_id).all()


def test_training_draws_every_frame_of_a_clip_and_no_other_clips(tmp_path: Path) -> None:
    made, stories = tiny_story_dalle(), TinyStories(2, lengths=(2,), clip_frames=(3,))
    cache = cached(stories, tmp_path, made)
    with torch.no_grad():
        of_clip = [
            {tuple(code) for code in made.image_tokenizer.encode(to_tensor(stories.read(f"1/{i}"))).tolist()}
            for i in range(3)
        ]
    assert all(len(codes) == 3 for codes in of_clip)
    rows = [cache.row(1, np.random.default_rng(i))["codes"] for i in range(60)]
    assert [{tuple(row[i].tolist()) for row in rows} for i in range(3)] == of_clip
    assert (cache.row(1)["codes"] == cache.row(1)["codes"]).all()


def test_the_frames_of_a_step_are_the_same_in_a_run_that_is_resumed(tmp_path: Path) -> None:
    made = tiny_story_dalle()
    stories = TinyStories(6, lengths=(2, 1), clip_frames=(5,))

    def module() -> StoryCodes:
        return StoryCodes(stories, stories, made.image_tokenizer, made.caption_tokenizer, tmp_path, batch_size=2)

    whole = module()
    whole.prepare_data()
    batches = [batch for batch, _ in zip(whole.train_dataloader(), range(9), strict=False)]
    resumed = module()
    resumed.load_state_dict({"start": 5})
    for batch, expected in zip(resumed.train_dataloader(), batches[5:], strict=False):
        assert_equal(batch, expected)
    codes = [batch.codes for batch in batches if batch.mask.shape == batches[0].mask.shape]
    assert any(not torch.equal(codes[0], other) for other in codes[1:])


def test_batches_hold_stories_of_about_one_length_and_an_epoch_every_story_once() -> None:
    lengths = np.random.default_rng(0).integers(1, 20, 997)
    steps = iter(StepSampler(lengths, 8, seed=3))
    epoch = [next(steps).indices for _ in range(997 // 8)]
    assert len({index for batch in epoch for index in batch}) == 8 * (997 // 8)
    padded = sum(lengths[batch].max() * len(batch) for batch in epoch)
    assert padded < 1.1 * lengths[np.concatenate(epoch)].sum()
    longest = [lengths[batch].max() for batch in epoch]
    assert longest != sorted(longest), "lengths come in no order"


def test_processes_read_each_their_own_part_of_the_same_step() -> None:
    lengths = np.random.default_rng(0).integers(1, 5, 50)
    whole = iter(StepSampler(lengths, 6, seed=1))
    parts = [iter(StepSampler(lengths, 2, seed=1, rank=rank, num_ranks=3)) for rank in range(3)]
    for _ in range(20):
        assert next(whole).indices == [index for part in parts for index in next(part).indices]


def test_windows_seen_before_give_the_codes_of_whole_pictures() -> None:
    made = tiny_story_dalle()
    config = made.image_tokenizer.config | {"encoder_window": 4}
    tokenizer = VQGAN(**config).eval()
    torch.nn.init.normal_(tokenizer.quantize.embedding.weight, std=0.3)
    encode = FrameEncoder(tokenizer)
    frames = np.stack([story.source for story in TinyStories(4)])
    frames[1] = frames[0][::-1]
    with torch.no_grad():
        whole = tokenizer.encode(to_tensor(torch.from_numpy(frames))).numpy()
    assert (encode(frames) == whole).all()
    num_known = len(encode.known)
    assert (encode(frames[::-1].copy()) == whole[::-1]).all()
    assert len(encode.known) == num_known <= 4 * GRID**2


def written(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("check_pictures", [False, True])
def test_an_unchanged_set_is_not_encoded_again(check_pictures: bool, tmp_path: Path) -> None:
    stories = TinyStories(7)
    cached(stories, tmp_path)
    before = written(tmp_path)
    cached(stories, tmp_path, check_pictures=check_pictures)
    assert written(tmp_path).items() >= before.items()


def test_a_changed_picture_costs_its_shard_alone_and_is_noticed_where_it_is_asked_for(tmp_path: Path) -> None:
    stories = TinyStories(7)
    before = cached(stories, tmp_path).batch(range(7))
    files = written(tmp_path)
    stories.stamps["2/1"] = "changed"
    assert_equal(cached(stories, tmp_path).batch(range(7)), before)
    after = cached(stories, tmp_path, check_pictures=True).batch(range(7))
    changed = (after.codes != before.codes).any(-1).nonzero().tolist()
    assert changed == [[2, 0]]
    shards = {name for name, at in written(tmp_path).items() if name.endswith(".npy") and files[name] != at}
    assert shards == {f"{CODES}/00001.npy"}


def test_another_caption_tokenizer_leaves_the_codes_as_they_are(tmp_path: Path) -> None:
    made, stories = tiny_story_dalle(), TinyStories(7)
    cached(stories, tmp_path, made)
    before = written(tmp_path / CODES)
    made.caption_tokenizer = made.caption_tokenizer.train(["Pip sleeps."], vocab_size=50, text_length=9)
    assert cached(stories, tmp_path, made).batch([0]).tokens.shape[-1] == 9
    assert written(tmp_path / CODES) == before


def test_stories_with_a_clip_that_cannot_be_read_are_left_out_and_counted(tmp_path: Path) -> None:
    stories = TinyStories(7)
    whole = cached(stories, tmp_path / "whole").batch([0, 1, 3, 4, 6])
    stories.broken = {"2/1", "5/0"}
    cache = cached(stories, tmp_path / "broken")
    assert (len(cache), cache.left_out) == (5, 2)
    assert cache.ids() == [f"tiny/{i}" for i in (0, 1, 3, 4, 6)]
    assert_equal(cache.batch(range(5)), whole)


def test_a_training_says_how_many_stories_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = data(tmp_path)
    module.splits["train"].broken = {"2/1", "5/0"}  # type: ignore[attr-defined]
    module.prepare_data()
    assert capsys.readouterr().out.startswith("train: 2 of 7 stories are left out")


def test_a_set_without_one_whole_story_is_refused(tmp_path: Path) -> None:
    stories = TinyStories(3)
    stories.broken = {f"{i}/0" for i in range(3)}
    with pytest.raises(ValueError, match="none of the 3 stories has all its pictures"):
        cached(stories, tmp_path)


def test_another_set_or_tokenizer_has_a_cache_of_its_own(tmp_path: Path) -> None:
    for change in ({}, {"num_stories": 6}, {"seed": 3}):
        module = data(tmp_path, **change)
        module.prepare_data()
        assert len(module.training_set()) == change.get("num_stories", 7)
    assert len(list(tmp_path.glob("*/train-*"))) == 3


def test_codes_of_another_tokenizer_are_refused_with_both_hashes(tmp_path: Path) -> None:
    made, other = tiny_story_dalle(), encoding_hash(tiny_story_dalle(3).image_tokenizer)
    cached(TinyStories(7), tmp_path, made)
    with pytest.raises(ValueError, match=f"{encoding_hash(made.image_tokenizer)}, but the model has {other}"):
        CachedStories(tmp_path, tables_folder(tmp_path, made.caption_tokenizer), other)


@pytest.mark.parametrize("lost", [f"{CODES}/{HEADER}", f"stories-*/{HEADER}"])
def test_a_cache_that_is_not_finished_is_refused(lost: str, tmp_path: Path) -> None:
    made = tiny_story_dalle()
    cached(TinyStories(7), tmp_path, made)
    next(tmp_path.glob(lost)).unlink()
    with pytest.raises(ValueError, match="not finished"):
        CachedStories(tmp_path, tables_folder(tmp_path, made.caption_tokenizer))


def test_a_decoder_that_trained_on_keeps_the_cache(tmp_path: Path) -> None:
    module = data(tmp_path)
    module.prepare_data()
    before = written(tmp_path)
    for part, kept in ((module.image_tokenizer.decoder, True), (module.image_tokenizer.quantize, False)):
        with torch.no_grad():
            for parameter in part.parameters():
                parameter.add_(0.1)
        module.prepare_data()
        assert (written(tmp_path).keys() == before.keys()) is kept


def test_an_encoding_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    stories = TinyStories(7)
    before = cached(stories, tmp_path).batch(range(7))
    whole = contents(tmp_path)
    shutil.rmtree(next(tmp_path.glob("stories-*")))
    (tmp_path / CODES / HEADER).unlink()
    (tmp_path / CODES / "00002.json").unlink()
    (tmp_path / CODES / "00002.npy").write_bytes(b"half")
    files = written(tmp_path)
    assert_equal(cached(stories, tmp_path).batch(range(7)), before)
    again = {name for name, at in written(tmp_path).items() if name.endswith(".npy") and files.get(name) != at}
    assert again == {f"{CODES}/00002.npy"}
    assert contents(tmp_path) == whole


def killed_after(num_events: int, stories: TinyStories, folder: Path) -> None:
    """Build a cache, and die by SIGKILL as the last of some events: a clip read, a file about to be put in place."""
    torch.set_num_threads(1)  # the parent's other threads did not come along, and OpenMP would wait for them for ever
    events = itertools.count(1)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if next(events) == num_events:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return call

    stories.read = counted(stories.read)  # type: ignore[method-assign]
    os.replace = counted(os.replace)
    cached(stories, folder)


def test_killed_twenty_times_the_cache_is_the_uninterrupted_one_byte_for_byte(tmp_path: Path) -> None:
    stories = TinyStories(40, lengths=(3, 1))
    cached(stories, tmp_path / "whole")
    draws = random.Random(0)
    num_shards = []
    for _ in range(20):
        arguments = (draws.randint(1, 24), stories, tmp_path / "killed")
        process = multiprocessing.get_context("fork").Process(target=killed_after, args=arguments)
        process.start()
        process.join()
        assert process.exitcode in (-signal.SIGKILL, 0)
        num_shards.append(len(list(tmp_path.glob("killed/codes/*.json"))))
    assert num_shards == sorted(num_shards) and len(set(num_shards)) > 10, "every process goes on where the last died"
    cached(stories, tmp_path / "killed")
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_of_two_that_want_the_same_cache_one_encodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode = encoding.encode_clips

    def slowly(*arguments: Any) -> Any:
        encoded.append(threading.current_thread().name)
        time.sleep(0.2)
        return encode(*arguments)

    monkeypatch.setattr(encoding, "encode_clips", slowly)
    threads = [threading.Thread(target=data(tmp_path).prepare_data) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(encoded) == 2, "train and val, once each"
    assert len(data(tmp_path).training_set()) == 7


def test_a_cache_goes_to_a_worker_as_a_path(tmp_path: Path) -> None:
    cache = cached(TinyStories(40), tmp_path)
    expected = cache.batch(range(40))
    assert len(pickle.dumps(cache)) < 1000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert_equal(pool.apply(cache.batch, (range(40),)), expected)


def test_opening_ten_million_frames_reads_none_of_them(tmp_path: Path) -> None:
    cache = cached(TinyStories(5), tmp_path)
    header = object_if_whole(tmp_path / CODES / HEADER)
    tables = object_if_whole(cache.tables / HEADER)
    assert header is not None and tables is not None
    rows, shards = 100_000, 100
    for i in range(shards):
        array = np.lib.format.open_memmap(tmp_path / CODES / f"{i:05d}.npy", "w+", np.uint16, (rows, GRID**2))
        array[7] = i
    header["frames"] = [rows] * shards
    tables["key"]["codes"] = header
    write_json(tmp_path / CODES / HEADER, header)
    write_json(cache.tables / HEADER, tables)
    large = CachedStories(tmp_path, cache.tables)
    assert large.shard_starts[-1] == 10_000_000 and not large.shards
    assert large.codes(np.array([99 * rows + 7, 7, 42 * rows + 7]))[:, 0].tolist() == [99, 0, 42]
    assert len(large.shards) == 3
    assert all(isinstance(array, np.memmap) for array in large.shards.values())


def test_loaders_yield_batches_and_validation_covers_every_story_once(tmp_path: Path) -> None:
    module = data(tmp_path)
    module.prepare_data()
    assert next(iter(module.train_dataloader())).codes.shape[0] == 2
    assert [len(batch.codes) for batch in module.val_dataloader()] == [2, 1]


def test_worker_processes_read_the_same_batches(tmp_path: Path) -> None:
    alone, helped = data(tmp_path), data(tmp_path, num_workers=2)
    alone.prepare_data()
    pairs = zip(alone.train_dataloader(), helped.train_dataloader(), range(8), strict=False)
    for one, other, _ in pairs:
        assert_equal(one, other)


def test_repeats_train_on_stories_with_a_label_more_often_and_leave_validation_alone(tmp_path: Path) -> None:
    module = data(tmp_path, repeats={"mood": ("mood", 1, 3)})
    stories: Any = module.splits["train"]
    outline = stories.outline
    stories.outline = lambda index: outline(index)._replace(labels={"mood": np.array([0, int(index == 2), 0])})
    module.prepare_data()
    plain, repeated = module.cached("train"), module.training_set()
    times = [3 if 1 in plain.row(row)["label_mood"] else 1 for row in range(7)]
    assert times == [1, 1, 3, 1, 1, 1, 1]
    rows = [row for row, count in enumerate(times) for _ in range(count)]
    assert len(repeated) == len(rows)
    assert torch.equal(repeated.read(list(range(len(rows))), 0).codes, plain.batch(rows).codes)
    assert len(module.validation_set()) == 3


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    module = data(tmp_path, num_stories=1)
    module.prepare_data()
    with pytest.raises(ValueError, match="batch_size=2"):
        module.train_dataloader()


def test_a_set_without_descriptions_or_labels_makes_batches_too() -> None:
    made = tiny_story_dalle()
    story = Story("a", ["Pip waves."], np.zeros((12, 12, 3), np.uint8), np.zeros((1, 12, 12, 3), np.uint8), {}, [])
    batch = encode_batch([story], FrameEncoder(made.image_tokenizer), made.caption_tokenizer)
    assert batch.descriptions.shape[:2] == (1, 0) and batch.labels == batch.probes == {}
    assert collate([{"codes": np.zeros((2, 9)), "captions": np.ones((1, 4))}], 0).codes.shape == (1, 1, 9)
