"""Networks that compare pictures with captions: the interface, transformers' CLIP, our own, and its training."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.nn import functional as F

from storydalle.files.records import sha256_of_file
from storydalle.metrics.networks.clip import (
    CLIP_MEAN,
    CLIP_STD,
    ImageTextNetwork,
    TinyCLIP,
    TransformersCLIP,
    open_image_text_network,
    tiny_clip,
)
from storydalle.metrics.networks.label_reader_training import roughened
from storydalle.stories.images import to_tensor
from storydalle.stories.toon import ToonSV
from storydalle.tokens.caption_tokenizer import CaptionTokenizer
from storydalle.tokens.captioned_frames import CaptionedFrames, CaptionedStories
from storydalle.training.clip_training import ClipTraining, contrastive_loss, equal_texts, retrieval_accuracy
from tests.tiny import CAPTIONS, TinyStories, felt

SIZES: dict[str, Any] = {
    "resolution": 16,
    "dims": (8, 12),
    "num_glances": 2,
    "feature_dim": 10,
    "text_dim": 8,
    "embedding_dim": 6,
}


def tiny(seed: int = 0) -> TinyCLIP:
    torch.manual_seed(seed)
    captions = CaptionTokenizer.train(CAPTIONS, vocab_size=80, text_length=12)
    return TinyCLIP(captions, **SIZES, text_depth=1, text_heads=2).eval()


def pictures(num: int = 3, size: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.rand(num, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# ------------------------------------------------------------------------------------------------ ours


def test_embeddings_have_length_one_and_one_width() -> None:
    network = tiny()
    seen, read = network.embed_images(pictures()), network.embed_captions(CAPTIONS)
    assert isinstance(network, ImageTextNetwork)
    assert seen.shape == (3, 6) and read.shape == (4, 6)
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(read.norm(dim=1), torch.ones(4))


def test_logits_are_scaled_cosines_of_the_embeddings() -> None:
    network = tiny()
    logits = network(pictures(), network.caption_tokenizer.encode(CAPTIONS).tokens)
    cosines = network.embed_images(pictures()) @ network.embed_captions(CAPTIONS).T
    torch.testing.assert_close(logits, cosines / 0.07)


def test_the_scale_of_logits_is_at_most_a_hundred() -> None:
    network = tiny()
    network.log_scale.data.fill_(9.0)
    logits = network(pictures(), network.caption_tokenizer.encode(CAPTIONS).tokens)
    cosines = network.embed_images(pictures()) @ network.embed_captions(CAPTIONS).T
    torch.testing.assert_close(logits, 100 * cosines)


def test_the_projected_features_of_pictures_are_their_embeddings() -> None:
    network = tiny()
    features = network.features(pictures())
    assert features.shape == (3, 10)
    projected = F.normalize(network.image_projection(features.clone()), dim=-1)
    torch.testing.assert_close(projected, network.embed_images(pictures()))


def test_a_caption_in_a_batch_is_a_caption_alone() -> None:
    network = tiny()
    together = network.embed_captions(CAPTIONS)
    for row, caption in zip(together, CAPTIONS, strict=True):
        torch.testing.assert_close(row, network.embed_captions([caption])[0])


def test_another_word_order_and_a_missing_word_change_the_embedding() -> None:
    network = tiny()
    first, other, shorter = network.embed_captions(["Pip waves.", "waves Pip.", "Pip."])
    assert not torch.allclose(first, other, atol=1e-4) and not torch.allclose(first, shorter, atol=1e-4)


def test_an_empty_caption_has_an_embedding() -> None:
    assert tiny().embed_captions([""]).isfinite().all()


def test_more_captions_than_are_read_at_once_give_the_same_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny()
    whole = network.embed_captions(CAPTIONS)
    monkeypatch.setattr("storydalle.metrics.networks.clip.CHUNK", 3)
    torch.testing.assert_close(network.embed_captions(CAPTIONS), whole)


def test_a_saved_network_opens_as_itself(tmp_path: Path) -> None:
    network = tiny().half().float()  # as it is stored
    network.save_pretrained(tmp_path)
    opened = open_image_text_network(tmp_path)
    assert isinstance(opened, TinyCLIP) and opened.config == network.config
    torch.testing.assert_close(opened.embed_images(pictures()), network.embed_images(pictures()))
    torch.testing.assert_close(opened.embed_captions(CAPTIONS), network.embed_captions(CAPTIONS))
    assert opened.sha256 == sha256_of_file(tmp_path / "model.safetensors")


def test_the_hash_of_a_fresh_network_is_that_of_its_weights() -> None:
    assert tiny(0).sha256 == tiny(0).sha256 != tiny(1).sha256


def test_a_damaged_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        open_image_text_network(tmp_path)
    tiny().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match=str(tmp_path)):
        open_image_text_network(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="'bert'"):
        open_image_text_network(tmp_path)


# ------------------------------------------------------------------------------------------------ transformers'


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of 24 pixels, in a folder as the hub has them."""
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip")
    letters = [*"abcdefghijklmnopqrstuvwxyz.,"]
    words = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1}
    config = transformers.CLIPConfig(
        text_config=tower | {"vocab_size": len(words), "max_position_embeddings": 12} | ends,
        vision_config=tower | {"image_size": 24, "patch_size": 8},
        projection_dim=6,
    )
    torch.manual_seed(0)
    transformers.CLIPModel(config).save_pretrained(folder)
    return folder


