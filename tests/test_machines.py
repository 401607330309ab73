"""``docs/machines.md``: a million stories divided among 512 readers, and the memory that a device needs."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("webdataset", reason='shards need webdataset: pip install "storydalle[data]"')

from storydalle.bench.data_split import ManyDevices, NumberedShards, split_of_cache, split_of_shards
from storydalle.bench.machines import memory_of, memory_table, split_table
from storydalle.commands import fill_machines
from storydalle.stories.data import StepSampler
from storydalle.tokens.shards import ShardBatches, StoryShards

PAGE = Path(__file__).parent.parent / "docs" / "machines.md"
SMALL = ManyDevices(num_stories=3000, stories_per_shard=5, batch_size=2, compared=9)  # of 64 processes with 8 workers


def test_64_processes_of_8_workers_read_every_story_of_shards_once_and_go_on_where_they_were() -> None:
    split = split_of_shards(SMALL)
    assert (split.once, split.repeated, split.left_out) == (3000, 0, 0)
    assert (split.resumed, split.differing) == (64, 0)
    assert 8 * 5 <= split.fewest <= 3000 // 64 <= split.most <= 2 * 8 * 5


def test_64_processes_read_no_story_of_a_cache_twice_and_leave_out_less_than_a_step() -> None:
    split = split_of_cache(SMALL)
    left_out = 3000 % (64 * 2)
    assert (split.once, split.repeated, split.left_out) == (3000 - left_out, 0, left_out)
    assert (split.resumed, split.differing) == (64, 0)
    assert split.fewest == split.most == 3000 // 128 * 2


def test_shards_that_are_dealt_wrongly_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    dealt = StoryShards.dealt
    monkeypatch.setattr(
        StoryShards, "dealt", lambda self, reader, number, order: dealt(self, reader // 2, number, order)
    )
    split = split_of_shards(SMALL)
    assert split.repeated > 1000 and split.left_out > 1000


def test_processes_that_begin_again_where_they_should_go_on_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def restarting(method: Callable[..., object]) -> Callable[..., object]:
        def restarted(reader: ShardBatches | StepSampler, *given: int) -> object:
            reader.start = 0
            return method(reader, *given)

        return restarted

    monkeypatch.setattr(ShardBatches, "rows_of", restarting(ShardBatches.rows_of))
    monkeypatch.setattr(StepSampler, "__iter__", restarting(StepSampler.__iter__))
    assert split_of_shards(SMALL).differing == split_of_cache(SMALL).differing == 64


def test_numbered_shards_are_divided_as_written_ones_are() -> None:
    shards = NumberedShards(23, 2)
    assert len(shards) == 23 and shards.num_stories.tolist() == [2] * 11 + [1]
    assert [int(row["number"][0]) for row in shards.rows([3, 0, 11], None)] == [6, 7, 0, 1, 22]
    with pytest.raises(ValueError, match="12 shards for 16 readers"):
        shards.check_readers(4, 4)


def test_a_row_of_the_page_says_what_was_found() -> None:
    table = split_table(SMALL._replace(num_stories=13_000))
    assert "13,000 stories in 2 epochs of 64 processes with 8 workers each and 2 stories a step" in table
    assert "| shards of 5 stories | 13,000 | 0 | 0 |" in table and table.count("| 0 of 64 |") == 3


def test_memory_that_fsdp_divides_is_all_but_the_activations() -> None:
    memory = memory_of("minDALL-E", 1)
    row = next(line for line in memory_table().splitlines() if line.startswith("| minDALL-E | 1 |"))
    *_, ddp, fsdp = (float(cell) for cell in re.findall(r"[\d.]+(?= \|)", row))
    assert ddp == pytest.approx(memory.total / 1e9, abs=0.06)
    assert fsdp == pytest.approx((memory.total - memory.activations) / 8e9 + memory.activations / 1e9, abs=0.06)


@pytest.mark.slow
def test_the_page_says_what_its_command_writes(tmp_path: Path) -> None:
    copy = shutil.copy(PAGE, tmp_path)
    fill_machines.main(Path(copy))
    assert Path(copy).read_text() == PAGE.read_text()
