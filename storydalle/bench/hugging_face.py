"""``transformers.generate`` on a GPT-2 of the same size, with the same number of rows, words and codes."""

from collections.abc import Callable
from importlib.util import find_spec

import torch

from storydalle.bench.shapes import NetworkSizes
from storydalle.models.story_dalle.sampling import CodeSampling

NAME = "transformers.generate"
CACHES = ("dynamic", "static")
MISSING = f'{NAME} is not measured: pip install "storydalle[text]"'


def is_there() -> bool:
    return find_spec("transformers") is not None


def generating(
    network: NetworkSizes, image_length: int, num_rows: int, sampling: CodeSampling, seed: int
) -> dict[str, Callable[[], torch.Tensor]]:
    """A function for each kind of cache that draws all rows' codes; GPT-2 is minDALL-E without the two vocabularies."""
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = GPT2Config(
            vocab_size=network.image_vocab_size,
            n_positions=network.text_length + 1 + image_length,  # one story token
            n_embd=network.dim,
            n_layer=network.depth,
            n_head=network.num_heads,
            bos_token_id=None,
            eos_token_id=None,
        )
        model = GPT2LMHeadModel(config).eval()
        prompt = torch.randint(network.image_vocab_size, (num_rows, network.text_length + 1))

    @torch.inference_mode()
    def generate(cache: str) -> torch.Tensor:
        return model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            max_new_tokens=image_length,
            min_new_tokens=image_length,
            do_sample=True,
            temperature=float(sampling.temperature),
            top_k=sampling.top_k,
            top_p=sampling.top_p,
            cache_implementation=cache,
            pad_token_id=0,
        )[:, prompt.shape[1] :]

    def with_cache(cache: str) -> Callable[[], torch.Tensor]:
        return lambda: generate(cache)

    return {f"{NAME}, {cache} cache": with_cache(cache) for cache in CACHES}
