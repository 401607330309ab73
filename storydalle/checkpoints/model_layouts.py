"""Released models of minDALL-E's family: the layouts of their files, and what their shapes tell of the network.

============ ================================================================ ======================
layout       files                                                            whose
============ ================================================================ ======================
mindalle     ``stage1_last.ckpt`` and ``stage2_last.ckpt``, key state_dict    kakaobrain/minDALL-E
storydalle   a training checkpoint, key model_state_dict                      adymaharana/storydalle
============ ================================================================ ======================

Names and shapes are known from the released code; no released file has been read with these tables yet.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from storydalle.checkpoints.layouts import Layout, LayoutError, Row, Shape, count
from storydalle.checkpoints.tokenizer_layouts import TAMING_VQGAN, norm, same

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
    """The rows of a network that is a part of theirs and of ours."""
    return [row._replace(theirs=theirs + row.theirs, ours=ours + row.ours) for row in rows]


STAGE2 = (
    same("tok_emb_img.weight", "codes dim"),
    same("tok_emb_txt.weight", "words dim"),
    same("pos_emb_img.weight", "image_length dim"),
    same("pos_emb_txt.weight", "text_length dim"),
    *norm("blocks.{i}.{ln1|ln2}", "dim"),
    *linear("blocks.{i}.attn.{key|query|value|proj}", "dim", "dim"),
    *linear("blocks.{i}.mlp.0", "hidden", "dim"),
    *linear("blocks.{i}.mlp.2", "dim", "hidden"),
    *norm("ln_f", "dim"),
    same("head_img.weight", "codes dim"),
    same("head_txt.weight", "words dim"),
)
PROMPT = (
    Row("wte.weight", "embedding.weight", "prompt dim"),
    Row("control_trans.{0|2}.weight", "transform.{0|2}.weight", "dim dim"),
    Row("control_trans.{0|2}.bias", "transform.{0|2}.bias", "dim"),
)
IMAGES, BACKBONE, PROMPTS = "image_tokenizer.", "model.backbone.", "model.prompt_tokens."
MINDALLE_STAGE1 = Layout("mindalle (stage 1)", moved(TAMING_VQGAN.rows, "", IMAGES))
MINDALLE_STAGE2 = Layout("mindalle (stage 2)", moved(STAGE2, "", BACKBONE))
STORYDALLE = Layout(
    "storydalle",
    [*moved(TAMING_VQGAN.rows, "stage1.", IMAGES), *moved(STAGE2, "stage2.", BACKBONE), *moved(PROMPT, "", PROMPTS)],
    # They read vectors of the Universal Sentence Encoder, which no file here makes.
    dropped=("story_linear.", "story_block."),
)


def backbone_config(theirs: Mapping[str, Shape], layout: Layout, prefix: str, num_heads: int | None) -> dict[str, Any]:
    """The config of the transformer that has tensors of these shapes, its names beginning with ``prefix``.

    Heads are ``HEAD_DIM`` wide where their number is not given. Raises LayoutError where they do not divide the width.
    """
    sizes = layout.sizes(theirs)
    heads = num_heads or max(sizes["dim"] // HEAD_DIM, 1)
    if sizes["dim"] % heads:
        raise LayoutError(f"a width of {sizes['dim']} is no multiple of {heads} heads: give their number")
    return {
        "text_vocab_size": sizes["words"],
        "image_vocab_size": sizes["codes"],
        "text_length": sizes["text_length"],
        "image_length": sizes["image_length"],
        "dim": sizes["dim"],
        "depth": count(theirs, f"{prefix}blocks.{{i}}."),
        "num_heads": heads,
    }
