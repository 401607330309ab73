"""Released models of minDALL-E's family: the layouts of their files, and network settings from their shapes.

============ ================================================================ ======================
layout       files                                                            whose
============ ================================================================ ======================
mindalle     ``stage1_last.ckpt`` and ``stage2_last.ckpt``, key state_dict    kakaobrain/minDALL-E
storydalle   a training checkpoint, key state_dict or model_state_dict        adymaharana/storydalle
dalle-mega   ``encoder.pt``, ``decoder.pt`` and ``detoker.pt``, state dicts   kuprel/min-dalle
dalle-mini   the same, or ``encoder_mini.pt`` and ``decoder_mini.pt``         kuprel/min-dalle
============ ================================================================ ======================

Names and shapes follow the released code; no released file has been read with these tables yet.
"""

from collections.abc import Mapping, Sequence

from storydalle.released.layouts import Layout, LayoutError, Row, Shape, count
from storydalle.released.tokenizer_layouts import (
    CODES_OF_ALL,
    DETOKER,
    TAMING_ENCODER,
    TAMING_TRAINING,
    TAMING_VQGAN,
    norm,
    same,
)

HEAD_DIM = 64  # of the released models; no shape tells it
# Names that the released StoryDALL-E added to the vocabulary, told by how many rows there are.
ADDED_NAMES = {
    0: (),
    9: ("pororo", "loopy", "eddy", "harry", "poby", "tongtong", "crong", "rody", "petty"),
    7: ("fred", "barney", "wilma", "betty", "pebbles", "dino", "slate"),
}


def linear(name: str, out: str, into: str) -> list[Row]:
    return [same(f"{name}.weight", f"{out} {into}"), same(f"{name}.bias", out)]


def moved(rows: Sequence[Row], theirs: str, ours: str) -> list[Row]:
    """The rows of a network that is a part of both programs' networks."""
    return [row._replace(theirs=theirs + row.theirs, ours=ours + row.ours) for row in rows]


def block(name: str) -> list[Row]:
    """One of minDALL-E's blocks."""
    return [
        *norm(f"{name}.{{ln1|ln2}}", "dim"),
        *linear(f"{name}.attn.{{key|query|value|proj}}", "dim", "dim"),
        *linear(f"{name}.mlp.0", "hidden", "dim"),
        *linear(f"{name}.mlp.2", "dim", "hidden"),
    ]


STAGE2 = (
    same("tok_emb_img.weight", "codes dim"),
    same("tok_emb_txt.weight", "words dim"),
    same("pos_emb_img.weight", "image_length dim"),
    same("pos_emb_txt.weight", "text_length dim"),
    *block("blocks.{i}"),
    *norm("ln_f", "dim"),
    same("head_img.weight", "codes dim"),
    same("head_txt.weight", "words dim"),
)
PROMPT = (
    Row("wte.weight", "embedding.weight", "prompt dim"),
    Row("control_trans.{0|2}.weight", "transform.{0|2}.weight", "dim dim"),
    Row("control_trans.{0|2}.bias", "transform.{0|2}.bias", "dim"),
)
STORY = (
    Row("story_linear.weight", "project.weight", "dim sentence"),
    Row("story_linear.bias", "project.bias", "dim"),
    *(row._replace(ours=row.ours.removeprefix("story_")) for row in block("story_block")),
)
PROMPT_NAMES, STORY_NAMES = ("wte.", "control_trans."), ("story_linear.", "story_block.")  # how they begin
IMAGES, BACKBONE, PROMPTS = "image_tokenizer.", "model.backbone.", "model.prompt_tokens."
STORY_ENCODER = "model.story_encoder."
MASKS = {"blocks.{i}.attn.mask": "causal masks, which every transformer here has of itself"}
MINDALLE_STAGE1 = Layout("mindalle (stage 1)", moved(TAMING_VQGAN.rows, "", IMAGES), TAMING_TRAINING)
MINDALLE_STAGE2 = Layout("mindalle (stage 2)", moved(STAGE2, "", BACKBONE), MASKS)
STORYDALLE = Layout(
    "storydalle",
    [
        *moved(TAMING_VQGAN.rows, "stage1.", IMAGES),
        *moved(STAGE2, "stage2.", BACKBONE),
        *moved(PROMPT, "", PROMPTS),
        *moved(STORY, "", STORY_ENCODER),
    ],
    dropped={
        **{f"stage1.{name}": reason for name, reason in TAMING_TRAINING.items()},
        **{f"stage2.{name}": reason for name, reason in MASKS.items()},
        "story_block.attn.mask": MASKS["blocks.{i}.attn.mask"],
    },
)


