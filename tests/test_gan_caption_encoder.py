"""StoryGANc's caption encoders: the marker is what tells captions of a story apart, and nothing ever cuts it off."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from storydalle.models.story_gan.caption_encoder import CaptionEncoder, SmallCaptionEncoder, open_caption_encoder
from storydalle.models.story_gan.language_models import CLIPCaptionEncoder, RobertaCaptionEncoder, VectorCache
from storydalle.tokens.captions import CaptionTokenizer
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
    """The rows that the captions of a story become, without padding."""
    return [row.ids for row in encoder._rows(captions)]


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


def test_padding_and_other_stories_change_nothing(encoder: CaptionEncoder):
    alone, beside = encoder([SHORT])[0], encoder([STORY, SHORT, [LONG] * 3])[1, :2]
    torch.testing.assert_close(beside, alone, atol=1e-5, rtol=1e-4)
    if not isinstance(encoder, SmallCaptionEncoder):
        encoder.cache.clear()
        rows = encoder._pad([*encoder._rows([LONG] * 3), *encoder._rows(SHORT)])
        torch.testing.assert_close(encoder._read(rows)[3:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("captions", [[LONG] * 4, [LONG, "Pip waves.", LONG], ["", LONG], [LONG]])
def test_over_long_captions_are_each_cut_and_keep_the_marker(encoder: CaptionEncoder, captions: list[str]):
    for i, row in enumerate(encoder._rows(captions)):
        assert row.ids.count(encoder.marker) == 1
        assert row.ids[row.marker] == encoder.marker
        assert row.ids[: row.marker].count(encoder.separator) == i
        own = row.ids[row.marker + 1 : row.end]
        assert encoder.separator not in own and (len(own) > 0) == bool(captions[i])
    assert encoder([captions]).isfinite().all()


def test_what_is_cut_is_said_for_each_caption(encoder: CaptionEncoder):
    notes = encoder.notes(["Pip.", LONG, LONG])
    assert [note.split(" has ")[0] for note in notes] == ["caption 2", "caption 3"]
    cut = encoder._tokenize(["Pip.", LONG, LONG])
    assert f"the last {cut.overflow[0][1]} were cut" in notes[0]
    assert f"reads {len(cut.ids[1])} of each" in notes[0]
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


def test_the_small_encoder_reads_the_marker_s_column_of_all_its_blocks():
    """Story by story, without padding, every block in full."""
    encoder = tiny_small()
    for i, row in enumerate(encoder._rows(STORY)):
        x = encoder.embedding(torch.tensor([row.ids])) + encoder._positions(encoder._pad([row]))
        for block in encoder.blocks:
            x = block(x, torch.ones(1, 1, len(row.ids), len(row.ids), dtype=torch.bool))
        expected = encoder.ln_f(x[0, row.ids.index(encoder.marker)])
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
    """Columns at equal distance before and behind the marker have the same cosines and opposite sines."""
    encoder = tiny_small()
    rows = encoder._pad(encoder._rows(STORY)[1:2])
    positions, marker = encoder._positions(rows)[0], int(rows.marker)
    half = WIDTH // 2
    for distance in range(1, marker + 1):
        before, behind = positions[marker - distance], positions[marker + distance]
        torch.testing.assert_close(before, torch.cat([-behind[:half], behind[half:]]))
    rates = torch.exp(torch.arange(half) * 2 * (-torch.log(torch.tensor(10_000.0)) / WIDTH))
    torch.testing.assert_close(positions[marker + 3], torch.cat([(3 * rates).sin(), (3 * rates).cos()]))


# ------------------------------------------------------------------------------------------------ language models


def test_captions_are_appended_with_the_marker_ahead_of_the_current_one():
    encoder = tiny_roberta()
    start, separator = encoder.tokenizer.cls_token_id, encoder.tokenizer.sep_token_id
    a, b = (encoder.tokenizer(f" {letter}", add_special_tokens=False)["input_ids"] for letter in "ab")
    assert len(a) == 2  # the space and the letter
    marker = encoder.model.config.vocab_size
    assert read_ids(encoder, ["a", "b"]) == [
        [start, marker, *a, separator, *b, separator],
        [start, *a, separator, marker, *b, separator],
    ]


def test_roberta_is_read_at_the_marker():
    """By the library's own way of adding a token, a story at a time."""
    encoder = tiny_roberta()
    theirs = library().RobertaModel(encoder.model.config, add_pooling_layer=False).eval()
    weights = {name.replace(".table", ""): value for name, value in encoder.model.state_dict().items()}
    row = weights.pop("embeddings.word_embeddings.marker")
    theirs.load_state_dict(weights)
    theirs.resize_token_embeddings(encoder.marker + 1, mean_resizing=False)
    with torch.no_grad():
        theirs.get_input_embeddings().weight[encoder.marker] = row
        for i, ids in enumerate(read_ids(encoder, STORY)):
            hidden = theirs(input_ids=torch.tensor([ids])).last_hidden_state[0]
            torch.testing.assert_close(encoder([STORY])[0, i], hidden[ids.index(encoder.marker)])


