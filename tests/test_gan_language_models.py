"""RoBERTa and CLIP as caption encoders: what they read, what is tuned, and how they are opened."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from storydalle.models.story_gan.language_models import CLIPCaptionEncoder, RobertaCaptionEncoder, VectorCache
from tests.test_gan_caption_encoder import (
    LONG,
    ROBERTA_POSITIONS,
    SHORT,
    STORY,
    WIDTH,
    differ,
    library,
    num_tokens,
    read_ids,
    tiny_clip,
    tiny_clip_parts,
    tiny_roberta,
    tiny_small,
)


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
    for i, ids in enumerate(read_ids(encoder, STORY)):
        hidden, _ = clip_hidden(ids)
        num_tokens = len(encoder.tokenizer(STORY[i], add_special_tokens=False)["input_ids"])
        first = ids.index(encoder.marker) + 1
        own = hidden[first : first + min(num_tokens, 17)]
        torch.testing.assert_close(encoder([STORY])[0, i], own.mean(0), atol=1e-5, rtol=1e-4)


def test_an_added_marker_takes_the_place_of_clip_s_pooled_vector_but_not_of_ours():
    encoder = tiny_clip()
    ids = read_ids(encoder, STORY)[1]
    hidden, right = clip_hidden(ids)
    _, hijacked = clip_hidden(ids, eos_token_id=2)  # as in every configuration of OpenAI's
    assert torch.equal(right, hidden[-1])
    assert torch.equal(hijacked, hidden[ids.index(encoder.marker)]) and differ(hijacked, right)
    old = CLIPCaptionEncoder(*tiny_clip_parts(eos_token_id=2))
    assert torch.equal(old([STORY]), encoder([STORY]))


def test_clip_at_the_marker_would_not_see_its_own_caption():
    encoder = tiny_clip()
    other = [STORY[0], "Zoe hides.", *STORY[2:]]
    ours, theirs = (
        clip_hidden(ids)[0][ids.index(encoder.marker)]
        for ids in (read_ids(encoder, told)[1] for told in (STORY, other))
    )
    torch.testing.assert_close(ours, theirs)
    assert differ(encoder([STORY])[0, 1], encoder([other])[0, 1])


@pytest.mark.parametrize("num_captions", [1, 2, 4, 5, 20, 37])
def test_clip_gives_each_caption_its_share_of_77_positions(num_captions: int):
    encoder = tiny_clip()
    share = (77 - 2 - num_captions) // num_captions
    assert {len(ids) for ids in read_ids(encoder, [LONG] * num_captions)} == {2 + num_captions * (1 + share)}
    told = f"the last {num_tokens(encoder, LONG) - share} were cut, since the caption encoder reads {share} of each"
    notes = encoder.notes([LONG] * num_captions)
    assert len(notes) == num_captions and all(told in note for note in notes)
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
    row = read_ids(ours, STORY)[0]
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
