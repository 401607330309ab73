"""A request to a StoryDALL-E as a whole: the waves that it is drawn in, what it needs, and what would fit."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from storydalle.files.process_memory import told_bytes
from storydalle.models.packing import picture_view_bytes
from storydalle.models.story_dalle.drawing_bytes import (
    DrawingMemory,
    WaveSizes,
    number_bytes,
    reading_bytes,
    wave_memory,
)
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.sampling import largest_wave, rows_of_waves
from storydalle.tokens.image_tokenizer import ImageTokenizer

MOST_PICTURES = 32  # that are read or decoded together
PICTURES_BYTES = 1 << 30  # that they may work with


@dataclass(frozen=True)
class DrawingPlan:
    """Raises ValueError, with what would fit, if the request does not fit into ``free`` bytes row by row."""

    image_tokenizer: ImageTokenizer
    model: RetrofittedDALLE
    whole: WaveSizes  # the request as one wave
    packed: int  # bytes of the view that draws
    as_pixels: bool
    free: int  # beside the weights, which are there already

    def __post_init__(self) -> None:
        if self._fits(self.whole):
            return
        needed = self._memory(self.whole)
        raise ValueError(
            f"drawing {self.whole.num_rows} frames needs at most {needed}, and {told_bytes(self.free)} are free beside "
            f"the weights: {self._remedy()}, close other programs, or take a smaller model"
        )

    @property
    def max_rows(self) -> int:
        return self._rows(self.whole)

    @property
    def memory(self) -> DrawingMemory:
        return self._memory(self.whole)

    def __str__(self) -> str:
        waves = "in one wave" if self.whole.num_rows <= self.max_rows else f"in waves of at most {self.max_rows} frames"
        return f"drawing needs at most {self.memory} of memory, {waves}; {told_bytes(self.free)} are free"

    def _rows(self, whole: WaveSizes) -> int:
        return rows_of_waves(self.model, whole, self.free - self.packed)

    def _fits(self, whole: WaveSizes) -> bool:
        needed = self._memory(whole)
        return needed.total - needed.weights <= self.free

    def _memory(self, whole: WaveSizes) -> DrawingMemory:
        """Of the three parts of the work the one that needs the most: reading, drawing codes, and decoding them."""
        weights, rows = module_bytes(self.image_tokenizer, self.model), whole.num_rows
        one = self.image_tokenizer.picture_bytes
        together = pictures_at_once(self.image_tokenizer)
        columns = whole.num_frames * (whole.num_columns - self.model.num_prefix)
        sources = min(together, whole.num_stories) * one
        story = reading_bytes(self.model, whole.num_stories, columns)
        codes = 16 * rows * self.model.backbone.image_length  # as they are drawn, and sorted
        backbone = self.model.backbone
        vector = self.model.num_prefix * backbone.dim * number_bytes(self.model)
        prompts = whole.num_prompts * (vector + 8 * backbone.text_length)  # of all waves
        drawn = wave_memory(self.model, largest_wave(whole, self._rows(whole)))
        # Numbers twice, while parts become one; pixels once, and once as the pictures of 4 bytes a pixel of PIL.
        pictures = rows * self.image_tokenizer.resolution**2 * (3 + 4 if self.as_pixels else 2 * 3 * 4)
        decoded = DrawingMemory(
            weights,
            packed=picture_view_bytes(self.image_tokenizer),
            codes=codes,
            decoding=min(together, rows) * one,
            pictures=pictures,
        )
        chosen = decoded  # a choice among a frame's candidates looks at their pictures before the next one is drawn
        if whole.in_turn and whole.num_candidates > 1:
            chosen = decoded._replace(packed=decoded.packed + self.packed, pictures=pictures // whole.num_frames)
        return max(
            DrawingMemory(weights, working=max(sources, story)),
            drawn._replace(weights=weights, packed=self.packed, codes=codes + prompts),
            decoded,
            chosen,
            key=lambda memory: memory.total,
        )

    def _remedy(self) -> str:
        """Name the largest request of this kind that fits."""
        whole = self.whole
        candidates = largest(lambda number: self._fits(whole._replace(num_candidates=number)), whole.num_candidates)
        if candidates:
            return f"num_candidates={candidates} is the most that fits"
        alone = whole._replace(num_candidates=1)
        frames = largest(lambda number: self._fits(alone._replace(num_frames=number)), whole.num_frames)
        if frames:
            return f"with num_candidates=1, {frames} captions a story are the most that fit"
        return "not even one frame fits"


def pictures_at_once(image_tokenizer: ImageTokenizer) -> int:
    """Pictures that are read or decoded together: fewer where they are large."""
    return max(1, min(MOST_PICTURES, PICTURES_BYTES // image_tokenizer.picture_bytes))


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to ``most`` that fits, if all smaller ones do; 0 if none does."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def module_bytes(*modules: nn.Module) -> int:
    return sum(tensor.nbytes for module in modules for tensor in [*module.parameters(), *module.buffers()])