def clip_hidden(ids: list[int], eos_token_id: int | None = None) -> tuple[Tensor, Tensor]:
    """Hidden states and the pooled vector, with the marker added in the library's own way."""
    model, tokenizer = tiny_clip_parts(eos_token_id)
    number = model.config.vocab_size
    model.resize_token_embeddings(number + 1, mean_resizing=False)
    with torch.no_grad():
        table = model.get_input_embeddings().weight
        table[number] = table[tokenizer(">", add_special_tokens=False)["input_ids"][0]]
        read = model(input_ids=torch.tensor([ids]))
    return read.last_hidden_state[0], read.pooler_output[0]


def test_clip_is_averaged_over_the_current_caption_s_tokens():
    encoder = tiny_clip()
    for i, row in enumerate(encoder._rows(STORY)):
        hidden, _ = clip_hidden(row.ids)
        num_tokens = len(encoder.tokenizer(STORY[i], add_special_tokens=False)["input_ids"])
        first = row.ids.index(encoder.marker) + 1
        own = hidden[first : first + min(num_tokens, 17)]
        torch.testing.assert_close(encoder([STORY])[0, i], own.mean(0), atol=1e-5, rtol=1e-4)


def test_an_added_marker_takes_the_place_of_clip_s_pooled_vector_but_not_of_ours():
    encoder = tiny_clip()
    row = encoder._rows(STORY)[1]
    hidden, right = clip_hidden(row.ids)
    _, hijacked = clip_hidden(row.ids, eos_token_id=2)  # as in every configuration of OpenAI's
    assert torch.equal(right, hidden[-1])
    assert torch.equal(hijacked, hidden[row.marker]) and differ(hijacked, right)
    old = CLIPCaptionEncoder(*tiny_clip_parts(eos_token_id=2))
    assert torch.equal(old([STORY]), encoder([STORY]))


def test_clip_at_the_marker_would_not_see_its_own_caption():
    encoder = tiny_clip()
    other = [STORY[0], "Zoe hides.", *STORY[2:]]
    ours, theirs = encoder._rows(STORY)[1], encoder._rows(other)[1]
    torch.testing.assert_close(clip_hidden(ours.ids)[0][ours.marker], clip_hidden(theirs.ids)[0][theirs.marker])
    assert differ(encoder([STORY])[0, 1], encoder([other])[0, 1])


