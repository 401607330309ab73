"""Memory of drawn frames: source attention reads the frames before, in training all at once, in drawing one by one."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from storydalle.models.backbones.backbone import Backbone
from storydalle.models.story_dalle import sampling
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.sampling import CodeSampling, FrameKey, Prompt, Sampled, sample
from storydalle.models.story_dalle.source_attention import FrameContext, SourceCrossAttention
from tests.conformance_backbones import STORIES, Inputs, close, differs, retrofitted
from tests.tiny_backbones import LENGTH, tiny_dalle, tiny_mega

FRAMES = 5
GREEDY = CodeSampling(temperature=0)
KINDS = {"dalle": tiny_dalle, "mega": tiny_mega}
MEMORIES: list[dict[str, Any]] = [{"memory": "last"}, {"memory": "all"}, {"memory": "all", "memory_frames": 2}]
kinds = pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
memories = pytest.mark.parametrize("memory", MEMORIES, ids=str)


class Tale(Inputs):
    """Stories of five frames."""

    def __init__(self, backbone: Backbone, num_frames: int = FRAMES) -> None:
        super().__init__(backbone)
        generator = torch.Generator().manual_seed(2)
        self.tokens = torch.randint(1, backbone.text_vocab_size, (STORIES, num_frames, backbone.text_length))
        self.codes = self.drawn_codes(generator, num_frames)
        self.mask = torch.ones(STORIES, num_frames, dtype=torch.bool)

    def prompt(self, made: RetrofittedDALLE, seed: int = 0) -> Prompt:
        keys = [FrameKey(seed, story, frame) for story in range(STORIES) for frame in range(self.mask.shape[1])]
        with torch.no_grad():
            return Prompt(self.tokens, made.encode_story(self.tokens, self.mask), self.source, keys)


def told(make: Callable[[], Backbone], num_frames: int = FRAMES, **options: Any) -> tuple[RetrofittedDALLE, Tale]:
    made, _ = retrofitted(make, **options)
    torch.manual_seed(1)
    for name, positions in made.named_parameters():
        if name.endswith(".positions"):
            torch.nn.init.normal_(positions)
    return made, Tale(made.backbone, num_frames)


def other(codes: Tensor, frame: int, num_codes: int) -> Tensor:
    changed = codes.clone()
    changed[:, frame] = (changed[:, frame] + 1) % num_codes
    return changed


@kinds
@memories
def test_a_frame_reads_the_frames_before_it_that_it_remembers_and_no_others(
    make: Callable[[], Backbone], memory: dict[str, Any]
) -> None:
    made, tale = told(make, **memory)
    base = tale.logits(made, remembered=tale.codes)
    assert torch.equal(base, tale.logits(made)), "by default it remembers the true frames"
    reach = made.num_remembered
    assert reach == {"last": 1, "all": memory.get("memory_frames", 7)}[memory["memory"]]
    for frame in range(FRAMES):
        changed = differs(base, tale.logits(made, remembered=other(tale.codes, frame, made.backbone.num_codes)))
        for reader in range(FRAMES):
            if frame < reader <= frame + reach:
                assert changed[:, reader].all(), f"frame {reader} reads frame {frame} at every code"
            else:
                assert not changed[:, reader].any(), f"frame {reader} knows nothing of frame {frame}"


@kinds
def test_without_memory_other_frames_change_nothing(make: Callable[[], Backbone]) -> None:
    made, tale = told(make)
    assert not [name for name, _ in made.named_parameters() if name.endswith("positions")]
    assert torch.equal(tale.logits(made), tale.logits(made, remembered=tale.codes.flip(2)))


@kinds
@memories
def test_codes_drawn_one_frame_after_another_are_the_argmax_of_one_pass_over_all(
    make: Callable[[], Backbone], memory: dict[str, Any]
) -> None:
    made, tale = told(make, **memory)
    for window in (1, 3):
        drawn = sample(made, tale.prompt(made), sampling=GREEDY, window=window)
        codes = drawn.codes[:, 0].view_as(tale.codes)
        logits = tale.logits(made, codes=codes)
        assert torch.equal(logits.argmax(-1), codes)
        likelihood = logits.log_softmax(-1).gather(-1, codes[..., None]).sum((-1, -2)).flatten()
        torch.testing.assert_close(drawn.log_likelihood[:, 0], likelihood, atol=1e-3, rtol=1e-4)


@kinds
def test_a_frame_tells_its_context_apart_by_source_and_by_distance(make: Callable[[], Backbone]) -> None:
    made, tale = told(make, memory="all")
    base, codes = tale.logits(made), tale.codes.clone()
    codes[:, [0, 1]] = codes[:, [1, 0]]
    assert differs(base, tale.logits(made, remembered=codes))[:, 2:].all(), "the order of frames"
    codes = tale.codes.clone()
    codes[:, 0], source = tale.source[:, 0], tale.codes[:, :1]
    assert differs(base, tale.logits(made, remembered=codes, source=source))[:, 1:].all(), "source and frame swapped"
    for attention in made.source_attention.values():
        torch.nn.init.zeros_(attention.positions)
    last = tale.logits(made)[:, -1]
    close(tale.logits(made, remembered=tale.codes[:, [2, 0, 1, 3, 4]])[:, -1], last)


def test_a_position_is_of_the_frame_so_long_ago_however_many_there_are() -> None:
    attention = SourceCrossAttention(8, 2, num_remembered=3)
    context = FrameContext(torch.randn(1, 6, 4, 8), num_sources=1, num_frames=5)  # of five frames, before four of them
    fresh = attention.remember_frames(context)
    torch.nn.init.normal_(attention.positions)
    for frame, (plain, told) in enumerate(zip(fresh, attention.remember_frames(context), strict=True)):
        added = (told.key - plain.key).transpose(1, 2).reshape(-1, 4, 8)  # frames l d, the source first
        assert not added[0].any() and len(added) == 1 + min(3, frame + 1)
        for ago, position in enumerate(added[1:].flip(0)):
            close(position, attention.positions[ago].expand(4, -1))
        assert torch.equal(told.value, plain.value)


@kinds
@memories
def test_fresh_positions_read_a_remembered_frame_as_one_more_source(
    make: Callable[[], Backbone], memory: dict[str, Any]
) -> None:
    """So weights trained without memory know from the start what to do with it."""
    plain, tale = told(make)
    made, _ = retrofitted(make, **memory)
    positions = {name: value for name, value in made.state_dict().items() if name.endswith(".positions")}
    assert len(positions) == len(made.source_attention) and not any(value.any() for value in positions.values())
    made.load_state_dict(plain.state_dict() | positions)
    same = tale.source.expand_as(tale.codes)
    close(tale.logits(made, remembered=same), tale.logits(plain))
    two = torch.cat([tale.source, tale.codes[:, :1]], 1)
    close(tale.logits(made)[:, 1], tale.logits(plain, source=two)[:, 1])


def test_a_frame_without_source_remembers_nothing() -> None:
    made, tale = told(tiny_dalle, memory="all")
    with torch.no_grad():
        none = made(tale.tokens, tale.codes, None, tale.mask).image
        off = made(tale.tokens, tale.codes, tale.source, tale.mask, has_source=torch.tensor([False, True])).image
    close(off[:FRAMES], none[:FRAMES])
    assert differs(off[FRAMES:], none[FRAMES:]).all()


# ------------------------------------------------------------------------------------------------ drawing


@kinds
@memories
def test_a_story_is_the_same_in_any_company_and_in_waves(make: Callable[[], Backbone], memory: dict[str, Any]) -> None:
    made, tale = told(make, **memory)
    whole = tale.prompt(made, 5)
    drawn = sample(made, whole, 3)
    assert torch.equal(drawn.codes, sample(made, whole, 3, max_rows=2).codes)
    assert whole.story is not None and whole.source is not None
    for story in range(STORIES):
        one = slice(story, story + 1)
        alone = Prompt(whole.tokens[one], whole.story[one], whole.source[one], whole.keys[story * FRAMES :][:FRAMES])
        assert torch.equal(sample(made, alone, 3).codes, drawn.codes.unflatten(0, (STORIES, FRAMES))[story])


@pytest.mark.parametrize("keeps", ["the likeliest", "the last"])
@memories
def test_the_next_frame_remembers_the_candidate_that_is_kept(memory: dict[str, Any], keeps: str) -> None:
    """A frame alone, with the kept candidates before it, is the same: that is how one frame is drawn anew."""
    made, tale = told(tiny_dalle, **memory)
    whole, asked = tale.prompt(made, 3), list[int]()

    def choose(frame: int, candidates: Sampled) -> Tensor:
        asked.append(frame)
        assert candidates.codes.shape == (STORIES, 4, LENGTH)
        return torch.full((STORIES,), 3)

    drawn = sample(made, whole, 4) if keeps == "the likeliest" else sample(made, whole, 4, choose=choose)
    assert asked == ([] if keeps == "the likeliest" else list(range(FRAMES - 1)))
    codes, likelihood = (each.unflatten(0, (STORIES, FRAMES)) for each in drawn)
    best = likelihood.argmax(2) if keeps == "the likeliest" else torch.full((STORIES, FRAMES), 3)
    kept = codes.gather(2, best[..., None, None].expand(-1, -1, 1, LENGTH)).squeeze(2)
    assert (best > 0).any()
    for frame in range(FRAMES):
        at = slice(frame, frame + 1)
        keys = [key for key in whole.keys if key.frame == frame]
        assert whole.story is not None
        alone = Prompt(whole.tokens[:, at], whole.story[:, at], whole.source, keys, kept[:, :frame])
        assert torch.equal(sample(made, alone, 4).codes, codes[:, frame])
        if frame:
            forgot = alone._replace(before=(kept[:, :frame] + 1) % made.backbone.num_codes)
            assert not torch.equal(sample(made, forgot, 4).codes, codes[:, frame])


@pytest.mark.parametrize("memory", ["last", "all"])
def test_a_story_of_fifty_frames_takes_ten_times_the_steps_of_five_and_no_more_context(
    memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, steps = list[int](), list[int]()
    plain = SourceCrossAttention.remember_frames

    def remember(self: SourceCrossAttention, context: FrameContext) -> Any:
        found = plain(self, context)
        read.append(found[0].key.shape[2])
        assert context.frames.shape[1] * LENGTH == read[-1], "nothing is computed that is not read"
        return found

    monkeypatch.setattr(SourceCrossAttention, "remember_frames", remember)
    counts = {}
    for num_frames in (5, 50):
        made, tale = told(tiny_dalle, num_frames, memory=memory, memory_frames=3)
        read.clear(), steps.clear()
        hook = made.backbone.register_forward_hook(lambda *_: steps.append(1))
        done = list[tuple[int, int]]()
        sample(made, tale.prompt(made), window=1, progress=lambda *told, done=done: done.append(told))
        hook.remove()
        counts[num_frames] = len(steps), len(read), max(read)
        assert done == [(i + 1, num_frames * LENGTH) for i in range(num_frames * LENGTH)]
    num_remembered = 1 if memory == "last" else 3
    depth = len(made.source_attention)
    for num_frames, found in counts.items():
        # The first frame has no frame before it.
        assert found == (num_frames * LENGTH, (num_frames - 1) * depth, (1 + num_remembered) * LENGTH)


def test_the_first_guesses_are_the_newest_frame_that_is_remembered() -> None:
    made, tale = told(tiny_dalle, memory="all")
    whole, first = tale.prompt(made), torch.zeros(STORIES, 1, dtype=torch.long)
    for before, newest in ((None, tale.source[:, 0]), (0, tale.source[:, 0]), (2, tale.codes[:, 1])):
        given = whole if before is None else whole._replace(before=tale.codes[:, :before])
        assert torch.equal(sampling.first_guesses(given, first, LENGTH), newest)


@kinds
def test_guidance_remembers_the_same_frames_in_both_branches(make: Callable[[], Backbone]) -> None:
    made, tale = told(make, memory="last")
    whole, empty = tale.prompt(made), torch.full_like(tale.tokens, made.backbone.pad_id or 0)
    bare = whole._replace(tokens=empty, story=made.encode_story(empty, tale.mask))
    codes = sample(made, whole, sampling=CodeSampling(0, guidance=3.0), without_caption=bare).codes[:, 0]
    codes = codes.view_as(tale.codes)
    given, without = tale.logits(made, codes=codes), tale.logits(made, codes=codes, tokens=empty)
    assert torch.equal((without + 3 * (given - without)).argmax(-1), codes)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"memory": "some"}, "memory='some': choose none, last, all"),
        ({"memory": "all", "memory_frames": 0}, "memory_frames=0: give 1 or more"),
        ({"memory": "last", "source_blocks": "none"}, "memory=last needs source attention"),
    ],
)
def test_a_memory_that_cannot_be_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        retrofitted(tiny_dalle, **options)
