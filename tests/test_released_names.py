"""Names in a converted StoryDALL-E have the tokens that its own program gives them, which reads a trained table."""

import json
from pathlib import Path

import pytest
import torch
from tokenizers.implementations import CharBPETokenizer

from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.released.conversion import released_story_dalle, write_conversion
from storydalle.released.model_layouts import ADDED_NAMES
from storydalle.tokens.caption_tokenizer import CaptionTokenizer, load_caption_tokenizer
from storydalle.training.building import story_dalle
from tests.test_captions import MERGES, VOCAB, released
from tests.test_conversion import HEADS, write_story_dalle, write_vocabulary

STORIES = Path(__file__).parents[1] / "../shared/data/flintstones-longstory/stories"
FLINTSTONES = ADDED_NAMES[7]
CAPTIONS = [
    *("Dino barks at Fred.", "a dinosaur", "ALFRED and fred's dino!", "Mr. Slate slates", "barney-wilma", "dinodino"),
    *("betty", "pebbles pebble", "", "fred", "a red square; dinohats", "x" * 40),
]


def original_rows(vocab: Path, merges: Path, captions: list[str], length: int) -> list[list[int]]:
    """Tokens of the released program: minDALL-E's tokenizer, names added with the library's defaults, padding of 0s."""
    tokenizer = CharBPETokenizer.from_file(str(vocab), str(merges), unk_token="[UNK]", lowercase=True, dropout=None)
    tokenizer.add_special_tokens(["[PAD]"])
    tokenizer.enable_padding(length=length, pad_id=tokenizer.token_to_id("[PAD]"))
    tokenizer.enable_truncation(max_length=length)
    tokenizer.add_tokens(list(FLINTSTONES))
    return [tokenizer.encode(caption.lower()).ids for caption in captions]


def longstory_captions() -> list[str]:
    pages = [page for path in sorted(STORIES.glob("*.json")) for page in json.loads(path.read_text())["captions_info"]]
    return [page["caption"] for page in pages]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with Flintstones' files, and what they were converted to below ``ours``."""
    folder = tmp_path_factory.mktemp("flintstones")
    write_story_dalle(folder, num_names=7, prompts=0)
    with released_story_dalle(folder / "49.pth", num_heads=HEADS) as conversion:
        write_conversion(conversion, folder / "ours")
    return folder


def test_a_converted_storydalle_gives_captions_the_tokens_of_the_released_program(converted: Path) -> None:
    ours = StoryDALLE.from_pretrained(converted / "ours").caption_tokenizer
    expected = original_rows(converted / "vocab.json", converted / "merges.txt", CAPTIONS, 8)
    assert ours.encode(CAPTIONS).tokens.tolist() == expected


def test_a_name_that_is_a_piece_keeps_its_row_and_those_behind_it_move_up(converted: Path) -> None:
    words, model = json.loads((converted / "vocab.json").read_text()), StoryDALLE.from_pretrained(converted / "ours")
    ids = dict(zip(FLINTSTONES, model.caption_tokenizer.added_ids, strict=True))
    assert ids["dino"] == words["dino"] and ids["pebbles"] == len(words) + 4 and ids["slate"] == len(words) + 5
    table = torch.load(converted / "49.pth", weights_only=True)["model_state_dict"]["stage2.tok_emb_txt.weight"]
    assert len(table) == len(words) + 7 == model.caption_tokenizer.vocab_size, "the last row is nobody's"
    slate = model.caption_tokenizer.encode(["slate"]).tokens[0, :1]
    assert torch.equal(model.model.backbone.embed_tokens(slate)[0], table[len(words) + 5])


@released
@pytest.mark.skipif(not STORIES.is_dir(), reason="flintstones-longstory is not beside the repository")
def test_on_flintstones_captions_and_the_released_vocabulary_all_tokens_are_the_originals() -> None:
    captions = longstory_captions()[:600]
    ours = CaptionTokenizer.from_files(VOCAB, MERGES, 64, FLINTSTONES, names_as_released=True)
    assert ours.encode(captions).tokens.tolist() == original_rows(VOCAB, MERGES, captions, 64)
    assert ours.added_ids[-2:] == [5851, 16389] and ours.vocab_size == 16391
    assert ours.encode(["dinosaur"]).tokens[0, :3].tolist() == [5851, 6655, 0]


def test_the_released_way_is_kept_in_the_folder_and_in_trainings_that_build_on_it(converted: Path) -> None:
    made = story_dalle(str(converted / "ours"), "runs", {"source_blocks": "all"}, ["Fred", "hoppy"])
    before = StoryDALLE.from_pretrained(converted / "ours").caption_tokenizer
    assert isinstance(before, CaptionTokenizer) and before.names_as_released
    assert made.caption_tokenizer.added_names == (*FLINTSTONES, "hoppy")
    assert made.caption_tokenizer.added_ids[:-1] == before.added_ids
    new = made.caption_tokenizer.added_ids[-1]
    assert new not in before.added_ids and new < made.caption_tokenizer.vocab_size == before.vocab_size + 1
    made.save_pretrained(converted / "trained")
    again = load_caption_tokenizer(converted / "trained" / "captions")
    assert again.fingerprint == made.caption_tokenizer.fingerprint != before.fingerprint
    assert again.added_ids == made.caption_tokenizer.added_ids


def test_names_are_read_back_and_a_row_of_nobody_is_refused(converted: Path) -> None:
    ours = StoryDALLE.from_pretrained(converted / "ours").caption_tokenizer
    assert ours.decode(ours.encode(["fred, dino"]).tokens[0]) == "fred , dino"
    with pytest.raises(ValueError, match=f"token {ours.vocab_size - 1} lies outside the vocabulary"):
        ours.decode([ours.vocab_size - 1])


def test_tokenizers_of_our_own_keep_their_ids_and_their_files(tmp_path: Path) -> None:
    """Whole words, rows after the vocabulary, and not a word of it in the config."""
    num_words = write_vocabulary(tmp_path, "")
    files = tmp_path / "vocab.json", tmp_path / "merges.txt"
    ours, bare = CaptionTokenizer.from_files(*files, 64, FLINTSTONES), CaptionTokenizer.from_files(*files, 64)
    assert ours.added_ids == list(range(num_words, num_words + 7))
    assert torch.equal(ours.encode(["a dinosaur, alfred"]).tokens, bare.encode(["a dinosaur, alfred"]).tokens)
    ours.save(tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert config == {"kind": "words", "text_length": 64, "added_names": list(FLINTSTONES)}
    with pytest.raises(ValueError, match="is given twice"):
        CaptionTokenizer.from_files(*files, 64, ["[PAD]"])


@pytest.mark.parametrize("names", [("fred", "FRED"), ("dino", "dino"), ("",)])
def test_names_that_cannot_be_told_apart_are_refused_in_the_released_way_too(
    names: tuple[str, ...], converted: Path
) -> None:
    files = converted / "vocab.json", converted / "merges.txt"
    with pytest.raises(ValueError, match="added name"):
        CaptionTokenizer.from_files(*files, 8, names, names_as_released=True)
