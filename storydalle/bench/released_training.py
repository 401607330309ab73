"""The training step of the released StoryDALL-E, written again as plainly as it is, for the weights of our model.

In float32; query, key and value are projected one by one, and the scores of all positions are kept; every frame has
its own copy of the source, whose keys and values are computed for each; captions are computed with all of their
padding; and AdamW is the one that torch takes by default.
"""

import time
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from storydalle.bench.released_loop import block, repeated
from storydalle.models.backbones.backbone import Logits
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.sampling import Prompt
from storydalle.tokens.encoded_stories import EncodedStories
from storydalle.training.optimisation import frame_losses

LEARNING_RATE, BETAS, DECAY, CLIP = 4e-4, (0.9, 0.98), 0.01, 1.0


class ReleasedTraining:
    """Trains a model on stories that are all of the same length."""

    def __init__(self, model: RetrofittedDALLE, text_weight: float) -> None:
        self.model, self.text_weight = model.train(), text_weight
        self.optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, BETAS, weight_decay=DECAY)

    def seconds_of_steps(self, batch: EncodedStories, steps: int) -> list[float]:
        """Seconds of each step but the first."""
        seconds = []
        for _ in range(steps):
            started = time.perf_counter()
            self.step(batch)
            seconds.append(time.perf_counter() - started)
        return seconds[1:]

    def step(self, batch: EncodedStories) -> None:
        self.optimizer.zero_grad()
        self.loss(batch).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()

    def loss(self, batch: EncodedStories) -> Float[Tensor, ""]:
        pad_id = self.model.backbone.pad_id
        return frame_losses(logits(self.model, batch), batch.codes.flatten(0, 1), pad_id).total(self.text_weight)


def logits(model: RetrofittedDALLE, batch: EncodedStories) -> Logits:
    """Of captions and codes, of all frames at once."""
    backbone, num_words = cast(DALLE, model.backbone), batch.tokens.shape[-1]
    story = model.encode_story(batch.tokens, batch.mask)
    prompt, visible, source = repeated(model, Prompt(batch.tokens, story, batch.source[:, None], []), 1)
    codes = batch.codes.flatten(0, 1)[:, :-1]  # nothing follows the last code
    x = torch.cat([prompt, backbone.embed_codes(codes)], 1)
    if visible is not None:
        visible = F.pad(visible, (0, codes.shape[1]), value=True)
    first = prompt.shape[1] - 1  # the last column of the caption predicts the first code
    for index in range(backbone.depth):
        x, _ = block(model, index, x, source, None, visible, first)
    x = backbone.ln_f(x)
    text = backbone.head_txt(x[:, prompt.shape[1] - num_words : first])
    return Logits(text, backbone.head_img(x[:, first:]), batch.tokens.flatten(0, 1)[:, 1:])