@pytest.mark.parametrize("num_captions", [1, 2, 4, 5, 20, 37])
def test_clip_gives_each_caption_its_share_of_77_positions(num_captions: int):
    encoder = tiny_clip()
    share = (77 - 2 - num_captions) // num_captions
    assert {len(ids) for ids in read_ids(encoder, [LONG] * num_captions)} == {2 + num_captions * (1 + share)}
    assert [cut for _, cut in encoder._tokenize([LONG] * num_captions).overflow] == [
        len(encoder.tokenizer(LONG, add_special_tokens=False)["input_ids"]) - share
    ] * num_captions
    assert encoder([[LONG] * num_captions]).isfinite().all()


def test_a_story_too_long_for_a_language_model_is_refused():
    with pytest.raises(ValueError, match=r"38 captions is too long .* room for 37; the small caption encoder"):
        tiny_clip()([["Pip."] * 38])
    assert tiny_small()([["Pip."] * 38]).shape == (1, 38, WIDTH)


def test_roberta_uses_all_of_its_positions_and_no_more():
    encoder = tiny_roberta()
    assert encoder.limit == ROBERTA_POSITIONS
    story = [LONG] * 8
    assert len(read_ids(encoder, story)[0]) == ROBERTA_POSITIONS
    assert encoder([story]).isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        encoder.model(input_ids=torch.full((1, ROBERTA_POSITIONS + 1), 5))


# ------------------------------------------------------------------------------------------------ tuning


@pytest.mark.parametrize("make", [tiny_roberta, tiny_clip])
def test_the_marker_s_row_is_trained_while_the_model_is_frozen(make: Any):
    encoder = make("marker")
    assert [name for name, value in encoder.named_parameters() if value.requires_grad] == [
        name for name in encoder.state_dict() if name.endswith(".marker")
    ]
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    vectors = encoder([STORY])
    optimizer = torch.optim.SGD([value for value in encoder.parameters() if value.requires_grad], 1.0)
    vectors[..., 0].sum().backward()
    optimizer.step()
    moved = {name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])}
    assert len(moved) == 1 and moved.pop().endswith(".marker")
    assert differ(encoder([STORY]), vectors)  # nothing was kept from before


@pytest.mark.parametrize("make", [tiny_roberta, tiny_clip])
def test_a_frozen_model_has_nothing_to_train_and_a_tuned_one_everything(make: Any):
    assert not any(value.requires_grad for value in make("frozen").parameters())
    assert not make("frozen")([STORY]).requires_grad
    tuned = make("full")
    tuned([STORY]).pow(2).sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in tuned.parameters())


def test_only_a_tuned_model_has_dropout():
    for tuning in ("frozen", "marker", "full"):
        encoder = tiny_roberta(tuning, dropout=0.5).train()
        if tuning == "frozen":
            encoder.cache.max_bytes = 0
        assert torch.equal(encoder([STORY]), encoder([STORY])) == (tuning != "full")


def test_an_unknown_tuning_is_refused():
    with pytest.raises(ValueError, match=r"'lora'.*frozen, marker, full"):
        tiny_clip("lora")


# ------------------------------------------------------------------------------------------------ cached vectors


