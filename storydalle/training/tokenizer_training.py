"""Training of the VQGAN: reconstruction, a codebook moved by running means, and measures against its collapse."""

import math
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from storydalle.models import ranks
from storydalle.stories.story import StoryBatch
from storydalle.tokens.vqgan import VQGAN
from storydalle.training.codebook_use import CodebookUse
from storydalle.training.optimisation import warmup_cosine_factor


class Pictures(NamedTuple):
    """A batch of pictures; ``weight`` multiplies the error of each pixel."""

    images: Float[Tensor, "b c h w"]  # in [-1, 1]
    weight: Float[Tensor, "b 1 h w"] | None = None


def pictures_of(batch: Tensor | Pictures | StoryBatch) -> Pictures:
    """The pictures of a batch: of stories, all sources and all frames that exist."""
    if isinstance(batch, StoryBatch):
        return Pictures(torch.cat([batch.source, batch.frames[batch.mask]]))
    return Pictures(batch) if isinstance(batch, Tensor) else Pictures(*batch)


def edge_weight(images: Float[Tensor, "b c h w"], emphasis: float) -> Float[Tensor, "b 1 h w"]:
    """1 on flat colour, up to 1 + emphasis within two pixels of an edge: faces are small, the sky is large."""
    across = F.pad((images[..., :, 1:] - images[..., :, :-1]).abs().amax(dim=1, keepdim=True), (0, 1, 0, 0))
    down = F.pad((images[..., 1:, :] - images[..., :-1, :]).abs().amax(dim=1, keepdim=True), (0, 0, 0, 1))
    edges = torch.maximum(across, down).clamp(max=1.0)
    # A 5 x 5 maximum as two passes is twice as fast.
    edges = F.max_pool2d(edges, (5, 1), stride=1, padding=(2, 0))
    return 1.0 + emphasis * F.max_pool2d(edges, (1, 5), stride=1, padding=(0, 2))


def check_trainable(image_tokenizer: VQGAN) -> None:
    """Raise ValueError for an image tokenizer that this recipe cannot train."""
    kind, quantizer = image_tokenizer.kind, image_tokenizer.config.get("quantizer")
    if (kind, quantizer) != ("vqgan", "nearest"):
        raise ValueError(
            f"an image tokenizer of kind {kind} (quantizer={quantizer}) cannot be trained here: only a vqgan with "
            "quantizer=nearest can; a dvae, or a vqgan with quantizer=gumbel, trains by experiment=toon/dvae"
        )


