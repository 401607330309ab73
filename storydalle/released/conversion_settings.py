"""The settings of a conversion, filled and checked once: which formats there are, and how their authors share them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from storydalle.mistakes import UserError, told_in_one_line
from storydalle.released.release import ONE_WAY
from storydalle.settings import Count, OneOf

FORMATS = ("mindalle", "storydalle", "dalle-mega", "dalle-mini", "taming-vqgan", "openai-dvae")
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
DTYPES = ("float32", "float16", "bfloat16")
FORWARD_ONLY = ("dtype", "image_encoder", "num_heads", "added_names", "megabytes_a_file")
ENCODED_ELSEWHERE = ("dalle-mega", "dalle-mini")  # formats that need ``image_encoder``
ENCODED_APART = (*ENCODED_ELSEWHERE, "openai-dvae")  # and those that read it


@dataclass(frozen=True)
class ConvertSettings:
    format: Annotated[str, OneOf(FORMATS)]
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


def may_be_archive(path: Path) -> bool:
    """Neither weights of torch nor a zip archive, which begin alike, nor something readable."""
    with told_in_one_line(f"source={path} cannot be read", OSError), path.open("rb") as file:
        return file.read(1) not in (b"P", b"\x80", b"{", b"<")