def normalized(images: torch.Tensor) -> torch.Tensor:
    return ((images + 1) / 2 - torch.tensor(CLIP_MEAN).view(3, 1, 1)) / torch.tensor(CLIP_STD).view(3, 1, 1)


def test_a_clip_folder_opens_offline_and_embeds(clip_folder: Path) -> None:
    network = open_image_text_network(clip_folder)
    assert isinstance(network, TransformersCLIP) and isinstance(network, ImageTextNetwork)
    assert network.name == clip_folder.name
    assert network.sha256 == sha256_of_file(clip_folder / "model.safetensors")
    assert network.features(pictures(size=40)).shape == (3, 16)
    for embeddings in (network.embed_images(pictures(size=40)), network.embed_captions(CAPTIONS)):
        assert embeddings.shape[1] == 6
        torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(len(embeddings)))


def test_embeddings_equal_those_of_the_wrapped_model(clip_folder: Path) -> None:
    network = TransformersCLIP.from_pretrained(clip_folder)
    images = pictures(size=24)
    tokens = network.tokenize(CAPTIONS, padding=True, truncation=True, max_length=12, return_tensors="pt")
    with torch.no_grad():
        told = network.model(pixel_values=normalized(images), **tokens)
    torch.testing.assert_close(network.embed_images(images), told.image_embeds)
    torch.testing.assert_close(network.embed_captions(CAPTIONS), told.text_embeds)
    seen = network.model.visual_projection(network.features(images).clone())
    torch.testing.assert_close(F.normalize(seen, dim=-1), told.image_embeds)


