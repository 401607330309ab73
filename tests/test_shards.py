"""Webdataset shards: the stories of the cache, each seen once by all readers together, and nothing run that is read."""

import io
import itertools
import os
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("webdataset", reason='shards need webdataset: pip install "storydalle[data]"')

from storydalle.files.reading import object_if_whole
from storydalle.files.whole import write_json
from storydalle.tokens.cache import CachedStories
from storydalle.tokens.encoded_stories import EncodedStories, collate
from storydalle.tokens.encoding import HEADER, build_cache, encoding_hash, tables_folder
from storydalle.tokens.shards import (
    ENDLESS,
    FORMAT,
    ShardBatches,
    ShardedStoryCodes,
    StoryShards,
    array_of,
    files_of,
    npy,
    shard_loader,
    write_shards,
)
from storydalle.training.story_dalle_training import StoryDALLETraining
from tests.shifted import fixed_rng
from tests.tiny import TinyStories, tiny_story_dalle, trainer

NUM_STORIES, STORIES_PER_SHARD = 23, 2  # 12 shards, the last one shorter


@pytest.fixture(scope="module")
def made() -> Any:
    return tiny_story_dalle()


@pytest.fixture(scope="module")
def cache(made: Any, tmp_path_factory: pytest.TempPathFactory) -> CachedStories:
    folder = tmp_path_factory.mktemp("cache")
    stories = TinyStories(NUM_STORIES, lengths=(2, 1, 4), clip_frames=(1, 3, 6))
    build_cache(stories, made.image_tokenizer, made.caption_tokenizer, folder)
    return CachedStories(folder, tables_folder(folder, made.caption_tokenizer))


@pytest.fixture
def folder(cache: CachedStories, tmp_path: Path) -> Path:
    write_shards(cache, tmp_path / "shards", STORIES_PER_SHARD)
    return tmp_path / "shards"


def assert_equal(one: EncodedStories, other: EncodedStories) -> None:
    for name in ("tokens", "descriptions", "source", "codes", "mask"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for name in ("labels", "probes"):
        first, second = getattr(one, name), getattr(other, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)


def stories_of(batches: Any) -> list[int]:
    """Which stories batches hold, in their order: the label of a story's source is its number."""
    return [story for batch in batches for story in batch.labels["source_mood"].tolist()]


def test_shards_hold_the_stories_of_the_cache(cache: CachedStories, folder: Path) -> None:
    batches = list(shard_loader(StoryShards(folder), 5))
    assert [len(batch.codes) for batch in batches] == [5, 5, 5, 5, 3]
    for start, batch in zip(range(0, NUM_STORIES, 5), batches, strict=True):
        assert_equal(batch, cache.batch(range(start, min(start + 5, NUM_STORIES))))


def test_training_draws_the_frames_that_the_cache_would_and_all_of_a_clip(cache: CachedStories, folder: Path) -> None:
    shards = StoryShards(folder)
    stories = {int(row["label_source_mood"]): row for row in shards.rows([0, 1], (3, 5))}
    for index, row in stories.items():
        expected = cache.row(index, fixed_rng([3, 5, index]))
        assert_equal(collate([row], shards.pad_id), collate([expected], shards.pad_id))
    drawn = [next(shards.rows([1], (0, epoch)))["codes"] for epoch in range(80)]
    places = cache.arrays["shots"][cache.starts[2] + 2 : cache.starts[3] + 3, :2]
    of_clips = [{tuple(codes.tolist()) for codes in cache.codes(np.arange(start, start + n))} for start, n in places]
    assert [len(codes) for codes in of_clips] == [1, 3, 6, 1, 3]
    story_two = [codes for codes in drawn if len(codes) == 5]
    assert [{tuple(codes[i].tolist()) for codes in story_two} for i in range(5)] == of_clips


def test_shots_that_share_a_clip_share_its_codes(cache: CachedStories) -> None:
    for index in range(3):
        start, stop = cache.starts[index : index + 2]
        frames = cache.arrays["shots"][start + index : stop + index + 1, 1].sum()
        assert len(array_of(files_of(cache, index)["codes.npy"])) == frames, "the probe is a shot's clip"


def environment(monkeypatch: pytest.MonkeyPatch, rank: int, num_ranks: int) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(num_ranks))


