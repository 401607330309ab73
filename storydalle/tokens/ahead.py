"""Splits of a data set encoded ahead of training, or written as shards; each tells in one line what it made."""

from pathlib import Path
from typing import NamedTuple

from storydalle.files import outputs
from storydalle.stories.story import Stories
from storydalle.tokens.cache import CachedStories, cache_folder
from storydalle.tokens.caption_tokenizer import TextTokenizer
from storydalle.tokens.encoding import CODES, build_cache, tables_folder
from storydalle.tokens.headers import codes_header
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.shards import write_shards

FRAMES_A_CLIP, KILOBYTES_A_STORY = 8, 20  # guesses, for the space on the disk


class Shards(NamedTuple):
    """The webdataset shards that encoded stories are written as."""

    folder: Path
    stories_per_shard: int

    def write(self, split: str, cached: CachedStories) -> str:
        target = self.folder / split
        outputs.check_space(target, megabytes=50 + len(cached) * KILOBYTES_A_STORY // 1000)
        paths = write_shards(cached, target, self.stories_per_shard)
        return f"wrote {len(paths):,} shards of {len(cached):,} stories, {target}"


class Encoder(NamedTuple):
    """A model's tokenizers, and the folder below which a training looks for what they made."""

    image_tokenizer: ImageTokenizer
    caption_tokenizer: TextTokenizer | None  # without one the codes alone are made
    root: Path
    workers: int

    def encode(self, split: str, stories: Stories) -> tuple[str, CachedStories | None]:
        """Encode what is not there yet; return what is there, in words and, with a caption tokenizer, to be read."""
        folder, num_clips = cache_folder(self.root, split, stories, self.image_tokenizer), len(stories.clips())
        num_codes = num_clips * FRAMES_A_CLIP * self.image_tokenizer.num_codes
        outputs.check_space(folder, megabytes=50 + num_codes * 2 // 1_000_000)
        build_cache(stories, self.image_tokenizer, self.caption_tokenizer, folder, self.workers, check_pictures=True)
        header = codes_header(folder / CODES)
        assert header is not None
        told = f"encoded {split}: {sum(header['frames']):,} frames of {num_clips:,} clips"
        if header["num_problems"]:
            told += f" ({header['num_problems']:,} cannot be read)"
        if self.caption_tokenizer is None:
            return f"{told}, in {folder}", None
        cached = CachedStories(folder, tables_folder(folder, self.caption_tokenizer))
        told += f", {len(cached):,} stories"
        if cached.left_out:
            told += f" ({cached.left_out:,} left out, because a picture is missing)"
        return f"{told}, in {folder}", cached