def count_rows(encoder: RobertaCaptionEncoder) -> list[int]:
    counts: list[int] = []
    encoder.model.register_forward_pre_hook(
        lambda _, args, kwargs: counts.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    return counts


def test_a_frozen_model_reads_each_story_once():
    encoder = tiny_roberta()
    counts = count_rows(encoder)
    first = encoder([STORY, SHORT])
    assert sum(counts) == 6
    assert torch.equal(encoder([SHORT, STORY, SHORT])[1], first[0])
    assert sum(counts) == 6
    encoder([STORY[:3], STORY[::-1]])  # other captions, or another order, are another story
    assert sum(counts) == 13


def test_vectors_of_a_frozen_model_are_the_same_to_the_last_digit_in_any_batch():
    assert torch.equal(tiny_roberta()([SHORT])[0], tiny_roberta()([[LONG] * 4, SHORT])[1, :2])


def test_the_cache_forgets_what_was_read_longest_ago():
    cache, vectors = VectorCache(max_bytes=3 * 8 * 4), torch.zeros(2, 4)
    for name in "abc":
        cache.put((name,), vectors)
    assert cache.get(("a",)) is not None
    cache.put(("d",), vectors)
    assert [cache.get((name,)) is not None for name in "abcd"] == [True, False, True, True]
    assert cache.num_bytes == 3 * 8 * 4
    cache.put(("large",), torch.zeros(100))
    assert len(cache) == 0 and cache.num_bytes == 0


def test_other_weights_and_another_precision_empty_the_cache():
    encoder = tiny_roberta()
    single = encoder([STORY])
    assert encoder.double()([STORY]).dtype == torch.float64
    weights = {name: value * 1.5 for name, value in encoder.float().state_dict().items()}
    assert torch.equal(encoder([STORY]), single)
    encoder.load_state_dict(weights)
    assert differ(encoder([STORY]), single)
    whole = nn.ModuleDict({"captions": encoder})
    whole.load_state_dict({f"captions.{name}": value / 1.5 for name, value in weights.items()})
    torch.testing.assert_close(encoder([STORY]), single, atol=1e-4, rtol=1e-3)


def test_vectors_cached_while_drawing_serve_training():
    encoder, head = tiny_roberta(), nn.Linear(WIDTH, 1)
    with torch.inference_mode():
        encoder([STORY])
    head(encoder([STORY])).sum().backward()
    assert head.weight.grad is not None


# ------------------------------------------------------------------------------------------------ opening


def put_files(encoder: Any, folder: Path) -> Path:
    """The model and its tokenizer as released: without the marker."""
    encoder.model.set_input_embeddings(encoder.model.get_input_embeddings().table)
    encoder.model.save_pretrained(folder)
    encoder.tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("make", [tiny_roberta, tiny_clip])
def test_a_language_model_opens_from_a_folder(make: Any, tmp_path: Path):
    encoder = make()
    expected = encoder([STORY])
    opened = type(encoder).from_pretrained(put_files(encoder, tmp_path), tuning="marker", cache_mib=1)
    assert opened.tuning == "marker"
    torch.testing.assert_close(opened([STORY]), expected)


def test_the_text_tower_of_a_whole_clip_opens(tmp_path: Path):
    model, tokenizer = tiny_clip_parts()
    vision = library().CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    config = library().CLIPConfig(text_config=model.config.to_dict(), vision_config=vision.to_dict())
    whole = library().CLIPModel(config).eval()
    whole.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    ours = CLIPCaptionEncoder.from_pretrained(tmp_path)
    row = ours._rows(STORY)[0].ids
    row.remove(ours.marker)
    with torch.no_grad():
        expected = whole.text_model(input_ids=torch.tensor([row])).last_hidden_state
        torch.testing.assert_close(ours.model(input_ids=torch.tensor([row])).last_hidden_state, expected)


def test_a_language_model_that_is_not_at_hand_is_told_with_the_small_encoder(tmp_path: Path):
    pytest.importorskip("transformers")
    for name in (tmp_path / "nowhere", "openai/clip-vit-base-patch32", tmp_path):
        with pytest.raises(ValueError, match=r"no clip language model .* take the small caption encoder"):
            CLIPCaptionEncoder.from_pretrained(name)


def test_another_kind_of_model_and_missing_weights_are_refused(tmp_path: Path):
    folder = put_files(tiny_clip(), tmp_path)
    with pytest.raises(ValueError, match=r"it holds a model of type clip_text_model.*small caption encoder"):
        RobertaCaptionEncoder.from_pretrained(folder)
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["final_layer_norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="its weights lack 1 of the model's parameters"):
        CLIPCaptionEncoder.from_pretrained(folder)
    (folder / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="no clip language model"):
        CLIPCaptionEncoder.from_pretrained(folder)


def test_without_transformers_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"storydalle\[text\].*small caption encoder"):
        RobertaCaptionEncoder.from_pretrained("roberta-base")
