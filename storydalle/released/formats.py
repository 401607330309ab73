"""Formats of released weights: what opens each of them, and what writes it again."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

from storydalle.mistakes import UserError
from storydalle.models import licences
from storydalle.released.archives import unpack
from storydalle.released.conversion import WORDS, Conversion, mega, min_dalle, released_story_dalle
from storydalle.released.conversion_settings import ConvertSettings
from storydalle.released.layouts import LayoutError
from storydalle.released.recognition import mistaken
from storydalle.released.release import Release, mega_release, mindalle_release, taming_release
from storydalle.released.tokenizer_layouts import OpenedTokenizer, read_dvae, read_vqgan
from storydalle.released.torch_files import ForeignFile

MINDALLE_FILES = ("stage1_last.ckpt", "stage2_last.ckpt")
MINDALLE_WORDS = [(f"{beginning}vocab.json", f"{beginning}merges.txt") for beginning in WORDS]
CODEBOOK_FILES = ("model.safetensors", "pytorch_model.bin")  # of transformers


@contextmanager
def refused_in_one_line(settings: ConvertSettings) -> Iterator[None]:
    """Say what is wrong with a file and, where it is another format's, with whose it is, as a user's mistake."""
    try:
        yield
    except (LayoutError, ForeignFile) as error:
        seems = None if settings.reverse else mistaken(error, settings.format)
        raise UserError(f"{error}" + (f"; {error.path} looks like {seems}" if seems else "")) from error


# ------------------------------------------------------------------------------------------------ models


@contextmanager
def from_min_dalle(settings: ConvertSettings) -> Iterator[Conversion]:
    """Of the archive, unpacked beside the target for as long as it is read, or of the folder."""
    source, target = settings.source, settings.target
    if source.is_dir():
        with min_dalle(source, settings.num_heads) as conversion:
            yield conversion
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
        folder = Path(name)
        unpack(source, MINDALLE_FILES, folder, optional=[name for pair in MINDALLE_WORDS for name in pair])
        check_words(source, {path.name for path in folder.iterdir()})
        try:
            with refused_in_one_line(settings), min_dalle(folder, settings.num_heads) as conversion:
                yield conversion._replace(notes=[note.replace(str(folder), str(source)) for note in conversion.notes])
        except UserError as error:  # while the unpacked files are there, and by the name that the user knows
            raise UserError(str(error).replace(str(folder), str(source))) from error


def check_words(archive: Path, unpacked: set[str]) -> None:
    """ForeignFile where an archive has no vocabulary with its merges, under either name."""
    if not any(unpacked.issuperset(pair) for pair in MINDALLE_WORDS):
        lacking = next(name for name in MINDALLE_WORDS[0] if name not in unpacked)
        raise ForeignFile(f"{archive} holds no {lacking}")


def from_story_dalle(settings: ConvertSettings) -> AbstractContextManager[Conversion]:
    return released_story_dalle(settings.source, settings.num_heads, settings.added_names)


def from_mega(settings: ConvertSettings) -> AbstractContextManager[Conversion]:
    assert settings.image_encoder is not None
    suffix = "_mini" if settings.format == "dalle-mini" else ""
    return mega(settings.source, settings.image_encoder, suffix, settings.num_heads)


# ------------------------------------------------------------------------------------------------ image tokenizers


def from_dvae(settings: ConvertSettings) -> OpenedTokenizer:
    """Of OpenAI's two files; or of FLAVA's codebook, which is the same encoder, and OpenAI's decoder."""
    folder, codebook = settings.source, settings.image_encoder
    encoder = folder / "encoder.pkl" if codebook is None else codebook_file(codebook)
    return read_dvae(encoder, folder / "decoder.pkl")


def codebook_file(path: Path) -> Path:
    """The weights of a model of transformers, given as a file or as its folder."""
    if not path.is_dir():
        return path
    found = [path / name for name in CODEBOOK_FILES if (path / name).is_file()]
    if not found:
        raise UserError(f"image_encoder={path} holds neither {' nor '.join(CODEBOOK_FILES)}")
    return found[0]


def from_vqgan(settings: ConvertSettings) -> OpenedTokenizer:
    return read_vqgan(settings.source)


def tokenizer_card(settings: ConvertSettings) -> dict[str, object]:
    source, encoder = settings.source, settings.image_encoder
    files = ["encoder.pkl", "decoder.pkl"] if source.is_dir() else [source.name]
    if encoder is not None:
        files[0] = encoder.name
    return licences.converted(settings.format, files, is_flava=encoder is not None)


# ------------------------------------------------------------------------------------------------ tables

MODELS: dict[str, Callable[[ConvertSettings], AbstractContextManager[Conversion]]] = {
    "mindalle": from_min_dalle,
    "storydalle": from_story_dalle,
    "dalle-mega": from_mega,
    "dalle-mini": from_mega,
}
TOKENIZERS: dict[str, Callable[[ConvertSettings], OpenedTokenizer]] = {
    "taming-vqgan": from_vqgan,
    "openai-dvae": from_dvae,
}
RELEASES: dict[str, Callable[[Path], AbstractContextManager[Release]]] = {
    "mindalle": mindalle_release,
    "dalle-mega": mega_release,
    "dalle-mini": partial(mega_release, suffix="_mini"),
    "taming-vqgan": taming_release,
}
