"""Released image tokenizers: the layouts of their files, and network settings from their shapes.

=================== ============================================================== ==================================
layout              file                                                           whose
=================== ============================================================== ==================================
taming-vqgan        ``.ckpt`` of Lightning, key ``state_dict``                     taming-transformers, minDALL-E
taming-gumbel-vqgan the same                                                       taming-transformers
openai-dvae         ``encoder.pkl`` and ``decoder.pkl``, whole pickled networks    OpenAI
flava               the encoder of ``openai-dvae``, as ``FlavaImageCodebook``      transformers
detoker             ``detoker.pt``, a bare state dict                              min-dalle, of dalle-mini
=================== ============================================================== ==================================

Names and shapes follow the released code; no released file has been read with these tables yet.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from storydalle.released.layouts import Layout, LayoutError, Row, Shape, count
from storydalle.released.stored_weights import WRAPPER, StoredWeights, stored_weights
from storydalle.tokens.dvae import DVAE
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.paired import PairedTokenizer
from storydalle.tokens.vqgan import VQGAN

Network = TypeVar("Network", bound=nn.Module)


class OpenedTokenizer(NamedTuple):
    """A tokenizer from a released file, the names of other content of the file, and notes about it."""

    tokenizer: ImageTokenizer
    dropped: list[str]
    notes: list[str]


# ---------------------------------------------------------------------------------------------------- tables


def same(name: str, axes: str) -> Row:
    return Row(name, name, axes)


def conv(name: str, out: str, into: str, kernel: int) -> list[Row]:
    """A convolution with bias; both programs use the same name."""
    return [same(f"{name}.weight", f"{out} {into} {kernel} {kernel}"), same(f"{name}.bias", out)]


def norm(name: str, width: str) -> list[Row]:
    return [same(f"{name}.weight", width), same(f"{name}.bias", width)]


def taming_blocks(side: str, level: str) -> list[Row]:
    """The blocks of the encoder or the decoder; the first block of a level has the input width of its neighbour."""
    block, attention, mid = f"{side}.{level}.{{i}}.block", f"{side}.{level}.{{i}}.attn.{{j}}", f"{side}.mid"
    before = f"{side}_before{{0}}"
    return [
        *norm(f"{block}.0.norm1", before),
        *conv(f"{block}.0.conv1", "width{0}", before, 3),
        *conv(f"{block}.0.nin_shortcut", "width{0}", before, 1),
        *norm(f"{block}.{{j}}.{{norm1|norm2}}", "width{0}"),
        *conv(f"{block}.{{j}}.{{conv1|conv2}}", "width{0}", "width{0}", 3),
        *norm(f"{attention}.norm", "width{0}"),
        *conv(f"{attention}.{{q|k|v|proj_out}}", "width{0}", "width{0}", 1),
        *norm(f"{mid}.{{block_1|block_2}}.{{norm1|norm2}}", "mid"),
        *conv(f"{mid}.{{block_1|block_2}}.{{conv1|conv2}}", "mid", "mid", 3),
        *norm(f"{mid}.attn_1.norm", "mid"),
        *conv(f"{mid}.attn_1.{{q|k|v|proj_out}}", "mid", "mid", 1),
    ]


TAMING_ENCODER = (
    *conv("encoder.conv_in", "width0", "pixels", 3),
    *taming_blocks("encoder", "down"),
    *conv("encoder.down.{i}.downsample.conv", "width{0}", "width{0}", 3),
    *norm("encoder.norm_out", "mid"),
    *conv("encoder.conv_out", "z", "mid", 3),
    *conv("quant_conv", "embed", "z", 1),
)
TAMING_DECODER = (
    *conv("post_quant_conv", "z", "embed", 1),
    *conv("decoder.conv_in", "mid", "z", 3),
    *taming_blocks("decoder", "up"),
    *conv("decoder.up.{i}.upsample.conv", "width{0}", "width{0}", 3),
    *norm("decoder.norm_out", "width0"),
    *conv("decoder.conv_out", "pixels", "width0", 3),
)
# What trainings of taming's family leave in a checkpoint beside the network.
TAMING_TRAINING = {
    "loss.": "which training alone needs",  # the discriminator, and the network of the perceptual distance
    "model_ema.": "running means of the weights, of which the weights themselves are taken",
    "colorize": "colours of the training's logs",
    "quantize.embedding.cluster_size": "statistics of the codebook's running means",
    "quantize.embedding.embed_avg": "statistics of the codebook's running means",
}
USED = "quantize.used"  # the codes of a codebook that were kept
CODES_OF_ALL = {
    USED: "by which its program numbers the codes that it keeps; here they have the numbers of the codebook"
}
TAMING_VQGAN = Layout(
    "taming-vqgan",
    (*TAMING_ENCODER, same("quantize.embedding.weight", "codes embed"), *TAMING_DECODER),
    dropped=TAMING_TRAINING | CODES_OF_ALL,
)
TAMING_GUMBEL_VQGAN = Layout(
    "taming-gumbel-vqgan",
    (
        *TAMING_ENCODER,
        Row("quantize.embed.weight", "quantize.embedding.weight", "codes embed"),
        *conv("quantize.proj", "codes", "embed", 1),
        *TAMING_DECODER,
    ),
    dropped=TAMING_TRAINING,
)
# How min-dalle's program runs its detokenizer: pictures in [0, 1], and torch's own epsilon in the norms.
DETOKER_UNTOLD: dict[str, object] = {"pixel_range": (0.0, 1.0), "norm_eps": 1e-5}
DETOKER = Layout("detoker", (Row("embedding.weight", "quantize.embedding.weight", "codes embed"), *TAMING_DECODER))


class Spelling(NamedTuple):
    """The names of the dVAE's layers in a release; ours are those of OpenAI, with the endings of FLAVA."""

    group: str = ""  # a level of names within groups
    path: str = ""  # and within residual paths
    weight: str = "w"
    bias: str = "b"


