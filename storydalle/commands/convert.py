"""convert: turn released weights into a model folder, without running any code of their files.

  storydalle convert format=mindalle source=1.3B.tar.gz target=models/mindalle     or the unpacked folder
  storydalle convert format=storydalle source=49.pth target=models/story           vocab.json, merges.txt beside it
  storydalle convert format=dalle-mega source=FOLDER image_encoder=last.ckpt target=models/mega   or dalle-mini
  storydalle convert format=taming-vqgan source=last.ckpt target=models/vqgan
  storydalle convert format=openai-dvae source=FOLDER target=models/dvae           encoder.pkl, decoder.pkl
  storydalle convert format=openai-dvae source=FOLDER image_encoder=flava-image-codebook target=models/dvae   FLAVA's

With reverse=true a model folder becomes files of mindalle, dalle-mega, dalle-mini or taming-vqgan again:

  storydalle convert format=mindalle reverse=true source=models/mindalle target=1.3B.tar.gz    or a folder

Then: storydalle train experiment=pororo/story_dalle_full pretrained=models/mindalle, or generate model=models/mindalle.
"""

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
from tqdm import tqdm

from storydalle.commands.application import Request
from storydalle.files import locks, outputs
from storydalle.files.weights import NoRoom, check_room
from storydalle.files.whole import folder_when_whole
from storydalle.mistakes import UserError, told_in_one_line
from storydalle.models import cards, licences
from storydalle.models.pretrained import CARD_NAME, README_NAME, read_card
from storydalle.released.archives import unpack
from storydalle.released.conversion import (
    WORDS,
    Conversion,
    Source,
    mega,
    min_dalle,
    released_story_dalle,
    write_conversion,
)
from storydalle.released.layouts import LayoutError
from storydalle.released.recognition import mistaken
from storydalle.released.release import (
    ONE_WAY,
    Release,
    mega_release,
    mindalle_release,
    taming_release,
    write_release,
)
from storydalle.released.tokenizer_layouts import OpenedTokenizer, read_dvae, read_vqgan
from storydalle.released.torch_files import ForeignFile
from storydalle.settings import Count, OneOf, filled

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MINDALLE_FILES = ("stage1_last.ckpt", "stage2_last.ckpt")
MINDALLE_WORDS = [(f"{beginning}vocab.json", f"{beginning}merges.txt") for beginning in WORDS]
# What ``source`` is, where it is a file, and where it is a folder.
FILES = {"storydalle": "the checkpoint itself, such as 49.pth", "taming-vqgan": "the checkpoint itself, last.ckpt"}
FOLDERS = {
    "mindalle": "the .tar.gz, or the folder that holds stage1_last.ckpt, stage2_last.ckpt and the vocabulary",
    "dalle-mega": "the folder that holds encoder.pt, decoder.pt, detoker.pt and the vocabulary",
    "dalle-mini": "the folder that holds encoder_mini.pt, decoder_mini.pt, detoker.pt and the vocabulary",
    "openai-dvae": "the folder that holds encoder.pkl and decoder.pkl",
}

# Formats that people ask for, but that cannot be read.
REFUSED = {
    "rudalle": "ruDALL-E is a different transformer, not this one with other names: it has norms before and after "
    "every attention and network (before_first_addition_layernorm, before_second_addition_layernorm), a row and a "
    "column vector for every code, sparse masks by row, column and convolution, which its file stores, and a padding "
    "vector for every text position; the backbones here have none of these",
}
CODEBOOK_FILES = ("model.safetensors", "pytorch_model.bin")  # of transformers
FORWARD_ONLY = ("dtype", "image_encoder", "num_heads", "added_names", "megabytes_a_file")
ENCODED_ELSEWHERE = ("dalle-mega", "dalle-mini")  # formats that need ``image_encoder``
ENCODED_APART = (*ENCODED_ELSEWHERE, "openai-dvae")  # and those that read it


@dataclass(frozen=True)
class ConvertSettings:
    format: Annotated[str, OneOf(lambda: formats())]
    reverse: bool  # from a folder of ours to the files of that format
    source: Path
    target: Path  # not there yet
    dtype: str | None  # null keeps what there is
    image_encoder: Path | None  # the encoder where ``source`` has none, or another one
    num_heads: Count | None  # of the transformer; by default 64 wide
    added_names: tuple[str, ...] | None  # of format=storydalle
    megabytes_a_file: Count  # 10^6 bytes

    def __post_init__(self) -> None:
        self.check_direction()
        if self.dtype is not None and self.dtype not in DTYPES:
            raise UserError(f"dtype={self.dtype} is none of {', '.join(DTYPES)}; leave it out to keep the types")
        if not self.source.exists():
            raise UserError(f"source={self.source} does not exist: give the file or folder that its authors share")
        self.check_kind()
        if self.target.exists():
            raise UserError(f"target={self.target} exists already: choose a new folder")

    def check_direction(self) -> None:
        """Refuse a direction that the format has not, and an encoder that it has no use for or lacks."""
        if self.reverse and self.format in ONE_WAY:
            raise UserError(f"format={self.format} can be read but not written: {ONE_WAY[self.format]}")
        if self.image_encoder is not None and self.format not in ENCODED_APART:
            raise UserError(f"format={self.format} has its own encoder: leave image_encoder out")
        if self.image_encoder is None and self.format in ENCODED_ELSEWHERE and not self.reverse:
            raise UserError(
                f"format={self.format} needs image_encoder=FILE, a VQGAN of taming-transformers (f16-16384): "
                "min-dalle's files can draw pictures but not encode them, and a story begins with a picture"
            )

    def check_kind(self) -> None:
        """Refuse a file in the place of a folder, and the reverse."""
        source, encoder = self.source, self.image_encoder
        if self.reverse:
            if not source.is_dir():
                raise UserError(f"source={source} is a file: with reverse=true, give a model's folder of this package")
            return
        if source.is_dir() and self.format in FILES:
            raise UserError(f"source={source} is a folder: format={self.format} is read from {FILES[self.format]}")
        is_archive = self.format == "mindalle" and source.is_file() and may_be_archive(source)
        if source.is_file() and self.format in FOLDERS and not is_archive:
            raise UserError(f"source={source} is a file: format={self.format} is read from {FOLDERS[self.format]}")
        if encoder is not None and not encoder.exists():
            raise UserError(f"image_encoder={encoder} does not exist")
        if encoder is not None and encoder.is_dir() and self.format != "openai-dvae":
            raise UserError(f"image_encoder={encoder} is a folder: give the VQGAN's checkpoint itself, last.ckpt")