def attention(name: str) -> list[Row]:
    """One of min-dalle's attentions, without biases, between two norms."""
    return [
        *norm(f"layers.{{i}}.pre_{name}_layer_norm", "dim"),
        same(f"layers.{{i}}.{name}.{{k_proj|v_proj|q_proj|out_proj}}.weight", "dim dim"),
        *norm(f"layers.{{i}}.{name}_layer_norm", "dim"),
    ]


def mega_rows(rows: str, length: str) -> list[Row]:
    """The rows that min-dalle's encoder and decoder have in common."""
    return [
        same("embed_tokens.weight", f"{rows} dim"),
        same("embed_positions.weight", f"{length} dim"),
        *norm("{layernorm_embedding|final_ln}", "dim"),
        *attention("self_attn"),
        *norm("layers.{i}.glu.ln0", "dim"),
        *norm("layers.{i}.glu.ln1", "glu"),
        same("layers.{i}.glu.{fc0|fc1}.weight", "glu dim"),
        same("layers.{i}.glu.fc2.weight", "dim glu"),
    ]


COUNTERS = dict.fromkeys(("token_indices", "layers.{i}.token_indices"), "numbers counted from 0")
MEGA_ENCODER = Layout(
    "dalle-mega (encoder)", moved(mega_rows("words", "text_length"), "", f"{BACKBONE}encoder."), COUNTERS
)
MEGA_DECODER = Layout(
    "dalle-mega (decoder)",
    moved(
        [
            *mega_rows("rows", "image_length"),
            *attention("encoder_attn"),
            same("lm_head.weight", "rows dim"),
        ],
        "",
        f"{BACKBONE}decoder.",
    ),
    COUNTERS,
)
MEGA_PICTURES = Layout("detoker", moved(DETOKER.rows, "", f"{IMAGES}detokenizer."))
# Of a VQGAN that encodes for a detokenizer: the half that draws is not kept.
ENCODING_VQGAN = Layout(
    "taming-vqgan",
    moved([*TAMING_ENCODER, same("quantize.embedding.weight", "codes embed")], "", f"{IMAGES}tokenizer."),
    dropped={
        **TAMING_TRAINING,
        **CODES_OF_ALL,
        **dict.fromkeys(("decoder.", "post_quant_conv."), "the half that draws, in whose place detoker.pt stands"),
    },
)


def text_sizes(encoder: Mapping[str, Shape]) -> dict[str, int]:
    """The model's sizes from the encoder's file; LayoutError if it has fewer, or more, like a decoder's."""
    if more := MEGA_ENCODER.unknown(encoder):
        raise MEGA_ENCODER.error(unknown=more)
    return MEGA_ENCODER.told(encoder, "words", "text_length", "dim", "glu")


def mega_config(
    encoder: Mapping[str, Shape], decoder: Mapping[str, Shape], num_codes: int, num_heads: int | None
) -> dict[str, int]:
    """The config of the encoder-decoder with tensors of these shapes; its first input is the last code.

    Raises LayoutError if the two files are from different models.
    """
    text, image = text_sizes(encoder), MEGA_DECODER.sizes(decoder)
    depths = [count(file, "layers.{i}.") for file in (encoder, decoder)]
    for what, of_encoder, of_decoder in (
        ("wide", text["dim"], image["dim"]),
        ("wide inside", text["glu"], image["glu"]),
        ("layers deep", *depths),
    ):
        if of_encoder != of_decoder:
            raise LayoutError(f"the encoder is {of_encoder} {what} and the decoder {of_decoder}: two different models")
    return {
        "text_vocab_size": text["words"],
        "image_vocab_size": image["rows"] - 1,
        "num_codes": num_codes,
        "text_length": text["text_length"],
        "image_length": image["image_length"],
        "dim": text["dim"],
        "glu_dim": text["glu"],
        "depth": depths[0],
        "num_heads": checked_heads(text["dim"], num_heads),
        "start_code": num_codes - 1,
    }


def checked_heads(dim: int, num_heads: int | None) -> int:
    """The number of heads; by default heads are ``HEAD_DIM`` wide."""
    heads = num_heads or max(dim // HEAD_DIM, 1)
    if dim % heads:
        raise LayoutError(f"a width of {dim} is no multiple of {heads} heads: give their number")
    return heads


def backbone_config(theirs: Mapping[str, Shape], layout: Layout, prefix: str, num_heads: int | None) -> dict[str, int]:
    """The config of the transformer that has tensors of these shapes, its names beginning with ``prefix``.

    By default heads are ``HEAD_DIM`` wide. Raises LayoutError if they do not divide the width.
    """
    sizes = layout.sizes(theirs)
    return {
        "text_vocab_size": sizes["words"],
        "image_vocab_size": sizes["codes"],
        "text_length": sizes["text_length"],
        "image_length": sizes["image_length"],
        "dim": sizes["dim"],
        "depth": count(theirs, f"{prefix}blocks.{{i}}."),
        "num_heads": checked_heads(sizes["dim"], num_heads),
    }
