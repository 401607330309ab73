"""A model's own draws of the frames that it remembers, for a training that must not trust them blindly."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.sampling import CodeSampling, choose
from storydalle.tokens.encoded_stories import EncodedStories


@torch.no_grad()
def own_draws(
    model: RetrofittedDALLE,
    batch: EncodedStories,
    story: Float[Tensor, "b f s d"] | None,
    sampling: CodeSampling,
    seeds: Sequence[int],
) -> Int[Tensor, "b f l"]:
    """All frames of the stories, each code drawn from what the model predicts after the true codes before it.

    One pass without gradients draws them all, as the two passes of Mihaylova & Martins 2019 (arXiv 1906.07651): a third
    of a step's time, where frames drawn code by code would take many. The errors are the model's own, at the places
    where it is unsure; codes of the source, or frames left out, would be errors that it never makes when it draws.
    ``seeds`` has a number for each story, so that its draws depend neither on the other stories nor on padding.
    """
    logits = model(batch.tokens, batch.codes, batch.source[:, None], batch.mask, story).image
    drawn = []
    for rows, seed in zip(logits.unflatten(0, batch.mask.shape), seeds, strict=True):  # f l v: a story at a time
        uniform = torch.rand(rows.shape[:2].numel(), generator=torch.Generator().manual_seed(seed))
        drawn.append(choose(rows.flatten(0, 1).float(), uniform.to(rows.device), sampling))
    return torch.stack(drawn).view_as(batch.codes)
