"""convert: released weights, read without running any of their code, into a folder of ours.

  storydalle convert format=mindalle source=1.3B.tar.gz target=models/mindalle     or the unpacked folder
  storydalle convert format=storydalle source=49.pth target=models/story           vocab.json, merges.txt beside it
  storydalle convert format=dalle-mega source=FOLDER image_encoder=last.ckpt target=models/mega   or dalle-mini
  storydalle convert format=taming-vqgan source=last.ckpt target=models/vqgan
  storydalle convert format=openai-dvae source=FOLDER target=models/dvae           encoder.pkl, decoder.pkl
  storydalle convert format=openai-dvae source=FOLDER image_encoder=flava-image-codebook target=models/dvae   FLAVA's

With reverse=true a folder of ours becomes files of mindalle, dalle-mega, dalle-mini or taming-vqgan again:

  storydalle convert format=mindalle reverse=true source=models/mindalle target=1.3B.tar.gz    or a folder

Then: storydalle train experiment=pororo/story_dalle_full pretrained=models/mindalle, or generate model=models/mindalle.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from storydalle.checkpoints.archives import unpack
from storydalle.checkpoints.conversion import (
    Conversion,
    Source,
    mega,
    min_dalle,
    released_story_dalle,
    write_conversion,
)
from storydalle.checkpoints.layouts import LayoutError
from storydalle.checkpoints.recognition import looks_like
from storydalle.checkpoints.release import (
    ONE_WAY,
    Release,
    mega_release,
    mindalle_release,
    taming_release,
    write_release,
)
from storydalle.checkpoints.tokenizer_layouts import Opened, read_dvae, read_vqgan
from storydalle.checkpoints.torch_files import ForeignFile
from storydalle.commands import inputs, outputs
from storydalle.commands.application import Request
from storydalle.commands.mistakes import UserError, nearest
from storydalle.paths import user_path
from storydalle.weight_files import NoRoom, check_room, folder_when_whole

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MINDALLE_FILES = ("stage1_last.ckpt", "stage2_last.ckpt", "bpe-16k-vocab.json", "bpe-16k-merges.txt")


# Formats that are asked for and not read.
REFUSED = {
    "rudalle": "ruDALL-E is another transformer, not another spelling of this one: norms around and behind every "
    "attention and network (before_first_addition_layernorm, before_second_addition_layernorm), a row and a column "
    "vector for every code, sparse masks by row, column and convolution that its file stores, and a padding vector of "
    "its own for every text position; none of them has a place in the backbones here",
}
CODEBOOK_FILES = ("model.safetensors", "pytorch_model.bin")  # of transformers
FORWARD_ONLY = ("dtype", "image_encoder", "num_heads", "added_names", "megabytes_a_file")
ENCODED_APART = ("dalle-mega", "dalle-mini", "openai-dvae")  # formats that read ``image_encoder``


def run(request: Request) -> None:
    settings = checked(request)
    source, target = settings["source"], settings["target"]
    try:
        if settings["reverse"]:
            write_released(settings)
        elif settings["format"] in MODELS:
            write_model_folder(settings)
        else:
            write_tokenizer(TOKENIZERS[settings["format"]](settings), target)
    except (LayoutError, ForeignFile) as error:
        path = error.path or source
        seems = looks_like(path) if path.is_file() else None
        raise UserError(f"{error}" + (f"; {path} looks like {seems}" if seems else "")) from error
    except (FileExistsError, NoRoom) as error:
        raise UserError(str(error)) from error
    print(f"wrote {target}")


def checked(request: Request) -> dict[str, Any]:
    """The settings, where they can be meant."""
    settings, formats = dict(request.settings), [*MODELS, *TOKENIZERS]
    for name in ("format", "source", "target"):
        if settings[name] is None:
            raise UserError(
                f"{name} is not set: storydalle convert format={'|'.join(formats)} source=PATH target=FOLDER"
            )
    if settings["format"] in REFUSED:
        raise UserError(f"format={settings['format']} is not read: {REFUSED[settings['format']]}")
    if settings["format"] not in formats:
        raise UserError(f"no format={settings['format']}; {nearest(str(settings['format']), formats)}")
    check_options(settings, request.given)
    settings["source"], settings["target"] = (user_path(settings[name]) for name in ("source", "target"))
    if not settings["source"].exists():
        raise UserError(f"source={settings['source']} is not there: give the file or folder as its authors share it")
    if settings["target"].exists():
        raise UserError(f"target={settings['target']} is in use: choose a folder that is not there yet")
    outputs.check_space(settings["target"], megabytes=10)
    return settings


def check_options(settings: dict[str, Any], given: frozenset[str]) -> None:
    """Refuse options out of range, and those that the format or the direction would pass over."""
    if not isinstance(settings["reverse"], bool):
        raise UserError(f"reverse={settings['reverse']}: use true or false")
    if settings["reverse"] and settings["format"] in ONE_WAY:
        raise UserError(f"format={settings['format']} is read and not written: {ONE_WAY[settings['format']]}")
    if settings["reverse"] and (without := sorted(given & set(FORWARD_ONLY))):
        raise UserError(f"{without[0]} has no effect with reverse=true, where all is written as it is: leave it out")
    if settings["image_encoder"] is not None and settings["format"] not in ENCODED_APART:
        raise UserError(f"format={settings['format']} has its own encoder: leave image_encoder out")
    if settings["dtype"] is not None and settings["dtype"] not in DTYPES:
        raise UserError(f"dtype={settings['dtype']} is none of {', '.join(DTYPES)}; leave it out to keep what there is")
    if settings["num_heads"] is not None:
        inputs.check_number("num_heads", settings["num_heads"], 1, None, whole=True)
    inputs.check_number("megabytes_a_file", settings["megabytes_a_file"], 1, None, whole=True)


# ------------------------------------------------------------------------------------------------ models


@contextmanager
def from_min_dalle(settings: dict[str, Any]) -> Iterator[Conversion]:
    """Of the archive, unpacked beside the target for as long as it is read, or of the folder."""
    source, target = settings["source"], settings["target"]
    if source.is_dir():
        with min_dalle(source, settings["num_heads"]) as conversion:
            yield conversion
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        unpack(source, MINDALLE_FILES, Path(folder))
        with min_dalle(Path(folder), settings["num_heads"]) as conversion:
            yield conversion


def from_story_dalle(settings: dict[str, Any]) -> AbstractContextManager[Conversion]:
    names = settings["added_names"]
    return released_story_dalle(settings["source"], settings["num_heads"], None if names is None else tuple(names))


def from_mega(settings: dict[str, Any]) -> AbstractContextManager[Conversion]:
    if settings["image_encoder"] is None:
        raise UserError(
            f"format={settings['format']} needs image_encoder=FILE, a VQGAN of taming-transformers (f16-16384): "
            "min-dalle's files can draw pictures and not read them, and a story begins with one"
        )
    suffix = "_mini" if settings["format"] == "dalle-mini" else ""
    return mega(settings["source"], user_path(settings["image_encoder"]), suffix, settings["num_heads"])


def write_model_folder(settings: dict[str, Any]) -> None:
    dtype = None if settings["dtype"] is None else DTYPES[settings["dtype"]]
    max_bytes = settings["megabytes_a_file"] * 10**6
    with (
        MODELS[settings["format"]](settings) as conversion,
        told_and_counted(conversion.notes, conversion.tensors.values()) as bar,
    ):
        write_conversion(conversion, settings["target"], dtype, max_bytes, progress=bar.update)


def told_and_counted(notes: Iterable[str], tensors: Iterable[Source]) -> tqdm:
    """Say the notes; then a bar, on a terminal, of the bytes of all tensors."""
    for note in notes:
        print(f"note: {note}")
    total = sum(source.num_bytes for source in tensors)
    return tqdm(total=total, unit="B", unit_scale=True, desc="converting", disable=None, leave=False)


# ------------------------------------------------------------------------------------------------ image tokenizers


def from_dvae(settings: dict[str, Any]) -> Opened:
    """Of OpenAI's two files; or of FLAVA's codebook, which is the same encoder, and OpenAI's decoder."""
    folder, codebook = settings["source"], settings["image_encoder"]
    encoder = folder / "encoder.pkl" if codebook is None else codebook_file(user_path(codebook))
    return read_dvae(encoder, folder / "decoder.pkl")


