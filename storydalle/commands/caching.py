"""``prepare pretrained=``: encode the stories as tokens and codes of a model, so that training starts at once."""

from pathlib import Path
from typing import NamedTuple

from storydalle.commands.application import instantiate
from storydalle.files import outputs
from storydalle.files.reading import object_if_whole
from storydalle.mistakes import UserError, told_in_one_line
from storydalle.stories.opening import ChosenData
from storydalle.stories.story import Stories
from storydalle.tokens.cache import CachedStories, cache_folder
from storydalle.tokens.caption_tokenizer import TextTokenizer
from storydalle.tokens.encoding import CODES, HEADER, build_cache, tables_folder
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.shards import write_shards
from storydalle.training.building import model_folder, tokenizers

FRAMES_A_CLIP, KILOBYTES_A_STORY = 8, 20  # guesses, for the space on the disk


class Shards(NamedTuple):
    """The webdataset shards that encoded stories are written as."""

    folder: Path
    stories_per_shard: int


def encode_splits(data: ChosenData, pretrained: str, runs: Path, workers: int, shards: Shards | None) -> list[str]:
    """Encode what training reads, splits train and val, where training looks for it; one line a split."""
    image_tokenizer, caption_tokenizer = tokenizers(model_folder(pretrained, runs))
    if data.train is None or data.val is None:
        raise UserError(f"{data.name} has no pictures to encode: leave pretrained out")
    root = runs / "cache" / f"{data.name}-{data.resolution}"
    lines = []
    for split, described in (("train", data.train), ("val", data.val)):
        with told_in_one_line(f"{split} cannot be encoded", ValueError, TypeError):
            stories = instantiate(described)
            lines.append(encode_split(split, stories, image_tokenizer, caption_tokenizer, root, workers))
            if shards is not None:
                if caption_tokenizer is None:
                    raise UserError(f"shards hold tokens, but pretrained={pretrained} has no caption tokenizer")
                folder = cache_folder(root, split, stories, image_tokenizer)
                cached = CachedStories(folder, tables_folder(folder, caption_tokenizer))
                lines.append(shard_split(split, cached, shards))
    return lines


def encode_split(
    split: str,
    stories: Stories,
    image_tokenizer: ImageTokenizer,
    caption_tokenizer: TextTokenizer | None,
    root: Path,
    workers: int,
) -> str:
    folder = cache_folder(root, split, stories, image_tokenizer)
    num_clips = len(stories.clips())
    outputs.check_space(folder, megabytes=50 + num_clips * FRAMES_A_CLIP * image_tokenizer.num_codes * 2 // 1_000_000)
    build_cache(stories, image_tokenizer, caption_tokenizer, folder, workers, check_pictures=True)
    header = object_if_whole(folder / CODES / HEADER) or {}
    told = f"{split}: {sum(header['frames']):,} frames of {num_clips:,} clips"
    if header["num_problems"]:
        told += f" ({header['num_problems']:,} cannot be read)"
    if caption_tokenizer is not None:
        cached = CachedStories(folder, tables_folder(folder, caption_tokenizer))
        told += f", {len(cached):,} stories"
        if cached.left_out:
            told += f" ({cached.left_out:,} left out, because a picture is missing)"
    return f"encoded {told}, in {folder}"


def shard_split(split: str, cached: CachedStories, shards: Shards) -> str:
    """The encoded stories of a split as webdataset shards."""
    target = shards.folder / split
    outputs.check_space(target, megabytes=50 + len(cached) * KILOBYTES_A_STORY // 1000)
    paths = write_shards(cached, target, shards.stories_per_shard)
    return f"wrote {len(paths):,} shards of {len(cached):,} stories, {target}"
