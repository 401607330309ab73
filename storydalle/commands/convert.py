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

from collections.abc import Iterable, Mapping

import torch
from tqdm import tqdm

from storydalle.commands.application import Request
from storydalle.files import locks, outputs
from storydalle.files.weights import NoRoom
from storydalle.mistakes import UserError, told_in_one_line
from storydalle.models import licences
from storydalle.models.pretrained import CARD_NAME, read_card
from storydalle.released.conversion import Source, write_conversion, write_tokenizer
from storydalle.released.conversion_settings import FORMATS, FORWARD_ONLY, REFUSED, ConvertSettings
from storydalle.released.formats import MODELS, RELEASES, TOKENIZERS, refused_in_one_line, tokenizer_card
from storydalle.released.release import ONE_WAY, write_release
from storydalle.settings import filled


def run(request: Request) -> None:
    settings = checked(request)
    outputs.check_space(settings.target, megabytes=10)
    with locks.held(settings.target, "convert", is_folder=False):
        write(settings)


def checked(request: Request) -> ConvertSettings:
    """The settings of a conversion; one that this format or direction would ignore is refused."""
    asked = request.settings
    for name in ("format", "source", "target"):
        if asked[name] is None:
            raise UserError(
                f"{name} is not set: storydalle convert format={'|'.join(FORMATS)} source=PATH target=FOLDER"
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
    """Convert to a model folder or, with ``reverse=true``, back."""
    with refused_in_one_line(settings), told_in_one_line("", FileExistsError, NoRoom):
        if settings.reverse:
            write_released(settings)
        elif settings.format in MODELS:
            write_model_folder(settings)
        else:
            write_tokenizer_folder(settings)
    print(f"wrote {settings.target}")


def write_model_folder(settings: ConvertSettings) -> None:
    dtype = None if settings.dtype is None else getattr(torch, settings.dtype)
    max_bytes = settings.megabytes_a_file * 10**6
    with MODELS[settings.format](settings) as conversion:
        say(conversion.notes, conversion.model.card)
        with counted(conversion.tensors.values()) as bar:
            write_conversion(conversion, settings.target, dtype, max_bytes, progress=bar.update)


def say(notes: Iterable[str], card: Mapping[str, object]) -> None:
    """Print the notes and the licences of the weights."""
    for note in notes:
        print(f"note: {note}")
    if terms := licences.told(card):
        print(f"licences: {terms}")


def counted(tensors: Iterable[Source]) -> tqdm:
    """A progress bar, if this is a terminal, that counts the bytes of all tensors."""
    total = sum(source.num_bytes for source in tensors)
    return tqdm(total=total, unit="B", unit_scale=True, desc="converting", disable=None, leave=False)


def write_tokenizer_folder(settings: ConvertSettings) -> None:
    opened, card = TOKENIZERS[settings.format](settings), tokenizer_card(settings)
    say(opened.notes, card)
    write_tokenizer(opened.tokenizer, settings.target, card)


def write_released(settings: ConvertSettings) -> None:
    with RELEASES[settings.format](settings.source) as release:
        with told_in_one_line(f"{settings.source / CARD_NAME} is no card"):
            say(release.notes, read_card(settings.source))
        with counted(source for file in release.weights.values() for source in file.tensors.values()) as bar:
            write_release(release, settings.target, progress=bar.update)
