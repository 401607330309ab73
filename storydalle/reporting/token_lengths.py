"""Captions counted in the tokens of a caption tokenizer."""

from collections.abc import Sequence

from storydalle.files.paths import user_path
from storydalle.mistakes import told_in_one_line
from storydalle.models import zoo
from storydalle.reporting.findings import Tokens

CHUNK = 4096  # captions counted at once


def token_counter(name: str | None) -> Tokens | None:
    """Lengths in tokens by the caption tokenizer of a model, or by one in a folder."""
    if name is None:
        return None
    folder = zoo.zoo_folder() / name if name in zoo.zoo_names() else user_path(name)
    folder = folder / "captions" if (folder / "captions").is_dir() else folder
    from storydalle.tokens.caption_tokenizer import (  # and with it torch
        CaptionTokenizer,
        TextTokenizer,
        load_caption_tokenizer,
    )

    vocabularies, merges = sorted(folder.glob("*vocab.json")), sorted(folder.glob("*merges.txt"))
    with told_in_one_line(f"caption_tokenizer={name} is none"):
        if vocabularies and merges:
            tokenizer: TextTokenizer = CaptionTokenizer.from_files(vocabularies[0], merges[0])
        else:
            tokenizer = load_caption_tokenizer(folder)

    def count(texts: Sequence[str]) -> list[int]:
        lengths: list[int] = []
        for start in range(0, len(texts), CHUNK):
            encoded = tokenizer.encode(texts[start : start + CHUNK])
            part = (encoded.tokens != tokenizer.pad_id).sum(1).tolist()
            for i, num_cut in encoded.overflow:
                part[i] += num_cut
            lengths += part
        return lengths

    return Tokens(count, tokenizer.text_length)