def test_bare_tensors_and_objects_are_the_same_to_it(clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 4 of transformers returns embeddings as tensors, version 5 in an object."""
    network = TransformersCLIP.from_pretrained(clip_folder)
    seen, read = network.embed_images(pictures()), network.embed_captions(CAPTIONS)
    for wrap in (lambda tensor: tensor, lambda tensor: SimpleNamespace(pooler_output=tensor, last_hidden_state=None)):
        model = network.model

        def images_of(pixel_values: torch.Tensor, wrap: Any = wrap, model: Any = model) -> Any:
            return wrap(model.visual_projection(model.vision_model(pixel_values=pixel_values).pooler_output))

        def texts_of(wrap: Any = wrap, model: Any = model, **tokens: torch.Tensor) -> Any:
            return wrap(model.text_projection(model.text_model(**tokens).pooler_output))

        monkeypatch.setattr(model, "get_image_features", images_of)
        monkeypatch.setattr(model, "get_text_features", texts_of)
        torch.testing.assert_close(network.embed_images(pictures()), seen)
        torch.testing.assert_close(network.embed_captions(CAPTIONS), read)


@pytest.mark.parametrize("size", [(61, 61), (61, 90), (17, 13)])
def test_pictures_are_resized_as_pillow_does_and_cut_to_their_middle(clip_folder: Path, size: tuple[int, int]) -> None:
    network = TransformersCLIP.from_pretrained(clip_folder)
    height, width = size
    # Of middling values: Pillow clamps overshoots after each of its two passes.
    noise = np.random.default_rng(0).integers(80, 176, (height, width, 3), dtype=np.uint8)
    scale = 24 / min(size)
    resized = Image.fromarray(noise).resize((round(width * scale), round(height * scale)), Image.Resampling.BICUBIC)
    top, left = (resized.height - 24) // 2, (resized.width - 24) // 2
    expected = to_tensor(np.array(resized)[top : top + 24, left : left + 24])
    found = network.pixels(to_tensor(noise)[None])[0] * network.std + network.mean
    torch.testing.assert_close(found * 2 - 1, expected, atol=1.5 / 127.5, rtol=0)


def test_a_caption_alone_is_a_caption_in_a_batch_and_long_ones_are_cut(clip_folder: Path) -> None:
    network = TransformersCLIP.from_pretrained(clip_folder)
    captions = ["a cat.", "a", "a cat and a dog and a bird and a fox."]
    together = network.embed_captions(captions)
    for row, caption in zip(together, captions, strict=True):
        torch.testing.assert_close(row, network.embed_captions([caption])[0])
    torch.testing.assert_close(together[2], network.embed_captions([captions[2] + " and more"])[0])


def test_statistics_of_pixels_come_from_the_folder_where_it_has_them(clip_folder: Path, tmp_path: Path) -> None:
    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    said = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(said))
    images = pictures(size=24)
    torch.testing.assert_close(TransformersCLIP.from_pretrained(tmp_path).pixels(images), images)
    torch.testing.assert_close(TransformersCLIP.from_pretrained(clip_folder).pixels(images), normalized(images))


def test_a_clip_without_all_its_files_is_refused(clip_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in clip_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    state = load_file(tmp_path / "model.safetensors")
    del state["visual_projection.weight"]
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"visual_projection\.weight"):
        open_image_text_network(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=str(tmp_path)):
        open_image_text_network(tmp_path)
    for name in ("vocab.json", "tokenizer.json"):
        (tmp_path / name).unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"vocab\.json"):
        open_image_text_network(tmp_path)


# ------------------------------------------------------------------------------------------------ training


def test_the_loss_is_the_mean_cross_entropy_of_both_directions() -> None:
    logits = torch.tensor([[2.0, 0.0], [1.0, 3.0]])
    rows = (math.log(1 + math.exp(-2)) + math.log(1 + math.exp(-2))) / 2
    columns = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-3))) / 2
    loss = contrastive_loss(logits, torch.eye(2, dtype=torch.bool))
    assert loss.item() == pytest.approx((rows + columns) / 2)


def test_a_text_that_stands_twice_is_no_negative_of_its_twin() -> None:
    tokens = torch.tensor([[1, 2], [3, 4], [1, 2]])
    logits = torch.randn(3, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = contrastive_loss(logits, equal_texts(tokens))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 2] == gradient[2, 0] == 0
    assert (gradient[[0, 0, 1, 1, 2, 2], [0, 1, 0, 2, 1, 2]] != 0).all()
    # Frame 0 is told from text 1 alone, frame 1 from texts 0 and 2.
    x = logits.detach()
    rows = [-x[0, [0, 1]].log_softmax(0)[0], -x[1].log_softmax(0)[1], -x[2, [2, 1]].log_softmax(0)[0]]
    columns = [-x[[0, 1], 0].log_softmax(0)[0], -x[:, 1].log_softmax(0)[1], -x[[2, 1], 2].log_softmax(0)[0]]
    torch.testing.assert_close(loss, torch.stack(rows + columns).mean())


def test_retrieval_counts_a_twin_as_right() -> None:
    logits = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    assert retrieval_accuracy(logits, torch.eye(3, dtype=torch.bool)).item() == pytest.approx(1 / 3)
    assert retrieval_accuracy(logits, equal_texts(torch.tensor([[1], [2], [1]]))).item() == pytest.approx(2 / 3)


def test_a_batch_holds_every_frame_with_its_own_texts() -> None:
    stories = TinyStories(num_stories=6, lengths=(2,))
    tokenizer = CaptionTokenizer.train(CAPTIONS, vocab_size=80, text_length=12)
    data = CaptionedStories(stories, stories, tokenizer, batch_size=2)
    batch = next(iter(data.val_dataloader()))
    for row in range(6):
        story, frame = stories[row // 3], row % 3
        picture = story.source if frame == 0 else story.frames[frame - 1]
        caption = story.descriptions[0] if frame == 0 else story.captions[frame - 1]
        torch.testing.assert_close(batch.images[row], to_tensor(picture))
        torch.testing.assert_close(batch.descriptions[row], tokenizer.encode([story.descriptions[frame]]).tokens[0])
        torch.testing.assert_close(batch.captions[row], tokenizer.encode([caption]).tokens[0])


def test_stories_without_descriptions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    stories = TinyStories()
    outline = stories.outline
    monkeypatch.setattr(stories, "outline", lambda index: outline(index)._replace(descriptions=[]))
    tokenizer = CaptionTokenizer.train(CAPTIONS, vocab_size=80, text_length=12)
    with pytest.raises(ValueError, match="tiny/0 has no descriptions"):
        next(iter(CaptionedStories(stories, stories, tokenizer, batch_size=2).val_dataloader()))


def toon_frames(network: TinyCLIP, num_stories: int = 2) -> CaptionedFrames:
    stories = ToonSV("train", num_stories, num_targets=2, resolution=64)
    data = CaptionedStories(stories, stories, network.caption_tokenizer, batch_size=num_stories)
    return next(iter(data.val_dataloader()))


@pytest.mark.parametrize(("share", "unused"), [(0.0, "captions"), (1.0, "descriptions")])
def test_the_share_of_captions_says_which_texts_train(
    share: float, unused: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny()
    system = ClipTraining(network, caption_share=share)
    monkeypatch.setattr(system, "log_dict", lambda *_, **__: None)
    batch = toon_frames(network)
    other = batch._replace(**{unused: batch.captions.flip(0).clamp(max=3)})
    kept = batch._replace(**{"descriptions" if unused == "captions" else "captions": batch.captions.flip(0)})
    loss = system.training_step(batch, 0)
    assert system.training_step(other, 0) == loss != system.training_step(kept, 0)


def test_two_steps_through_the_trainer_move_every_weight(tmp_path: Path) -> None:
    stories = ToonSV("train", 8, num_targets=2, resolution=64)
    torch.manual_seed(0)
    network = tiny_clip(stories, {"vocab_size": 300, "text_length": 24}, **SIZES, text_depth=1, text_heads=2)
    before = {name: value.clone() for name, value in network.named_parameters()}
    data = CaptionedStories(stories, stories, network.caption_tokenizer, batch_size=4)
    system = ClipTraining(network, warmup_steps=1, max_steps=2, augment=roughened)
    options: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", max_steps=2, enable_model_summary=False, **options)
    trainer.fit(system, data)
    still = [name for name, value in network.named_parameters() if torch.equal(value, before[name])]
    assert not felt(still)
    assert {"val/accuracy_description", "val/loss_caption"} <= set(trainer.validate(system, data, verbose=False)[0])
    network.save_pretrained(tmp_path)
    assert isinstance(open_image_text_network(tmp_path), TinyCLIP)


def test_it_learns_a_few_frames_by_their_words(monkeypatch: pytest.MonkeyPatch) -> None:
    network = tiny().train()
    system = ClipTraining(network, learning_rate=1e-2, warmup_steps=1, max_steps=150, caption_share=0.0)
    monkeypatch.setattr(system, "log_dict", lambda *_, **__: None)
    optimizer = system.configure_optimizers()["optimizer"]
    batch = toon_frames(network, num_stories=3)
    with torch.no_grad():
        sharpness = network.log_scale.clone()
        network.log_scale.zero_()  # logits of a fresh network are noise: as cosines they say nearly nothing
        assert system.training_step(batch, 0).item() == pytest.approx(math.log(9), abs=0.7)
        network.log_scale.copy_(sharpness)
    for _ in range(150):
        optimizer.zero_grad()
        loss = system.training_step(batch, 0)
        loss.backward()
        optimizer.step()
    assert loss.item() < math.log(9) / 4  # of chance; .003 to .18 over seven seeds