def codebook_file(path: Path) -> Path:
    """The weights of a model of transformers, given as a file or as its folder."""
    if not path.is_dir():
        return path
    found = [path / name for name in CODEBOOK_FILES if (path / name).is_file()]
    if not found:
        raise UserError(f"image_encoder={path} holds neither {' nor '.join(CODEBOOK_FILES)}")
    return found[0]


def from_vqgan(settings: dict[str, Any]) -> Opened:
    return read_vqgan(settings["source"])


def write_tokenizer(opened: Opened, target: Path) -> None:
    if opened.dropped:
        print(f"note: left out {len(opened.dropped)} tensors of training: {', '.join(opened.dropped[:3])}, ...")
    check_room(target, sum(value.nbytes for value in opened.tokenizer.state_dict().values()))
    with folder_when_whole(target) as folder:
        opened.tokenizer.save_pretrained(folder)


# ------------------------------------------------------------------------------------------------ the other way


def write_released(settings: dict[str, Any]) -> None:
    with RELEASES[settings["format"]](settings["source"]) as release:
        tensors = (source for file in release.weights.values() for source in file.tensors.values())
        with told_and_counted(release.notes, tensors) as bar:
            write_release(release, settings["target"], progress=bar.update)


MODELS: dict[str, Callable[[dict[str, Any]], AbstractContextManager[Conversion]]] = {
    "mindalle": from_min_dalle,
    "storydalle": from_story_dalle,
    "dalle-mega": from_mega,
    "dalle-mini": from_mega,
}
TOKENIZERS: dict[str, Callable[[dict[str, Any]], Opened]] = {"taming-vqgan": from_vqgan, "openai-dvae": from_dvae}
RELEASES: dict[str, Callable[[Path], AbstractContextManager[Release]]] = {
    "mindalle": mindalle_release,
    "dalle-mega": mega_release,
    "dalle-mini": partial(mega_release, suffix="_mini"),
    "taming-vqgan": taming_release,
}
