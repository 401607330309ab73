"""Models of random weights, and what they draw from: speed does not depend on what was learned."""

import math

import torch

from storydalle.bench.shapes import NetworkSizes
from storydalle.files.weights import WithoutNumbers
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, retrofit
from storydalle.models.story_dalle.sampling import FrameKey, Prompt

STD = 0.02  # of minDALL-E's initialisation
# Random numbers that all weights take theirs from: drawing a billion would take long. Their number is a prime, so that
# no two rows of a table are the same; their codes would be as likely.
POOL = (1 << 22) - 3


def random_model(network: NetworkSizes, image_length: int, seed: int) -> RetrofittedDALLE:
    """A retrofitted minDALL-E; its weights are numbers of float16, as those of saved models are."""
    with WithoutNumbers():
        backbone = DALLE(
            text_vocab_size=network.text_vocab_size,
            image_vocab_size=network.image_vocab_size,
            text_length=network.text_length,
            image_length=image_length,
            dim=network.dim,
            depth=network.depth,
            num_heads=network.num_heads,
        )
        model = retrofit(backbone, source_blocks=network.source_blocks)
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(seed)
    pool = torch.empty(POOL).normal_(0, STD, generator=generator).half().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                start = int(torch.randint(POOL, (), generator=generator))
                parameter.copy_(taken(pool, start, parameter.numel()).view_as(parameter))
            else:
                parameter.fill_(float(".ln" in name and name.endswith("weight")))
    return model


def taken(pool: torch.Tensor, start: int, number: int) -> torch.Tensor:
    """So many numbers of the pool, from ``start`` on and then from its beginning, over and over."""
    turned = pool.roll(-start)
    return turned.repeat(math.ceil(number / len(pool)))[:number]


def random_prompt(model: RetrofittedDALLE, num_frames: int, seed: int, source_length: int) -> Prompt:
    """Captions of random words for one story, and a source of as many frames as ``source_length`` codes fill."""
    backbone, generator = model.backbone, torch.Generator().manual_seed(seed)
    tokens = torch.randint(1, backbone.text_vocab_size, (1, num_frames, backbone.text_length), generator=generator)
    num_sources = math.ceil(source_length / backbone.image_length)
    source = torch.randint(backbone.num_codes, (1, num_sources, backbone.image_length), generator=generator)
    with torch.inference_mode():
        story = model.encode_story(tokens, torch.ones(1, num_frames, dtype=torch.bool))
    return Prompt(tokens, story, source, [FrameKey(seed, 0, frame) for frame in range(num_frames)])


def num_weights(network: NetworkSizes) -> int:
    """Weights of such a model, before it is built."""
    with WithoutNumbers():
        sizes = {"text_vocab_size": network.text_vocab_size, "image_vocab_size": network.image_vocab_size}
        backbone = DALLE(**sizes, dim=network.dim, depth=network.depth, num_heads=network.num_heads)
        model = retrofit(backbone, source_blocks=network.source_blocks)
    return sum(parameter.numel() for parameter in model.parameters())