OPENAI, FLAVA = Spelling(), Spelling("group.", "path.", "weight", "bias")


def dvae_conv(side: str, theirs: str, ours: str, axes: str, spelling: Spelling) -> list[Row]:
    return [
        Row(f"blocks.{theirs}.{spelling.weight}", f"{side}.blocks.{ours}.weight", axes),
        Row(f"blocks.{theirs}.{spelling.bias}", f"{side}.blocks.{ours}.bias", axes.split()[0]),
    ]


def dvae_layout(name: str, side: str, ends: tuple[str, str], kernels: tuple[int, ...], spelling: Spelling) -> Layout:
    """One side: between its two ends groups of blocks, whose four convolutions have these kernels."""
    rows = [
        *dvae_conv(side, "input", "input", ends[0], spelling),
        *dvae_conv(side, "output.conv", "output.conv", ends[1], spelling),
    ]
    first, second, third, last = kernels
    for block, layer, axes in (
        ("1", "id_path", "width{0} before{0} 1 1"),
        ("1", "conv_1", f"inner{{0}} before{{0}} {first} {first}"),
        ("{j}", "conv_1", f"inner{{0}} width{{0}} {first} {first}"),
        ("{j}", "conv_2", f"inner{{0}} inner{{0}} {second} {second}"),
        ("{j}", "conv_3", f"inner{{0}} inner{{0}} {third} {third}"),
        ("{j}", "conv_4", f"width{{0}} inner{{0}} {last} {last}"),
    ):
        theirs = f"group_{{i}}.{spelling.group}block_{block}."
        ours = f"group_{{i}}.block_{block}."
        if layer == "id_path":
            rows += dvae_conv(side, theirs + layer, ours + layer, axes, spelling)
        else:
            their_layer, our_layer = f"res_path.{spelling.path}{layer}", f"res_path.{layer}"
            rows += dvae_conv(side, theirs + their_layer, ours + our_layer, axes, spelling)
    return Layout(name, rows)


