"""``precision: auto``: bf16 if the device multiplies it fast, else fp32.

A processor without bf16 units is about fifty times slower in bf16 than in fp32. A small product in each precision,
which takes a tenth of a second, shows which kind of processor this is.
"""

import time
from typing import NamedTuple

import torch

from storydalle.training.precision_names import AUTO, HALF, SINGLE

GAIN = 1.5  # times as fast as fp32 that bf16 must be: rounding the numbers around each product takes time as well
LOSS = 2.0  # times as slow as fp32 that bf16 may be before one is told
SIZE, ROUNDS = 256, 5


class ProductSeconds(NamedTuple):
    """Seconds of one matrix product."""

    bf16: float
    fp32: float

    def __str__(self) -> str:
        return f"a product takes {1000 * self.bf16:.2g} ms in bf16 and {1000 * self.fp32:.2g} ms in fp32"


class Speed(NamedTuple):
    """If a device multiplies bf16 fast, and how that is known."""

    is_fast: bool
    is_slow: bool
    reason: str


def speed_of(seconds: ProductSeconds) -> Speed:
    return Speed(seconds.fp32 >= GAIN * seconds.bf16, seconds.bf16 > LOSS * seconds.fp32, str(seconds))


def bf16_speed(device: torch.device) -> Speed:
    """Measured for a processor, known by generation for a GPU; on other devices bf16 is not used."""
    if device.type == "cpu":
        return speed_of(product_seconds())
    if device.type == "cuda":
        has_units = torch.cuda.is_bf16_supported(including_emulation=False)
        major, minor = torch.cuda.get_device_capability(device)
        words = "has units for bf16" if has_units else "has no units for bf16"
        return Speed(has_units, not has_units, f"a device of compute capability {major}.{minor} {words}")
    return Speed(False, False, f"bf16 is not known to be fast on {device.type}")


@torch.inference_mode()
def product_seconds() -> ProductSeconds:
    """The best of a few products on the CPU, the two kinds in turn."""
    left, right = torch.ones(2, SIZE, SIZE)
    seconds: dict[torch.dtype, list[float]] = {torch.bfloat16: [], torch.float32: []}
    for _ in range(ROUNDS):
        for dtype, found in seconds.items():
            a, b = left.to(dtype), right.to(dtype)
            started = time.perf_counter()
            a @ b
            found.append(time.perf_counter() - started)
    return ProductSeconds(min(seconds[torch.bfloat16]), min(seconds[torch.float32]))


def choose(asked: str, speed: Speed) -> tuple[str, str | None]:
    """The precision to train in, as the trainer names it, and a note for the user if one is needed.

    A precision that was given by name is used, even if it is slow.
    """
    if asked == AUTO:
        precision = HALF if speed.is_fast else SINGLE
        return precision, f"precision {precision}: {speed.reason}"
    if asked.startswith("bf16") and speed.is_slow:
        return asked, f"note: trainer.precision={asked} is slow here, {SINGLE} is faster: {speed.reason}"
    return asked, None


def resolved(asked: str, accelerator: str) -> tuple[str, str | None]:
    """``choose`` for the device of a trainer's ``accelerator``; measured only if needed."""
    if asked != AUTO and not asked.startswith("bf16"):
        return asked, None
    return choose(asked, bf16_speed(device_of(accelerator)))


def device_of(accelerator: str) -> torch.device:
    """The kind of device that Lightning will use."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