@pytest.mark.parametrize("seed", [None, 4])
def test_two_nodes_of_two_workers_see_every_story_once(
    seed: int | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in (0, 1):
        seen = []
        for rank in range(2):
            environment(monkeypatch, rank, 2)
            loader = shard_loader(StoryShards(folder), 3, num_workers=2, seed=seed, epochs=range(epoch, epoch + 1))
            seen.append(stories_of(loader))
        assert min(map(len, seen)) >= NUM_STORIES // 2 - STORIES_PER_SHARD
        assert sorted(seen[0] + seen[1]) == list(range(NUM_STORIES))


@pytest.mark.parametrize(("num_ranks", "num_workers"), [(1, 0), (1, 12), (3, 1), (5, 2), (12, 1)])
def test_any_number_of_readers_up_to_that_of_shards_loses_and_doubles_nothing(
    num_ranks: int, num_workers: int, folder: Path
) -> None:
    shards, seen = StoryShards(folder), []
    for rank, worker in itertools.product(range(num_ranks), range(max(1, num_workers))):
        shares = shards.dealt(rank + num_ranks * worker, num_ranks * max(1, num_workers), (7, 2))
        assert shares
        seen += [int(row["label_source_mood"]) for row in shards.rows(shares, (7, 2))]
    assert sorted(seen) == list(range(NUM_STORIES))


def test_a_worker_that_does_not_know_its_rank_keeps_to_its_share(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment(monkeypatch, 1, 2)
    loader = shard_loader(StoryShards(folder), 4)
    expected = stories_of(loader)
    monkeypatch.delenv("RANK")
    monkeypatch.delenv("WORLD_SIZE")
    assert stories_of(pickle.loads(pickle.dumps(loader.dataset))) == expected
    assert 0 < len(expected) < NUM_STORIES


@pytest.mark.parametrize(("num_ranks", "num_workers", "readers"), [(13, 0, 13), (4, 4, 16)])
def test_more_readers_than_shards_are_refused(num_ranks: int, num_workers: int, readers: int, folder: Path) -> None:
    with pytest.raises(ValueError, match=rf"12 shards for {readers} readers .*fewer stories a shard"):
        shard_loader(StoryShards(folder), 2, num_workers, rank=0, num_ranks=num_ranks)


def test_the_order_and_the_frames_are_those_of_seed_and_epoch(folder: Path) -> None:
    def epoch_of(seed: int, epoch: int) -> list[EncodedStories]:
        return list(shard_loader(StoryShards(folder), 4, seed=seed, epochs=range(epoch, epoch + 1)))

    first = epoch_of(0, 1)
    for batch, again in zip(first, epoch_of(0, 1), strict=True):
        assert_equal(batch, again)
    orders = [stories_of(epoch_of(*at)) for at in ((0, 1), (0, 2), (1, 0), (1, 1), (0, 0))]
    assert len({tuple(order) for order in orders}) == 5
    assert all(sorted(order) == list(range(NUM_STORIES)) for order in orders)
    deals = [tuple(StoryShards(folder).dealt(0, 2, at)) for at in ((0, 1), (0, 2), (1, 1))]
    assert len(set(deals)) == 3, "readers change shards from epoch to epoch"
    neighbours = sum(abs(a - b) == 1 for a, b in itertools.pairwise(orders[0]))
    assert neighbours < NUM_STORIES // 3, "stories of a shard are shuffled among others"


def test_a_buffer_smaller_than_the_shards_loses_nothing(folder: Path) -> None:
    for buffer in (1, 2, 7):
        rows = StoryShards(folder, buffer=buffer).rows(list(range(12)), (0, 0))
        assert sorted(int(row["label_source_mood"]) for row in rows) == list(range(NUM_STORIES))


@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_run_that_is_resumed_reads_on_where_it_was(num_workers: int, folder: Path) -> None:
    def batches(start: int) -> Iterator[EncodedStories]:
        options = {"seed": 2, "epochs": ENDLESS, "start": start, "rank": 1, "num_ranks": 2}
        return iter(shard_loader(StoryShards(folder), 4, num_workers, **options))

    whole = list(itertools.islice(batches(0), 16))
    assert all(len(batch.codes) == 4 for batch in whole), "batches reach over the end of an epoch"
    for start in (1, 3, 11):
        for batch, expected in zip(batches(start), whole[start:], strict=False):
            assert_equal(batch, expected)


def test_epochs_that_are_skipped_are_not_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = StoryShards(folder)
    opened: list[Path] = []
    plain = Path.open
    monkeypatch.setattr(Path, "open", lambda path, *mode: opened.append(path) or plain(path, *mode))
    next(iter(ShardBatches(shards, 1, seed=0, epochs=ENDLESS, start=10_000 * NUM_STORIES)))
    assert 1 <= len(opened) <= 12


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_writing_twice_gives_equal_bytes(cache: CachedStories, folder: Path, tmp_path: Path) -> None:
    write_shards(cache, tmp_path / "again", STORIES_PER_SHARD)
    assert contents(tmp_path / "again") == contents(folder)
    assert object_if_whole(folder / HEADER)["stories"] == [2] * 11 + [1]  # type: ignore[index]


def test_what_is_written_already_stays_and_what_is_left_of_a_longer_one_goes(
    cache: CachedStories, folder: Path
) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "lock"}
    paths = write_shards(cache, folder, STORIES_PER_SHARD)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert paths == sorted(folder.glob("*.tar"))
    assert len(write_shards(cache, folder, 10)) == 3 == len(list(folder.glob("*.tar")))
    assert stories_of(shard_loader(StoryShards(folder), 4)) == list(range(NUM_STORIES))


def test_a_writing_that_was_cut_off_is_refused_and_made_whole(
    cache: CachedStories, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = contents(folder)
    replace, calls = os.replace, itertools.count()

    def killed(source: Path, target: Path) -> None:
        if next(calls) == 2:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_shards(cache, folder, 3)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="no finished shards"):
        StoryShards(folder)
    write_shards(cache, folder, STORIES_PER_SHARD)
    assert contents(folder) == whole


def test_members_are_named_by_number_and_column_and_hold_the_id(folder: Path) -> None:
    with tarfile.open(folder / "00001.tar") as tar:
        members = tar.getmembers()
        story = tar.extractfile("000000002.id.txt")
        assert story is not None and story.read() == b"tiny/2"
        assert {member.name for member in members if member.name.startswith("000000003.")} == {
            f"000000003.{name}"
            for name in (
                "captions.npy",
                "codes.npy",
                "descriptions.npy",
                "id.txt",
                "label_mood.npy",
                "label_source_mood.npy",
                "probe_other.npy",
                "shots.npy",
            )
        }
    assert {(member.mtime, member.uid, member.uname) for member in members} == {(0, 0, "storydalle")}


def test_shards_of_other_tokenizers_are_refused_with_both_hashes(made: Any, folder: Path) -> None:
    images, captions = encoding_hash(made.image_tokenizer), made.caption_tokenizer.fingerprint
    assert len(StoryShards(folder, images, captions)) == NUM_STORIES
    with pytest.raises(ValueError, match=f"image tokenizer {images}, but the model has other"):
        StoryShards(folder, "other", captions)
    with pytest.raises(ValueError, match=f"caption tokenizer {captions}, but the model has other"):
        StoryShards(folder, images, "other")


def rewritten(path: Path, changes: dict[str, bytes | None]) -> None:
    """Write a shard again with other members: None takes one away."""
    with tarfile.open(path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    with tarfile.open(path, "w") as tar:
        for name, content in sorted((files | changes).items()):
            if content is not None:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


class Malicious:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["evil.pyd", "evil.pickle", "evil.pkl", "codes.pyd", "evil.pth", "evil.npy"])
def test_a_pickle_among_the_members_is_passed_over(
    name: str, cache: CachedStories, folder: Path, tmp_path: Path
) -> None:
    pickled = pickle.dumps(Malicious(tmp_path / "ran"))
    rewritten(folder / "00000.tar", {f"000000000.{name}": pickled, f"__meta__.{name}": pickled, f"../{name}": pickled})
    batch = next(iter(shard_loader(StoryShards(folder), 2)))
    assert_equal(batch, cache.batch(range(2)))
    assert not (tmp_path / "ran").exists()


def object_array(marker: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Malicious(marker)], dtype=object), allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize("column", ["codes", "label_mood", "shots"])
def test_a_pickle_in_place_of_an_array_is_refused_and_not_run(column: str, folder: Path, tmp_path: Path) -> None:
    for content in (object_array(tmp_path / "ran"), pickle.dumps(Malicious(tmp_path / "ran"))):
        rewritten(folder / "00000.tar", {f"000000001.{column}.npy": content})
        with pytest.raises(ValueError, match=r"00000\.tar is damaged after 1 stories, .*(Object arrays|magic)"):
            list(shard_loader(StoryShards(folder), 2))
    assert not (tmp_path / "ran").exists()
    np.load(io.BytesIO(object_array(tmp_path / "ran")), allow_pickle=True)
    assert (tmp_path / "ran").exists(), "it would have run"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"000000001.codes.npy": None}, "codes"),
        ({"000000001.codes.npy": npy(np.zeros((9, 4), np.uint16))}, r"\(9, 4\) are not 9 a frame"),
        ({"000000001.shots.npy": npy(np.full((2, 3), 99))}, "out of bounds"),
        ({f"000000001.{name}": None for name in ("codes.npy", "shots.npy", "captions.npy")}, "damaged after 1 stories"),
    ],
)
def test_a_story_that_lacks_something_is_refused_by_the_name_of_its_shard(
    changes: dict[str, bytes | None], message: str, folder: Path
) -> None:
    rewritten(folder / "00000.tar", changes)
    with pytest.raises(ValueError, match=rf"(?s)00000\.tar.*{message}"):
        list(shard_loader(StoryShards(folder), 2))