class ImageTokenizerTraining(CodebookUse):
    """Trains ``image_tokenizer``; every random draw is keyed by (seed, step), so a resumed run goes on exactly.

    In the first ``steps_without_quantization`` steps the decoder sees the latents themselves; latents of the last ten
    of these steps fill the codebook. From then on the vector of code k is the running mean of the latents that it stood
    for (van den Oord et al. 2017, appendix A.1), with d = ``codebook_decay`` and n_k of a step's n latents z:

    e_k = sum_k / share_k,  share_k <- d share_k + (1 - d) n_k / n,  sum_k <- d sum_k + (1 - d) (sum of these z) / n

    A code used less than ``restart_below`` times its even share moves to a latent, drawn in proportion to its
    quantisation error.

    No gradient moves the codebook: each of several processes moves its own by the latents of all, so they stay equal.

    ``decoder_only`` keeps encoder and codebook as they are: pictures get better, and existing codes stay valid.
    ``edge_emphasis`` gives pixels near edges more weight (``edge_weight``). ``perceptual(reconstruction, images)`` adds
    a distance for each picture; ``discriminator(images)`` adds hinge losses from step ``adversarial_start`` on.
    Differs from the paper: the adversarial weight is constant and does not follow the ratio of gradients.
    """

    MONITOR = "val/reconstruction_error"  # by which a validation judges the model

    def __init__(
        self,
        image_tokenizer: VQGAN,
        learning_rate: float = 1e-3,
        warmup_steps: int = 100,
        max_steps: int = 10_000,
        weight_decay: float = 0.0,
        gradient_clip: float = 1.0,
        steps_without_quantization: int = 100,
        codebook_decay: float = 0.98,
        restart_below: float = 0.02,
        commitment: float = 0.25,
        edge_emphasis: float = 0.0,
        decoder_only: bool = False,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 1.0,
        discriminator: nn.Module | None = None,
        adversarial_weight: float = 0.1,
        adversarial_start: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_trainable(image_tokenizer)
        self.image_tokenizer = image_tokenizer
        self.learning_rate, self.weight_decay, self.gradient_clip = learning_rate, weight_decay, gradient_clip
        self.warmup_steps, self.max_steps, self.seed = warmup_steps, max_steps, seed
        self.steps_without_quantization, self.commitment = steps_without_quantization, commitment
        self.codebook_decay, self.restart_below = codebook_decay, restart_below
        self.edge_emphasis, self.decoder_only = edge_emphasis, decoder_only
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.discriminator, self.adversarial_weight = discriminator, adversarial_weight
        self.adversarial_start = adversarial_start
        self.automatic_optimization = discriminator is None
        codebook = image_tokenizer.quantize.embedding.weight.requires_grad_(False)
        if decoder_only:
            image_tokenizer.encoder.requires_grad_(False)
            image_tokenizer.quant_conv.requires_grad_(False)
        self.code_share: Tensor
        self.code_sum: Tensor
        self.register_buffer("code_share", torch.full(codebook.shape[:1], 1.0 / len(codebook)))
        self.register_buffer("code_sum", codebook / len(codebook))
        self.start_counting(len(codebook))

    def training_step(self, batch: Tensor | Pictures | StoryBatch, batch_idx: int) -> Tensor | None:
        images, weight = pictures_of(batch)
        latents = self.image_tokenizer.latents(images)
        if self.decoder_only:
            reconstruction = self.image_tokenizer.reconstruct(self.image_tokenizer.quantize(latents).quantized)
            loss = self.reconstruction_loss(reconstruction, images, weight)
        elif self.global_step < self.steps_without_quantization:
            self.remember(latents.detach())  # into the codebook, which no gradient moves
            reconstruction = self.image_tokenizer.reconstruct(latents)
            loss = self.reconstruction_loss(reconstruction, images, weight)
        else:
            quantized, codes, commitment = self.image_tokenizer.quantize(latents)
            reconstruction = self.image_tokenizer.reconstruct(quantized)
            loss = self.reconstruction_loss(reconstruction, images, weight) + self.commitment * commitment
            self.move_codebook(latents.detach(), codes)
        self.log("train/loss", loss, prog_bar=True, sync_dist=True)
        if self.discriminator is None:
            return loss
        self.adversarial_step(self.discriminator, loss, reconstruction, images)
        return None

    def adversarial_step(self, discriminator: nn.Module, loss: Tensor, reconstruction: Tensor, images: Tensor) -> None:
        """One step of the tokenizer, then one of the discriminator (Esser et al. 2021), D its logits:

        -E D(drawn) for the tokenizer, (E max(0, 1 - D(true)) + E max(0, 1 + D(drawn))) / 2 for the discriminator.
        """
        optimizer, discriminator_optimizer = cast(list[LightningOptimizer], self.optimizers())
        is_adversarial = self.global_step >= self.adversarial_start
        if is_adversarial:
            discriminator.requires_grad_(False)  # its own weights take no gradient from this loss
            loss = loss - self.adversarial_weight * discriminator(reconstruction).mean()
            discriminator.requires_grad_(True)
        optimizer.zero_grad()
        self.manual_backward(loss)
        self.configure_gradient_clipping(optimizer.optimizer)
        optimizer.step()
        cast(LambdaLR, self.lr_schedulers()).step()
        if is_adversarial:
            real, drawn = discriminator(images), discriminator(reconstruction.detach())  # no gradient to the tokenizer
            discriminator_loss = 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + drawn).mean())
            discriminator_optimizer.zero_grad()
            self.manual_backward(discriminator_loss)
            # Past Lightning's wrapper, which would count this as a second training step.
            discriminator_optimizer.optimizer.step()
            self.log("train/loss_discriminator", discriminator_loss, sync_dist=True)

    def validation_step(self, batch: Tensor | Pictures | StoryBatch, batch_idx: int) -> None:
        images = pictures_of(batch).images
        codes = self.image_tokenizer.encode(images)
        self.count(codes)
        error = (self.image_tokenizer.decode(codes).float() - images).abs().mean() / 2.0
        self.log("val/reconstruction_error", error, prog_bar=True, batch_size=len(images), sync_dist=True)

    def reconstruction_loss(
        self,
        reconstruction: Float[Tensor, "b c h w"],
        images: Float[Tensor, "b c h w"],
        weight: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, ""]:
        """Absolute plus squared error, each pixel by its weight, plus the perceptual distance."""
        error = (reconstruction.float() - images).abs()
        error = (error + error.square()).mean(dim=1, keepdim=True)  # b 1 h w
        if self.edge_emphasis > 0.0:
            edges = edge_weight(images, self.edge_emphasis)
            weight = edges if weight is None else weight * edges
        weight = torch.ones_like(error) if weight is None else weight.expand_as(error)
        loss = ranks.ratio((error * weight).sum(), weight.sum())
        if self.perceptual is not None:
            loss = loss + self.perceptual_weight * self.perceptual(reconstruction, images).mean()
        return loss

    def generator(self, device: torch.device) -> torch.Generator:
        return torch.Generator(device).manual_seed(self.seed * 1_000_003 + self.global_step)

    @torch.no_grad()
    def remember(self, latents: Float[Tensor, "b d grid grid"]) -> None:
        """Replace the oldest tenth of the codebook with latents of this step."""
        vectors = ranks.gathered(rearrange(latents, "b d h w -> (b h w) d").float())  # of all processes
        codebook = self.image_tokenizer.quantize.embedding.weight
        tenth = math.ceil(len(codebook) / 10)
        drawn = torch.randint(len(vectors), (tenth,), generator=self.generator(vectors.device), device=vectors.device)
        codebook.copy_(torch.cat([codebook[tenth:], vectors[drawn]]))
        self.code_share.fill_(1.0 / len(codebook))  # as if each code had been used evenly
        self.code_sum.copy_(codebook / len(codebook))

    @torch.no_grad()
    def move_codebook(self, latents: Float[Tensor, "b d grid grid"], codes: Int[Tensor, "b l"]) -> None:
        """Move each code towards the latents it stood for in this step; restart codes that are hardly used."""
        vectors = ranks.gathered(rearrange(latents, "b d h w -> (b h w) d").float())
        flat = ranks.gathered(codes.flatten())
        codebook = self.image_tokenizer.quantize.embedding.weight
        even_share = 1.0 / len(codebook)

        share = torch.bincount(flat, minlength=len(codebook)) / len(flat)  # n_k / n
        total = torch.zeros_like(codebook).index_add_(0, flat, vectors) / len(flat)  # v d
        self.code_share.lerp_(share, 1.0 - self.codebook_decay)
        self.code_sum.lerp_(total, 1.0 - self.codebook_decay)

        errors = (vectors - codebook[flat]).square().sum(dim=1) + 1e-12  # not all zero, to draw from
        drawn = torch.multinomial(errors, len(codebook), replacement=True, generator=self.generator(flat.device))
        is_dead = self.code_share < self.restart_below * even_share
        self.code_share.masked_fill_(is_dead, even_share)
        self.code_sum.copy_(torch.where(is_dead[:, None], vectors[drawn] * even_share, self.code_sum))
        codebook.copy_(self.code_sum / self.code_share[:, None])
        self.log_use(share)

    def configure_optimizers(self) -> Any:  # Lightning's own type has no list of such dictionaries
        parameters = [p for p in self.image_tokenizer.parameters() if p.requires_grad]
        optimizer = self.adamw(parameters)
        schedule = LambdaLR(optimizer, lambda step: self.rate(step))
        schedulers = [{"scheduler": schedule, "interval": "step"}]
        if self.discriminator is None:
            return [optimizer], schedulers
        return [optimizer, self.adamw(list(self.discriminator.parameters()))], schedulers

    def adamw(self, parameters: list[nn.Parameter]) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            parameters, lr=self.learning_rate, betas=(0.9, 0.99), weight_decay=self.weight_decay, fused=True
        )

    def configure_gradient_clipping(self, optimizer: torch.optim.Optimizer, *_: object, **__: object) -> None:
        """Clip here and not in the Trainer, which refuses to with a fused optimizer under mixed precision."""
        nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), self.gradient_clip)

    def rate(self, step: int) -> float:
        """Linear warm-up, then half a cosine down to a hundredth of the learning rate at ``max_steps``."""
        return warmup_cosine_factor(step, self.warmup_steps, self.max_steps, floor=0.01)
