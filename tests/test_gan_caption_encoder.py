"""StoryGANc's caption encoders: the marker is what tells captions of a story apart, and nothing ever cuts it off."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from storydalle.models.story_gan.caption_encoder import CaptionEncoder, SmallCaptionEncoder, open_caption_encoder
from storydalle.models.story_gan.language_models import CLIPCaptionEncoder, RobertaCaptionEncoder
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from tests.tiny import felt

STORY = ["Pip waves.", "She jumps at the beach.", "Momo puts on a red hat and runs.", "They sleep."]
SHORT = ["They sleep.", "Momo runs."]
LONG = "a red hat and then " * 40
KINDS = ("small", "roberta", "clip")
WIDTH, ROBERTA_POSITIONS = 16, 90


def library() -> Any:
    """The optional package behind two of the three encoders; what needs it is skipped without it."""
    return pytest.importorskip("transformers")


def byte_pieces(*endings: str) -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return [character + ending for ending in endings for character in sorted(ByteLevel.alphabet())]


def numbered(pieces: list[str]) -> dict[str, int]:
    return {piece: i for i, piece in enumerate(pieces)}


def tiny_roberta(tuning: str = "frozen", dropout: float = 0.0, **options: Any) -> RobertaCaptionEncoder:
    vocabulary = numbered(["<s>", "<pad>", "</s>", "<unk>", *byte_pieces(""), "<mask>"])
    config = library().RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=ROBERTA_POSITIONS + 2,  # RoBERTa leaves the first two unused
        initializer_range=0.5,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    torch.manual_seed(0)
    model = library().RobertaModel(config, add_pooling_layer=False)
    return RobertaCaptionEncoder(model, library().RobertaTokenizer(vocabulary, merges=[]), tuning, **options)


def tiny_clip_parts(eos_token_id: int | None = None) -> tuple[nn.Module, Any]:
    vocabulary = numbered([*byte_pieces("", "</w>"), "<|startoftext|>", "<|endoftext|>"])
    end = vocabulary["<|endoftext|>"]
    config = library().CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        bos_token_id=end - 1,
        eos_token_id=end if eos_token_id is None else eos_token_id,
        initializer_factor=10.0,
    )
    torch.manual_seed(0)
    return library().CLIPTextModel(config).eval(), library().CLIPTokenizer(vocabulary, merges=[])


def tiny_clip(tuning: str = "frozen", **options: Any) -> CLIPCaptionEncoder:
    return CLIPCaptionEncoder(*tiny_clip_parts(), tuning, **options)


def tiny_small(text_length: int = 12) -> SmallCaptionEncoder:
    tokenizer = CaptionTokenizer.train(STORY, vocab_size=150, text_length=text_length)
    torch.manual_seed(0)
    return SmallCaptionEncoder(tokenizer, dim=WIDTH, depth=2, num_heads=2)


TINY = {"small": tiny_small, "roberta": tiny_roberta, "clip": tiny_clip}


@pytest.fixture(params=KINDS)
def encoder(request: pytest.FixtureRequest) -> Iterator[CaptionEncoder]:
    with torch.no_grad():
        yield TINY[request.param]().eval()


def differ(a: Tensor, b: Tensor) -> bool:
    return not torch.allclose(a, b, atol=1e-3)


def read_ids(encoder: CaptionEncoder, captions: list[str]) -> list[list[int]]:
    """The rows that the captions of a story become on their way through an encoder, without padding."""
    seen: list[list[int]] = []
    if isinstance(encoder, SmallCaptionEncoder):
        see = lambda _, given: seen.extend(row[row != encoder.pad_id].tolist() for row in given[0])  # noqa: E731
        hook = encoder.embedding.register_forward_pre_hook(see)
    else:
        encoder.cache.clear()

        def see_present(_: nn.Module, __: object, given: dict[str, Tensor]) -> None:
            rows = zip(given["input_ids"], given["attention_mask"], strict=True)
            seen.extend(ids[present.bool()].tolist() for ids, present in rows)

        hook = encoder.model.register_forward_pre_hook(see_present, with_kwargs=True)
    encoder([captions])
    hook.remove()
    return seen


def own_ids(encoder: CaptionEncoder, row: list[int]) -> list[int]:
    """The ids of the caption behind the marker of a row."""
    behind = row[row.index(encoder.marker) + 1 :]
    ends = [i for i, id in enumerate(behind) if id in (encoder.separator, *encoder.stop)]
    return behind[: ends[0]] if ends else behind


def num_tokens(encoder: CaptionEncoder, caption: str) -> int:
    """Of the whole caption."""
    if isinstance(encoder, SmallCaptionEncoder):
        whole = tiny_small(text_length=500).tokenizer
        return int((whole.encode([caption]).tokens != whole.pad_id).sum())
    return len(encoder.tokenizer(f" {caption}".rstrip(), add_special_tokens=False)["input_ids"])


# ------------------------------------------------------------------------------------------------ every encoder


def test_one_vector_a_caption_and_zeros_behind_short_stories(encoder: CaptionEncoder):
    vectors = encoder([STORY, SHORT])
    assert vectors.shape == (2, 4, encoder.dim)
    assert vectors.isfinite().all()
    assert (vectors[1, 2:] == 0).all() and (vectors[1, :2] != 0).any(-1).all()


def test_the_marker_alone_tells_equal_captions_apart(encoder: CaptionEncoder):
    vectors = encoder([["Pip waves."] * 3])[0]
    assert differ(vectors[0], vectors[1]) and differ(vectors[1], vectors[2]) and differ(vectors[0], vectors[2])


def test_swapping_two_other_captions_changes_the_vector(encoder: CaptionEncoder):
    # The last caption: a causal tower sees no others from anywhere else.
    swapped = [STORY[1], STORY[0], *STORY[2:]]
    assert differ(encoder([STORY])[0, 3], encoder([swapped])[0, 3])


def test_the_caption_itself_changes_the_vector(encoder: CaptionEncoder):
    for i in range(len(STORY)):
        other = [*STORY[:i], "Zoe hides.", *STORY[i + 1 :]]
        assert differ(encoder([STORY])[0, i], encoder([other])[0, i])


@torch.no_grad()
@pytest.mark.parametrize("kind", ["small", "roberta", "clip", "roberta full", "clip full"])
def test_padding_and_other_stories_change_nothing(kind: str):
    """A frozen language model reads story by story; one that trains reads them in one batch, padded."""
    encoder = TINY[kind.split()[0]](*kind.split()[1:]).eval()
    alone, beside = encoder([SHORT])[0], encoder([STORY, SHORT, [LONG] * 3])[1, :2]
    torch.testing.assert_close(beside, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("captions", [[LONG] * 4, [LONG, "Pip waves.", LONG], ["", LONG], [LONG]])
def test_over_long_captions_are_each_cut_and_keep_the_marker(encoder: CaptionEncoder, captions: list[str]):
    for i, row in enumerate(read_ids(encoder, captions)):
        assert row.count(encoder.marker) == 1
        assert row[: row.index(encoder.marker)].count(encoder.separator) == i
        assert (len(own_ids(encoder, row)) > 0) == bool(captions[i])
    assert encoder([captions]).isfinite().all()


def test_what_is_cut_is_said_for_each_caption(encoder: CaptionEncoder):
    notes = encoder.notes(["Pip.", LONG, LONG])
    assert [note.split(" has ")[0] for note in notes] == ["caption 2", "caption 3"]
    whole, read = num_tokens(encoder, LONG), len(own_ids(encoder, read_ids(encoder, ["Pip.", LONG, LONG])[1]))
    assert f"has {whole} tokens; the last {whole - read} were cut" in notes[0]
    assert f"reads {read} of each" in notes[0]
    assert encoder.notes(["Pip.", "Momo."]) == []


def test_an_empty_caption_has_a_vector(encoder: CaptionEncoder):
    vectors = encoder([["Pip waves.", "", "Momo runs."], ["", ""]])
    assert vectors.isfinite().all() and (vectors[0, 1] != 0).any() and (vectors[1, 0] != 0).any()


def test_a_story_without_captions_is_refused(encoder: CaptionEncoder):
    with pytest.raises(ValueError, match="at least one caption"):
        encoder([STORY, []])
    with pytest.raises(ValueError, match="is no story"):
        encoder(STORY)


def test_what_is_saved_and_opened_again_reads_the_same(encoder: CaptionEncoder, tmp_path: Path):
    before = encoder([STORY, [LONG, "Pip."]])
    encoder.save(tmp_path)
    weights = {name: value.clone() for name, value in encoder.state_dict().items()}
    torch.manual_seed(1)
    opened = open_caption_encoder(json.loads(json.dumps(encoder.config)), tmp_path).eval()
    assert type(opened) is type(encoder) and opened.config == encoder.config
    assert differ(opened([STORY]), before[:1])  # fresh weights, kept by a cache: loading must empty it
    opened.load_state_dict(weights)
    assert torch.equal(opened([STORY, [LONG, "Pip."]]), before)


def test_an_unknown_kind_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="'lstm' is none of small, roberta, clip"):
        open_caption_encoder({"kind": "lstm"}, tmp_path)


# ------------------------------------------------------------------------------------------------ the small encoder


def test_the_small_encoder_learns_which_caption_is_meant_from_the_marker_alone():
    encoder = tiny_small()
    head = nn.Linear(WIDTH, len(STORY))
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], 3e-3)
    orders = torch.rand(200, 12, len(STORY), generator=torch.Generator().manual_seed(0)).argsort(-1)
    right = 0.0
    for order in orders:
        logits = head(encoder([[STORY[i] for i in story] for story in order.tolist()]))
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), order.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        right = (logits.argmax(-1) == order).float().mean().item()
        if right == 1:
            break
    assert right > 0.95


def places(num_columns: int, marker: int) -> Tensor:
    """Sines and cosines of the distance from the marker, negative ahead of it."""
    distance = torch.arange(num_columns)[:, None] - marker
    angles = distance * torch.exp(torch.arange(WIDTH // 2) * 2 * (-torch.log(torch.tensor(10_000.0)) / WIDTH))
    return torch.cat([angles.sin(), angles.cos()], 1)


def test_the_small_encoder_reads_the_marker_s_column_of_all_its_blocks():
    """Story by story, without padding, every block in full."""
    encoder = tiny_small()
    for i, row in enumerate(read_ids(encoder, STORY)):
        marker = row.index(encoder.marker)
        x = encoder.embedding(torch.tensor([row])) + places(len(row), marker)
        for block in encoder.blocks:
            x = block(x, torch.ones(1, 1, len(row), len(row), dtype=torch.bool))
        expected = encoder.ln_f(x[0, marker])
        torch.testing.assert_close(encoder([SHORT, STORY])[1, i], expected, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="depth=0"):
        SmallCaptionEncoder(encoder.tokenizer, depth=0)


def test_every_parameter_of_the_small_encoder_moves():
    encoder = tiny_small()
    optimizer = torch.optim.SGD(encoder.parameters(), 0.1)
    before = {name: value.clone() for name, value in encoder.named_parameters()}
    marker = encoder.embedding.weight[encoder.marker].detach().clone()
    for _ in range(2):
        optimizer.zero_grad()
        encoder([STORY])[..., 0].pow(3).sum().backward()
        optimizer.step()
    still = {name for name, value in encoder.named_parameters() if torch.equal(value, before[name])}
    assert not felt(still)
    assert differ(encoder.embedding.weight[encoder.marker], marker)


def test_fresh_vectors_of_the_small_encoder_already_differ():
    torch.manual_seed(0)
    encoder = SmallCaptionEncoder(tiny_small().tokenizer, dim=128)
    assert encoder([STORY])[0].std(0).mean() > 0.15  # of entries of size 1; at minDALL-E's initial size it is 0.04


def test_the_place_of_a_story_s_words_counts_from_the_marker():
    """All that the first block reads beside the words, in rows that are padded to the longest."""
    encoder, read = tiny_small(), []
    encoder.blocks[0].register_forward_pre_hook(lambda _, given: read.append(given[0]))
    rows = read_ids(encoder, STORY)
    for row, x in zip(rows, read[0], strict=True):
        found = x[: len(row)] - encoder.embedding(torch.tensor(row))
        torch.testing.assert_close(found, places(len(row), row.index(encoder.marker)), atol=1e-6, rtol=1e-5)