def test_a_shard_that_is_cut_off_loses_no_story_silently(folder: Path) -> None:
    path = folder / "00003.tar"
    whole = path.read_bytes()
    for length in range(0, len(whole), 512):
        path.write_bytes(whole[:length])
        try:
            stories = stories_of(shard_loader(StoryShards(folder), 4))
        except ValueError as error:
            assert "00003.tar" in str(error)
        else:
            assert stories == list(range(NUM_STORIES)), f"cut off after {length} of {len(whole)} bytes"


def test_a_shard_that_is_missing_is_named_at_once(folder: Path) -> None:
    (folder / "00004.tar").unlink()
    with pytest.raises(ValueError, match=r"00004\.tar"):
        StoryShards(folder)


def test_a_folder_of_any_name_is_read(cache: CachedStories, tmp_path: Path) -> None:
    odd = tmp_path / "a #1 {b,c}?%20;é"
    write_shards(cache, odd, 12)
    assert stories_of(shard_loader(StoryShards(odd), 4)) == list(range(NUM_STORIES))


def test_shards_of_another_format_and_no_stories_a_shard_are_refused(cache: CachedStories, folder: Path) -> None:
    write_json(folder / HEADER, {**(object_if_whole(folder / HEADER) or {}), "format": 0})
    with pytest.raises(ValueError, match="format 1"):
        StoryShards(folder)
    with pytest.raises(ValueError, match="stories_per_shard=0"):
        write_shards(cache, folder, 0)


