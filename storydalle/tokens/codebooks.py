"""Codebooks of a VQGAN: latents <-> codes, by the nearest vector or by logits."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn


class Quantized(NamedTuple):
    """Latents, replaced by their nearest codebook vectors."""

    quantized: Float[Tensor, "b d grid grid"]  # gradients pass straight through to the latents
    codes: Int[Tensor, "b l"]  # raster order
    commitment: Float[Tensor, ""]  # mean squared distance, with gradient to the latents only


class Codebook(nn.Module):
    """The vectors of the codes; a latent becomes the nearest one."""

    def __init__(self, codebook_size: int, embed_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, embed_dim)
        self._init_weights()

    def _init_weights(self) -> None:
        """taming's: uniform within 1 / codebook_size of zero. Convolutions start as torch draws them."""
        bound = 1.0 / self.embedding.num_embeddings
        nn.init.uniform_(self.embedding.weight, -bound, bound)

    def nearest(self, vectors: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
        """argmin_k |z - e_k|^2 = argmin_k |e_k|^2 - 2 z e_k (van den Oord et al. 2017, eq. 1)."""
        with torch.autocast(vectors.device.type, enabled=False):  # bf16 distances confuse neighbouring codes
            codebook = self.embedding.weight.float()
            # |z|^2 is the same for every code and does not move the minimum.
            distances = torch.addmm(codebook.square().sum(dim=1), vectors.float(), codebook.T, alpha=-2.0)
        return distances.argmin(dim=1)

    def choose(self, latents: Float[Tensor, "b d grid grid"]) -> Int[Tensor, "b l"]:
        """Codes of latents, in raster order."""
        flat = self.nearest(rearrange(latents, "b d h w -> (b h w) d"))
        return rearrange(flat, "(b l) -> b l", b=latents.shape[0])

    def forward(self, latents: Float[Tensor, "b d grid grid"]) -> Quantized:
        with torch.no_grad():  # the codebook is moved by running means, not by gradients
            codes = self.choose(latents)
            chosen = rearrange(self.embedding(codes), "b (h w) d -> b d h w", h=latents.shape[2])
        commitment = F.mse_loss(latents.float(), chosen.float())
        quantized = latents + (chosen - latents).detach()  # forward chosen, backward straight to latents
        return Quantized(quantized, codes, commitment)


class GumbelCodebook(Codebook):
    """Codes are those with the highest logit of a projection, taming's ``GumbelQuantize``; distances play no part.

    taming draws codes with Gumbel noise, in evaluation too; here a picture keeps its codes.
    """

    def __init__(self, codebook_size: int, embed_dim: int) -> None:
        super().__init__(codebook_size, embed_dim)
        self.proj = nn.Conv2d(embed_dim, codebook_size, 1)

    def _init_weights(self) -> None:
        """taming's: N(0, 1). Vectors near zero would say nothing while the samples are soft."""
        nn.init.normal_(self.embedding.weight)

    def logits(self, latents: Float[Tensor, "b d grid grid"]) -> Float[Tensor, "b v grid grid"]:
        """One logit a code at every place; fp32 under any autocast, as in ``nearest``."""
        with torch.autocast(latents.device.type, enabled=False):
            assert self.proj.bias is not None
            return F.conv2d(latents.float(), self.proj.weight.float(), self.proj.bias.float())

    def mixed(self, samples: Float[Tensor, "b v grid grid"]) -> Float[Tensor, "b d grid grid"]:
        """The vectors of codes in shares; fp32 under any autocast."""
        with torch.autocast(samples.device.type, enabled=False):
            return einsum(samples.float(), self.embedding.weight.float(), "b v h w, v d -> b d h w")

    def choose(self, latents: Float[Tensor, "b d grid grid"]) -> Int[Tensor, "b l"]:
        """Codes of latents, in raster order."""
        return rearrange(self.logits(latents).argmax(dim=1), "b h w -> b (h w)")


QUANTIZERS: dict[str, type[Codebook]] = {"nearest": Codebook, "gumbel": GumbelCodebook}
