"""A model folder -> the files of a release, by the tables of ``conversion`` in the other direction.

Nothing is lost silently: a feature that a release cannot hold (a retrofit, invisible padding, another epsilon) raises
an error before anything is written. Released files contain fewer settings than our config; their readers find the rest
from shapes and conventions. So the config that a reader would find is compared with ours, setting by setting.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import torch

from storydalle.files.weights import Planned, WithoutNumbers, check_room
from storydalle.files.whole import folder_when_whole
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.released.archives import pack
from storydalle.released.conversion import Progress, Source, image_tokenizer_config, resolution_of
from storydalle.released.layouts import Layout, LayoutError, Row, Shape, listed
from storydalle.released.model_layouts import (
    BACKBONE,
    ENCODING_VQGAN,
    HEAD_DIM,
    IMAGES,
    MEGA_DECODER,
    MEGA_ENCODER,
    MEGA_PICTURES,
    MINDALLE_STAGE1,
    MINDALLE_STAGE2,
    backbone_config,
    mega_config,
)
from storydalle.released.our_folders import OurModel, our_model, our_vqgan
from storydalle.released.tokenizer_layouts import (
    DETOKER,
    DETOKER_UNTOLD,
    TAMING_GUMBEL_VQGAN,
    TAMING_VQGAN,
    vqgan_config,
)
from storydalle.released.torch_writing import write_torch_file
from storydalle.tokens.byte_level import ByteLevelTokenizer
from storydalle.tokens.caption_tokenizer import CaptionTokenizer, TextTokenizer
from storydalle.tokens.paired import PairedTokenizer
from storydalle.tokens.vqgan import VQGAN

RESOLUTION = 256  # of a VQGAN on its own, which no file of taming's tells: what ``read_vqgan`` takes it for
ARCHIVE = ".tar.gz"
# Why a format is read and not written.
ONE_WAY = {
    "storydalle": "its files have no place for the source attention, which is what a trained model has learned",
    "openai-dvae": "its files are pickled networks, which only the classes of OpenAI's package can write",
}


class WeightsFile(NamedTuple):
    """One file of a release: a state dict, or a checkpoint that has it under ``key``; the names are theirs."""

    tensors: dict[str, Source]
    key: str | None = None


class Release(NamedTuple):
    """Everything that the files of a release are written from; our files to read are open."""

    weights: dict[str, WeightsFile]  # by their paths in the release
    texts: dict[str, str]  # the same
    notes: list[str]  # what the files leave to their reader


# ------------------------------------------------------------------------------------------------ formats


@contextmanager
def mindalle_release(folder: Path) -> Iterator[Release]:
    """minDALL-E's two stages, tokenizer and config, from a model without a retrofit.

    Raises ForeignFile or LayoutError, naming what does not fit, as every function of this section does.
    """
    with our_model(folder) as ours:
        check_kinds("mindalle", ours, DALLE.kind, VQGAN.kind, CaptionTokenizer.kind)
        first, second = (
            released(ours.tensors, layout, prefix)
            for layout, prefix in ((MINDALLE_STAGE1, IMAGES), (MINDALLE_STAGE2, BACKBONE))
        )
        backbone = ours.network.model.backbone
        settings = backbone.config
        said = backbone_config(shapes(second), MINDALLE_STAGE2, "", backbone.num_heads)
        images = image_tokenizer_config(shapes(first), said["image_length"])
        with WithoutNumbers():
            check_said("mindalle", settings, DALLE(**said, codes_of=ours.codes_of).config)
            check_said("mindalle", ours.network.image_tokenizer.config, VQGAN(**images).config)
        vocab, merges = caption_files("mindalle", ours.captions, read_words)
        config = json.dumps(mindalle_config(settings, ours.network.image_tokenizer.config), indent=2)
        yield Release(
            {
                "stage1_last.ckpt": WeightsFile(first, "state_dict"),
                "stage2_last.ckpt": WeightsFile(second, "state_dict"),
            },
            {
                "tokenizer/bpe-16k-vocab.json": vocab,
                "tokenizer/bpe-16k-merges.txt": merges,
                "config.yaml": f"{config}\n",  # json is yaml too
            },
            heads_note(said["dim"], backbone.num_heads),
        )


@contextmanager
def mega_release(folder: Path, suffix: str = "") -> Iterator[Release]:
    """min-dalle's files, with ``suffix`` in their names, and the encoding half of a VQGAN as ``last.ckpt``."""
    with our_model(folder) as ours:
        check_kinds("dalle-mega", ours, MegaDALLE.kind, PairedTokenizer.kind, ByteLevelTokenizer.kind)
        encoder, decoder, pictures, images = (
            released(ours.tensors, layout, prefix)
            for layout, prefix in (
                (MEGA_ENCODER, f"{BACKBONE}encoder."),
                (MEGA_DECODER, f"{BACKBONE}decoder."),
                (MEGA_PICTURES, f"{IMAGES}detokenizer."),
                (ENCODING_VQGAN, f"{IMAGES}tokenizer."),
            )
        )
        backbone, pair = ours.network.model.backbone, ours.network.image_tokenizer.config
        num_codes = MEGA_PICTURES.sizes(shapes(pictures))["codes"]
        said = mega_config(shapes(encoder), shapes(decoder), num_codes, backbone.num_heads)
        encoding = image_tokenizer_config(shapes(images), said["image_length"])
        resolution = resolution_of(shapes(images), said["image_length"])
        drawing = vqgan_config(shapes(pictures), DETOKER, resolution, **DETOKER_UNTOLD)
        with WithoutNumbers():
            check_said("dalle-mega", backbone.config, MegaDALLE(**said, codes_of=ours.codes_of).config)
            read = PairedTokenizer(encoding, drawing).config
        for half, theirs in read.items():
            own = pair[half]
            assert isinstance(own, Mapping) and isinstance(theirs, Mapping)
            check_said("dalle-mega", own, theirs)
        vocab, merges = caption_files("dalle-mega", ours.captions, read_bytes)
        files = {f"encoder{suffix}.pt": encoder, f"decoder{suffix}.pt": decoder, "detoker.pt": pictures}
        yield Release(
            {name: WeightsFile(tensors) for name, tensors in files.items()}
            | {"last.ckpt": WeightsFile(images, "state_dict")},
            {f"vocab{suffix}.json": vocab, f"merges{suffix}.txt": merges},
            [
                *heads_note(said["dim"], backbone.num_heads),
                "last.ckpt is the half of taming's VQGAN that reads source frames: give it as image_encoder",
            ],
        )