def test_a_model_trains_on_shards_and_its_checkpoint_knows_the_position(folder: Path, tmp_path: Path) -> None:
    made = tiny_story_dalle()
    data = ShardedStoryCodes(folder, folder, made.image_tokenizer, made.caption_tokenizer, batch_size=4, buffer=6)
    run = trainer(tmp_path, 8, limit_val_batches=1.0, val_check_interval=8)
    run.fit(StoryDALLETraining(made, max_steps=8), data)
    assert run.global_step == 8 and data.state_dict()["start"] == 8
    resumed = ShardedStoryCodes(folder, folder, made.image_tokenizer, made.caption_tokenizer, batch_size=4, buffer=6)
    expected = next(itertools.islice(resumed.train_dataloader(), 8, None))
    resumed.load_state_dict({"start": 8})
    assert_equal(next(iter(resumed.train_dataloader())), expected)
    assert stories_of(resumed.val_dataloader()) == list(range(NUM_STORIES))


@pytest.mark.parametrize(
    ("name", "value"),
    [("stories", 3), ("stories", [-1]), ("num_codes", None), ("pad_id", "0"), ("columns", [1]), ("image_tokenizer", 7)],
)
def test_a_header_of_other_kinds_is_refused_by_name(tmp_path: Path, name: str, value: Any) -> None:
    header = {"format": FORMAT, "image_tokenizer": "a", "caption_tokenizer": "b", "num_codes": 4, "pad_id": 0}
    write_json(tmp_path / "header.json", header | {"columns": [], "stories": []} | {name: value})
    with pytest.raises(ValueError, match=rf"header\.json is damaged: {name} is "):
        StoryShards(tmp_path)