def run(request: Request) -> None:
    settings = checked(request)
    outputs.check_space(settings.target, megabytes=10)
    with locks.held(settings.target, "convert", is_folder=False):
        write(settings)


def checked(request: Request) -> ConvertSettings:
    """The settings, none of which the format or the direction passes over."""
    asked = request.settings
    for name in ("format", "source", "target"):
        if asked[name] is None:
            raise UserError(
                f"{name} is not set: storydalle convert format={'|'.join(formats())} source=PATH target=FOLDER"
            )
    if asked["format"] in REFUSED:
        raise UserError(f"format={asked['format']} is not supported: {REFUSED[asked['format']]}")
    if asked["reverse"] is True and asked["format"] not in ONE_WAY:
        without = sorted(request.given & set(FORWARD_ONLY))
        if without:
            raise UserError(
                f"{without[0]} has no effect with reverse=true, which writes everything as it is: leave it out"
            )
    return filled(ConvertSettings, asked)


def write(settings: ConvertSettings) -> None:
    """Convert, one way or the other."""
    with refused_in_one_line(settings), told_in_one_line("", FileExistsError, NoRoom):
        if settings.reverse:
            write_released(settings)
        elif settings.format in MODELS:
            write_model_folder(settings)
        else:
            write_tokenizer(TOKENIZERS[settings.format](settings), settings.target, tokenizer_card(settings))
    print(f"wrote {settings.target}")


@contextmanager
def refused_in_one_line(settings: ConvertSettings) -> Iterator[None]:
    """Say what is wrong with a file and, where it is another format's, with whose it is, as a user's mistake."""
    try:
        yield
    except (LayoutError, ForeignFile) as error:
        seems = None if settings.reverse else mistaken(error, settings.format)
        raise UserError(f"{error}" + (f"; {error.path} looks like {seems}" if seems else "")) from error


def may_be_archive(path: Path) -> bool:
    """Neither weights of torch nor a zip archive, which begin alike, nor something readable."""
    with told_in_one_line(f"source={path} cannot be read", OSError), path.open("rb") as file:
        return file.read(1) not in (b"P", b"\x80", b"{", b"<")


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


def write_model_folder(settings: ConvertSettings) -> None:
    dtype = None if settings.dtype is None else DTYPES[settings.dtype]
    max_bytes = settings.megabytes_a_file * 10**6
    with MODELS[settings.format](settings) as conversion:
        say(conversion.notes, conversion.model.card)
        with counted(conversion.tensors.values()) as bar:
            write_conversion(conversion, settings.target, dtype, max_bytes, progress=bar.update)


def say(notes: Iterable[str], card: Mapping[str, object]) -> None:
    """Print the notes, and the licences that go with the weights."""
    for note in notes:
        print(f"note: {note}")
    if terms := licences.told(card):
        print(f"licences: {terms}")


def counted(tensors: Iterable[Source]) -> tqdm:
    """A bar, on a terminal, of the bytes of all tensors."""
    total = sum(source.num_bytes for source in tensors)
    return tqdm(total=total, unit="B", unit_scale=True, desc="converting", disable=None, leave=False)


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


def write_tokenizer(opened: OpenedTokenizer, target: Path, card: dict[str, object]) -> None:
    """The tokenizer with a card and a README, as models have them."""
    say(opened.notes, card)
    check_room(target, sum(value.nbytes for value in opened.tokenizer.state_dict().values()))
    with folder_when_whole(target) as folder:
        opened.tokenizer.save_pretrained(folder)
        (folder / CARD_NAME).write_text(json.dumps(card, indent=2) + "\n")
        facts = {"pictures": f"{opened.tokenizer.resolution} x {opened.tokenizer.resolution} pixels"}
        facts["codes"] = f"{opened.tokenizer.num_codes} a picture, of {opened.tokenizer.codebook_size}"
        readme = cards.tokenizer_card(target.name, facts, card)
        (folder / README_NAME).write_text(readme)


# ------------------------------------------------------------------------------------------------ the other way


def write_released(settings: ConvertSettings) -> None:
    with RELEASES[settings.format](settings.source) as release:
        with told_in_one_line(f"{settings.source / CARD_NAME} is no card"):
            say(release.notes, read_card(settings.source))
        with counted(source for file in release.weights.values() for source in file.tensors.values()) as bar:
            write_release(release, settings.target, progress=bar.update)


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


def formats() -> list[str]:
    return [*MODELS, *TOKENIZERS]