@contextmanager
def taming_release(folder: Path) -> Iterator[Release]:
    """The checkpoint of a VQGAN, with either quantizer, of a folder that holds an image tokenizer and nothing else."""
    with our_vqgan(folder) as (tokenizer, tensors):
        layout = TAMING_GUMBEL_VQGAN if tokenizer.config["quantizer"] == "gumbel" else TAMING_VQGAN
        theirs = released(tensors, layout, "")
        with WithoutNumbers():
            read = VQGAN(**vqgan_config(shapes(theirs), layout, RESOLUTION)).config
        check_said(layout.name, tokenizer.config, read)
        yield Release({"last.ckpt": WeightsFile(theirs, "state_dict")}, {}, [])


def mindalle_config(backbone: Mapping[str, object], images: Mapping[str, object]) -> dict[str, object]:
    """minDALL-E's ``config.yaml``, by the names of its program's settings."""
    return {
        "dataset": {
            "tokenizer_type": "CharBPE",
            "context_length": backbone["text_length"],
            "image_resolution": images["resolution"],
        },
        "stage1": {
            "type": "vqgan",
            "embed_dim": images["embed_dim"],
            "n_embed": images["codebook_size"],
            "hparams": {
                "double_z": False,
                **{name: images[name] for name in ("z_channels", "resolution", "ch", "ch_mult")},
                **{"in_channels": 3, "out_ch": 3, "pdrop": 0.0},
                **{name: images[name] for name in ("num_res_blocks", "attn_resolutions")},
            },
        },
        "stage2": {
            "type": "transformer1d",
            "vocab_size_txt": backbone["text_vocab_size"],
            "vocab_size_img": backbone["image_vocab_size"],
            "hparams": {
                "embed_dim": backbone["dim"],
                "n_layers": backbone["depth"],
                "n_heads": backbone["num_heads"],
                "ctx_len_img": backbone["image_length"],
                "ctx_len_txt": backbone["text_length"],
            },
        },
    }


# ------------------------------------------------------------------------------------------------ what is theirs


def released(tensors: Mapping[str, Source], layout: Layout, prefix: str) -> dict[str, Source]:
    """Our tensors with a name prefix, under their names; LayoutError for a tensor that they have no place for."""
    found: dict[str, Source] = {}
    for name, source in tensors.items():
        if name.startswith(prefix):
            theirs, row = layout.theirs_of(name)
            shape = tuple(row.backward(torch.empty(source.shape, device="meta")).shape)
            found[theirs] = Source(source.dtype, shape, partial(turned_back, row, source))
    return found


def turned_back(row: Row, source: Source) -> torch.Tensor:
    return row.backward(source.read())


