"""The image tokenizer's recipe keeps a codebook from collapsing, on latents that stay and while the encoder learns."""

import pytest
import torch
from torch import nn

from storydalle.training.tokenizer_training import ImageTokenizerTraining
from tests.test_image_tokenizer import CODEBOOK, DIM, codebook_of, tiny_system

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to `self.log")  # steps are called without a Trainer


def test_dead_codes_restart_until_every_latent_has_its_own() -> None:
    """All codes but one are farther from eight latents than these are apart: without restarts one stands for all."""

    def left(restart_below: float) -> tuple[int, float]:
        system = tiny_system(restart_below=restart_below, codebook_decay=0.9)
        latents = 4.0 * torch.cat([torch.eye(DIM), -torch.eye(DIM)]).view(2, 2, 2, DIM).movedim(-1, 1)
        codebook_of(system).data.fill_(100.0)[0] = 0.0
        system.code_sum.copy_(codebook_of(system) / CODEBOOK)
        for step in range(120):
            system.generator = lambda _, step=step: torch.Generator().manual_seed(step)  # type: ignore[method-assign]
            system.move_codebook(latents, system.image_tokenizer.quantize(latents).codes)
        quantized, codes, _ = system.image_tokenizer.quantize(latents)
        return len(codes.unique()), (quantized - latents).abs().max().item()

    assert left(restart_below=0.0)[0] == 1
    num_codes, error = left(restart_below=0.05)
    assert num_codes == 8 and error < 1e-3


def without_norms(system: ImageTokenizerTraining) -> ImageTokenizerTraining:
    """Flat patches of two colours are one and the same to a norm over the patch."""
    for module in list(system.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    return system


def distinct_codes(seed: int, steps_without_quantization: int, restart_below: float) -> tuple[int, float]:
    """Train on pictures of flat patches in eight colours: how many colours have a code of their own, and the error."""
    generator = torch.Generator().manual_seed(seed)
    colours = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3) * 0.8
    system = without_norms(tiny_system(restart_below=restart_below, codebook_decay=0.9))
    model = system.image_tokenizer
    torch.manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.reset_parameters()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for step in range(120):
        system.generator = lambda _, step=step: torch.Generator().manual_seed(step)  # type: ignore[method-assign]
        patches = colours[torch.randint(8, (16, 2, 2), generator=generator)]
        images = patches.movedim(-1, 1).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
        latents = model.latents(images)
        if step < steps_without_quantization:
            system.remember(latents.detach())
            loss = system.reconstruction_loss(model.reconstruct(latents), images)
        else:
            quantized, codes, commitment = model.quantize(latents)
            loss = system.reconstruction_loss(model.reconstruct(quantized), images) + system.commitment * commitment
            system.move_codebook(latents.detach(), codes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    palette = colours[:, :, None, None].expand(8, 3, 8, 8)
    codes = model.encode(palette)
    return len(set(codes[:, 0].tolist())), (model.decode(codes) - palette).abs().mean().item() / 2


def test_the_recipe_keeps_the_codebook_from_collapsing():
    """Two trainings together: over 20 seeds one ends with 6 to 8 codes by the recipe, and with 1 to 4 without."""
    by_recipe = [distinct_codes(seed, steps_without_quantization=40, restart_below=0.05) for seed in (0, 1)]
    without = [distinct_codes(seed, steps_without_quantization=0, restart_below=0.0) for seed in (0, 1)]
    assert sum(codes for codes, _ in by_recipe) >= 11
    assert sum(codes for codes, _ in without) <= 8
    assert sum(error for _, error in by_recipe) < sum(error for _, error in without)
