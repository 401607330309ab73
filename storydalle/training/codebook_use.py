"""How much of a codebook is used: what trainings of image tokenizers log."""

import pytorch_lightning as pl
import torch
from jaxtyping import Float, Int
from torch import Tensor

from storydalle.models import ranks


def perplexity(share: Float[Tensor, " v"]) -> Float[Tensor, ""]:
    """exp(-sum_k p_k ln p_k): the number of codes that, used evenly, would have the entropy of these shares."""
    return torch.special.entr(share).sum().exp()


class CodebookUse(pl.LightningModule):
    """Logs perplexity and usage of a codebook: of one batch in training, of all pictures of a validation.

    ``count`` codes in a validation step; subclasses call ``start_counting`` before the first step.
    """

    code_counts: Tensor  # of one validation; no buffer, which a running mean of the weights would swap before its end

    def start_counting(self, codebook_size: int) -> None:
        self.code_counts = torch.zeros(codebook_size, device=self.device)

    def count(self, codes: Int[Tensor, "*n"]) -> None:
        self.code_counts += torch.bincount(codes.flatten(), minlength=len(self.code_counts))

    def on_validation_epoch_start(self) -> None:
        self.start_counting(len(self.code_counts))

    def on_validation_epoch_end(self) -> None:
        counts = ranks.mean(self.code_counts)
        self.log("val/codebook_perplexity", perplexity(counts / counts.sum()), sync_dist=True)
        self.log("val/codebook_usage", (counts > 0).float().mean(), sync_dist=True)

    def log_use(self, share: Float[Tensor, " v"]) -> None:
        """Of the codes of one training step, those of all processes."""
        self.log("train/codebook_perplexity", perplexity(share))
        self.log("train/codebook_usage", (share > 0).float().mean())