ENCODER_ENDS, DECODER_ENDS = ("hidden 3 7 7", "codes last 1 1"), ("embed codes 1 1", "6 hidden 1 1")
OPENAI_ENCODER = dvae_layout("openai-dvae (encoder)", "encoder", ENCODER_ENDS, (3, 3, 3, 1), OPENAI)
OPENAI_DECODER = dvae_layout("openai-dvae (decoder)", "decoder", DECODER_ENDS, (1, 3, 3, 3), OPENAI)
FLAVA_ENCODER = dvae_layout("flava", "encoder", ENCODER_ENDS, (3, 3, 3, 1), FLAVA)


# ------------------------------------------------------------------------------- what shapes tell of a network


def vqgan_config(
    theirs: Mapping[str, Shape], layout: Layout, resolution: int = 256, **untold: object
) -> dict[str, object]:
    """The config of a VQGAN, or of its decoding half, with tensors of these shapes.

    Shapes do not tell the resolution and the settings ``untold``: ``norm_groups``, ``norm_eps``, ``pixel_range``.
    """
    sizes = layout.sizes(theirs)
    levels, blocks_more = ("decoder.up", 1) if layout is DETOKER else ("encoder.down", 0)
    num_levels = count(theirs, f"{levels}.{{i}}.")
    widths = [sizes[f"width{i}"] for i in range(max(num_levels, 1))]
    if any(width % widths[0] for width in widths):
        raise LayoutError(f"the widths {widths} of {levels} are no multiples of the first")
    shuffle = math.isqrt(sizes["pixels"] // 3)
    if sizes["pixels"] != 3 * shuffle**2:
        raise LayoutError(f"its pictures have {sizes['pixels']} channels and not 3: they are maps of something else")
    attention = [i for i in range(num_levels) if any(key.startswith(f"{levels}.{i}.attn.") for key in theirs)]
    return {
        "resolution": resolution,
        "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths],
        "num_res_blocks": count(theirs, f"{levels}.0.block.{{j}}.") - blocks_more,
        "attn_resolutions": [resolution // shuffle // 2**i for i in attention],
        "z_channels": sizes["z"],
        "codebook_size": sizes["codes"],
        "embed_dim": sizes["embed"],
        "mid_attention": any(key.startswith(("encoder.mid.attn_1.", "decoder.mid.attn_1.")) for key in theirs),
        "pixel_shuffle": shuffle,
        "quantizer": "gumbel" if layout is TAMING_GUMBEL_VQGAN else "nearest",
        **untold,
    }


def dvae_config(encoder: Mapping[str, Shape], layout: Layout, decoder: Mapping[str, Shape]) -> dict[str, object]:
    """The config of a dVAE whose encoder, of either layout, and whose decoder have tensors of these shapes."""
    sizes, level = layout.sizes(encoder), FLAVA.group if layout is FLAVA_ENCODER else OPENAI.group
    return {
        "hidden": sizes["hidden"],
        "num_groups": count(encoder, "blocks.group_{i}.", first=1),
        "blocks_per_group": count(encoder, f"blocks.group_1.{level}block_{{j}}.", first=1),
        "codebook_size": sizes["codes"],
        "embed_dim": OPENAI_DECODER.sizes(decoder)["embed"],
    }


# ----------------------------------------------------------------------------------------------------- files


def read_vqgan(path: Path, resolution: int = 256, **untold: object) -> OpenedTokenizer:
    """The VQGAN of a checkpoint of taming-transformers or of minDALL-E, with either quantizer.

    ``untold`` are settings that the file does not contain (see ``vqgan_config``), by default those of released models.
    Raises ForeignFile or LayoutError, naming the file and what is wrong, where it does not fit.
    """
    with stored_weights(path, key="state_dict") as stored, told_of(path):
        is_gumbel = any(key.startswith("quantize.proj.") for key in stored.shapes)
        if is_gumbel and USED in stored.shapes:
            raise LayoutError(
                f"{USED}: its encoder chooses among a part of the codes, and a Gumbel VQGAN here among all"
            )
        layout = TAMING_GUMBEL_VQGAN if is_gumbel else TAMING_VQGAN
        with torch.device("meta"):
            tokenizer = VQGAN(**vqgan_config(stored.shapes, layout, resolution, **untold))
        weights = converted(stored, layout, shapes_of(tokenizer))
        return OpenedTokenizer(filled(tokenizer, weights), layout.dropped(stored.shapes), remarks(stored, layout))


def read_dvae(encoder: Path, decoder: Path, resolution: int = 256) -> OpenedTokenizer:
    """The dVAE of OpenAI's two files; the encoder may be FLAVA's.

    Raises ForeignFile or LayoutError, naming the file and what is wrong, where one does not fit.
    """
    with stored_weights(encoder) as first, stored_weights(decoder) as second:
        layout = FLAVA_ENCODER if any(f".{FLAVA.group}" in key for key in first.shapes) else OPENAI_ENCODER
        with told_of(encoder):
            layout.told(first.shapes, "hidden", "codes")
        with told_of(decoder), torch.device("meta"):
            tokenizer = DVAE(resolution=resolution, **dvae_config(first.shapes, layout, second.shapes))
        with told_of(encoder):
            weights = converted(first, layout, shapes_of(tokenizer, "encoder."))
        with told_of(decoder):
            weights |= converted(second, OPENAI_DECODER, shapes_of(tokenizer, "decoder."))
        notes = remarks(first, layout) + remarks(second, OPENAI_DECODER)
        return OpenedTokenizer(filled(tokenizer, weights), [], notes)


def read_paired(
    tokenizer: Path,
    detokenizer: Path,
    resolution: int = 256,
    untold: Mapping[str, object] | None = None,
    untold_of_detokenizer: Mapping[str, object] | None = None,
) -> OpenedTokenizer:
    """Codes of taming's VQGAN, pictures of min-dalle's ``detoker.pt``, run as ``DETOKER_UNTOLD`` unless it is told.

    Raises ForeignFile or LayoutError, naming the file and what is wrong, where one does not fit, and ValueError where
    the two do not fit each other.
    """
    encoding, dropped, notes = read_vqgan(tokenizer, resolution, **(untold or {}))
    with stored_weights(detokenizer) as stored, told_of(detokenizer):
        drawing = DETOKER_UNTOLD | dict(untold_of_detokenizer or {})
        config = vqgan_config(stored.shapes, DETOKER, resolution, **drawing)
        with torch.device("meta"):
            pair = PairedTokenizer(encoding.config, config)
        weights = converted(stored, DETOKER, shapes_of(pair.detokenizer))
        notes += remarks(stored, DETOKER)
    filled(pair.detokenizer, weights)
    kept = pair.tokenizer.state_dict()
    filled(pair.tokenizer, {name: value for name, value in encoding.state_dict().items() if name in kept})
    return OpenedTokenizer(pair.eval(), dropped, notes)


def remarks(stored: StoredWeights, layout: Layout) -> list[str]:
    """Notes about tensors that are changed or left out."""
    told = layout.left_out(stored.shapes)
    if stored.is_wrapped:
        told.insert(0, f"names are read without {WRAPPER!r}, which a parallel training put into them")
    return [f"{stored.path}: {text}" for text in told]


@contextmanager
def told_of(path: Path) -> Iterator[None]:
    """Add the name of the file to errors about its weights."""
    try:
        yield
    except ValueError as error:
        raise LayoutError(f"{path}: {error}", path, getattr(error, "layout", None)) from error


def shapes_of(network: nn.Module, beginning: str = "") -> dict[str, Shape]:
    """The shapes of a network's tensors whose names begin so."""
    return {key: tuple(value.shape) for key, value in network.state_dict().items() if key.startswith(beginning)}


def converted(stored: StoredWeights, layout: Layout, ours: Mapping[str, Shape]) -> dict[str, Tensor]:
    """Their weights under our names, in single precision, read one at a time."""
    matches = layout.matched(stored.shapes, ours)
    read = {name: match.row.forward(stored.read(match.theirs)) for name, match in matches.items()}
    return {name: value.to(torch.float32, copy=True).contiguous() for name, value in read.items()}


def filled(network: Network, weights: Mapping[str, Tensor]) -> Network:
    """Fill a network that has no numbers yet."""
    network.load_state_dict(dict(weights), assign=True)
    return network.eval()