def shapes(tensors: Mapping[str, Source]) -> dict[str, Shape]:
    return {name: source.shape for name, source in tensors.items()}


def check_kinds(layout: str, ours: OurModel, backbone: str, images: str, captions: str) -> None:
    """Raise LayoutError if a part has another kind than the layout's, or if there is a retrofit."""
    for what, found, belongs in (
        ("a backbone", ours.network.model.backbone.kind, backbone),
        ("an image tokenizer", ours.network.image_tokenizer.kind, images),
        ("a caption tokenizer", ours.captions.kind, captions),
    ):
        if found != belongs:
            raise LayoutError(f"the layout {layout} has no place for {what} of kind {found}: its own is {belongs}")
    around = [name for name in ours.tensors if not name.startswith((IMAGES, BACKBONE))]
    if around:
        parts = ", ".join(dict.fromkeys(name.split(".")[1] for name in around))
        raise LayoutError(
            f"the layout {layout} has no place for the retrofit: {parts} ({len(around)} tensors); only a model without "
            "one, which draws single pictures, is converted back"
        )


def check_said(layout: str, ours: Mapping[str, object], said: Mapping[str, object]) -> None:
    """Raise LayoutError for settings that a reader of the files would find with another value."""
    unsaid = [f"{name}={ours[name]} (its files mean {value})" for name, value in said.items() if ours[name] != value]
    if unsaid:
        raise LayoutError(f"the layout {layout} has no place for {listed(unsaid)}")


def heads_note(dim: int, num_heads: int) -> list[str]:
    """A note for models with heads of another width than the released ones: no tensor tells their number."""
    if num_heads == max(dim // HEAD_DIM, 1):
        return []
    return [f"no file tells its reader that there are {num_heads} heads: convert back with num_heads={num_heads}"]


def read_words(vocab: Path, merges: Path, ours: TextTokenizer) -> TextTokenizer:
    return CaptionTokenizer.from_files(vocab, merges, ours.text_length)


def read_bytes(vocab: Path, merges: Path, ours: TextTokenizer) -> TextTokenizer:
    spells = isinstance(ours, ByteLevelTokenizer) and ours.spells_emoji
    return ByteLevelTokenizer.from_files(vocab, merges, ours.text_length, ours.vocab_size, spells)


def caption_files(
    layout: str, captions: TextTokenizer, read: Callable[[Path, Path, TextTokenizer], TextTokenizer]
) -> tuple[str, str]:
    """Vocabulary and merges; LayoutError if a reader of them would not get the same tokenizer."""
    if names := getattr(captions, "added_names", ()):
        raise LayoutError(f"the layout {layout} has no place for names added to the vocabulary: {listed(names)}")
    texts = captions.to_files()
    with TemporaryDirectory() as folder:
        paths = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        for path, text in zip(paths, texts, strict=True):
            path.write_text(text, encoding="utf-8")
        if read(*paths, captions).fingerprint != captions.fingerprint:
            raise LayoutError(f"the layout {layout} has no place for all of the caption tokenizer: it is not plain BPE")
    return texts


# ------------------------------------------------------------------------------------------------ writing


def write_release(release: Release, target: Path, progress: Progress = lambda num_bytes: None) -> None:
    """Write the folder of a release, or an archive if the name ends in ``.tar.gz``; it gets its name when complete.

    Numbers keep their precision. Our files are memory-mapped and each tensor is written as it is, so memory holds at
    most the largest tensor, and pages of files that the system can drop. Raises FileExistsError if ``target`` exists,
    NoRoom if the disk is too small; an archive also needs the space of the folder.
    """
    plans = {
        path: [Planned(name, source.dtype, source.shape) for name, source in file.tensors.items()]
        for path, file in release.weights.items()
    }
    is_archive = target.name.endswith(ARCHIVE)
    check_room(target, (2 if is_archive else 1) * sum(tensor.num_bytes for plan in plans.values() for tensor in plan))
    if not is_archive:
        with folder_when_whole(target) as folder:
            write_files(release, plans, folder, progress)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as name:
        write_files(release, plans, Path(name) / "release", progress)
        pack(Path(name) / "release", target, target.name.removesuffix(ARCHIVE))


def write_files(release: Release, plans: Mapping[str, list[Planned]], folder: Path, progress: Progress) -> None:
    for name, text in release.texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for name, file in release.weights.items():

        def read(tensor: str, file: WeightsFile = file) -> torch.Tensor:
            value = file.tensors[tensor].read()
            progress(value.nbytes)
            return value

        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_torch_file(folder / name, plans[name], read, file.key)
