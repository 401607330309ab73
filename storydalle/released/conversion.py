"""Released files -> a model folder, one tensor at a time: memory holds the largest tensor, not the model."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Shaped
from torch import Tensor, nn

from storydalle.files.reading import read_object
from storydalle.files.weights import Planned, WithoutNumbers, check_room, write_model
from storydalle.files.whole import folder_when_whole, write_text
from storydalle.models import cards, licences
from storydalle.models.backbones.dalle import DALLE
from storydalle.models.backbones.mega import MegaDALLE
from storydalle.models.pretrained import CAPTIONS_FOLDER, CARD_NAME, README_NAME
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, retrofit
from storydalle.models.story_dalle.source_attention import SourceCrossAttention
from storydalle.models.zoo import WEIGHTS_NAME
from storydalle.released.layouts import Layout, LayoutError, Match, Shape, count
from storydalle.released.model_layouts import (
    ADDED_NAMES,
    BACKBONE,
    ENCODING_VQGAN,
    IMAGES,
    MEGA_DECODER,
    MEGA_ENCODER,
    MEGA_PICTURES,
    MINDALLE_STAGE1,
    MINDALLE_STAGE2,
    PROMPT_NAMES,
    STORY_NAMES,
    STORYDALLE,
    backbone_config,
    mega_config,
    text_sizes,
)
from storydalle.released.stored_weights import StoredWeights, stored_weights
from storydalle.released.tokenizer_layouts import (
    DETOKER,
    DETOKER_UNTOLD,
    TAMING_VQGAN,
    remarks,
    told_of,
    vqgan_config,
)
from storydalle.tokens.byte_level import ByteLevelTokenizer
from storydalle.tokens.caption_tokenizer import CaptionTokenizer, TextTokenizer
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.paired import PairedTokenizer
from storydalle.tokens.vqgan import VQGAN

SAMPLING = {"temperature": 1.0, "top_k": 256}  # minDALL-E's recipe
# min-dalle's: its models were trained on empty captions too, and its program draws with super-conditioning.
MEGA_SAMPLING = {**SAMPLING, "guidance": 16.0}
WORDS = ("bpe-16k-", "")  # how the names of minDALL-E's vocabulary and merges begin; its program knows both
CACHES = {"": "dalle_bart_mega", "_mini": "dalle_bart_mini"}  # folders that min-dalle makes for its files
WIDTHS = {2048: "dalle-mega", 1024: "dalle-mini"}
Progress = Callable[[int], None]  # bytes written


class Source(NamedTuple):
    """The source of one of our tensors."""

    dtype: torch.dtype
    shape: Shape
    read: Callable[[], Shaped[Tensor, "..."]]

    @property
    def num_bytes(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class Conversion(NamedTuple):
    """Everything that a model folder is written from; the files to read are open."""

    model: StoryDALLE  # without numbers
    tensors: dict[str, Source]
    notes: list[str]  # what the file holds and is not used, and what it lacks


@contextmanager
def min_dalle(folder: Path, num_heads: int | None = None) -> Iterator[Conversion]:
    """minDALL-E's unpacked archive: its two stages and its tokenizer, here or in one folder below.

    Raises ForeignFile or LayoutError, naming the file and what is wrong, where one is missing or does not fit.
    """
    first, second = found(folder, "stage1_last.ckpt"), found(folder, "stage2_last.ckpt")
    vocab, merges = found_words(folder, WORDS)
    with stored_weights(first, "state_dict") as images, stored_weights(second, "state_dict") as transformer:
        with told_of(second):
            backbone = backbone_config(transformer.shapes, MINDALLE_STAGE2, "", num_heads)
        with told_of(first):
            image_config = image_tokenizer_config(images.shapes, backbone["image_length"])
        with told_of(vocab):
            captions = CaptionTokenizer.from_files(vocab, merges, backbone["text_length"])
        with WithoutNumbers():
            tokenizer = VQGAN(**image_config)
            model = retrofit(DALLE(**backbone, codes_of=tokenizer.kind), source_blocks="none", story_depth=0)
        story_dalle = whole(tokenizer, captions, model, "mindalle", first, second)
        ours = shapes_of(story_dalle)
        with told_of(first):
            tensors = sources(images, MINDALLE_STAGE1, part(ours, IMAGES))
        with told_of(second):
            tensors |= sources(transformer, MINDALLE_STAGE2, part(ours, BACKBONE))
        yield Conversion(story_dalle, tensors, remarks(images, MINDALLE_STAGE1) + remarks(transformer, MINDALLE_STAGE2))


@contextmanager
def released_story_dalle(
    path: Path, num_heads: int | None = None, added_names: tuple[str, ...] | None = None
) -> Iterator[Conversion]:
    """A training checkpoint of the released StoryDALL-E, its vocabulary and merges beside it.

    Its source attention was never saved: a new one, which adds nothing at first, takes its place in a third of the
    blocks. Raises ForeignFile or LayoutError, naming the file and what is wrong, where one is missing or does not fit.
    """
    vocab, merges = found_words(path.parent, WORDS[::-1])
    with stored_weights(path, ("state_dict", "model_state_dict")) as stored, told_of(path):
        stage1 = {name.removeprefix("stage1."): shape for name, shape in part(stored.shapes, "stage1.").items()}
        backbone = backbone_config(stored.shapes, STORYDALLE, "stage2.", num_heads)
        names = added_names if added_names is not None else told_names(backbone["text_vocab_size"], vocab)
        captions = CaptionTokenizer.from_files(
            vocab, merges, backbone["text_length"], names, names_as_released=bool(names)
        )
        sizes = STORYDALLE.sizes(stored.shapes)
        num_prompts = sizes["prompt"] if part(stored.shapes, PROMPT_NAMES) else 0
        sentence_dim = sizes["sentence"] if part(stored.shapes, STORY_NAMES) else None
        images = image_tokenizer_config(stage1, backbone["image_length"])
        with WithoutNumbers():
            tokenizer = VQGAN(**images)
            transformer = DALLE(**backbone, codes_of=tokenizer.kind, prefix_positions=True)
            model = retrofit(transformer, "third", 0, num_prompt_tokens=num_prompts, sentence_dim=sentence_dim)
        story_dalle = whole(tokenizer, captions, model, "storydalle", path)
        ours = shapes_of(story_dalle)
        fresh = part(ours, "model.source_attention.")
        tensors = sources(stored, STORYDALLE, {name: shape for name, shape in ours.items() if name not in fresh})
        tensors |= fresh_attention(fresh, backbone["dim"], backbone["num_heads"])
        notes = [
            *remarks(stored, STORYDALLE),
            f"{path} has no source attention, which its program neither trained nor saved: {len(fresh)} fresh tensors "
            "stand in its place and add nothing until they are trained",
        ]
        if sentence_dim is not None:
            notes.append(
                f"the story encoder reads a sentence encoder's vectors of captions, {sentence_dim} wide, which are not "
                "part of the file: generate() takes them as sentences, and draws each caption on its own without them"
            )
        yield Conversion(story_dalle, tensors, notes)


@contextmanager
def mega(folder: Path, image_encoder: Path, suffix: str = "", num_heads: int | None = None) -> Iterator[Conversion]:
    """min-dalle's files, and a VQGAN of taming to encode source frames, since min-dalle's can only draw.

    ``suffix`` of the file names is "_mini" for the smaller model. Raises ForeignFile or LayoutError, naming the file
    and what is wrong, where one is missing or does not fit.
    """
    paths, (vocab, merges) = mega_files(folder, suffix)
    name = f"dalle-{'mini' if suffix else 'mega'}"
    with ExitStack() as stack:
        encoder, decoder, pictures = (stack.enter_context(stored_weights(path)) for path in paths)
        images = stack.enter_context(stored_weights(image_encoder, "state_dict"))
        with told_of(paths[2]):
            num_codes = MEGA_PICTURES.sizes(pictures.shapes)["codes"]
        with told_of(paths[0]):
            if (other := WIDTHS.get(text_sizes(encoder.shapes)["dim"], name)) != name:
                raise LayoutError(f"it is as wide as the model of format={other}: ask for that")
        with told_of(paths[1]):
            backbone = mega_config(encoder.shapes, decoder.shapes, num_codes, num_heads)
        with told_of(image_encoder), WithoutNumbers():
            encoding = image_tokenizer_config(images.shapes, backbone["image_length"])
            resolution = resolution_of(images.shapes, backbone["image_length"])
            drawing = vqgan_config(pictures.shapes, DETOKER, resolution, **DETOKER_UNTOLD)
            tokenizer = PairedTokenizer(encoding, drawing)
            model = retrofit(MegaDALLE(**backbone, codes_of=tokenizer.kind), source_blocks="none", story_depth=0)
        with told_of(vocab):
            length, num_rows = backbone["text_length"], backbone["text_vocab_size"]
            captions = ByteLevelTokenizer.from_files(vocab, merges, length, num_rows)
        story_dalle = whole(tokenizer, captions, model, name, *paths, image_encoder)
        story_dalle.card |= {"sampling": MEGA_SAMPLING, "guidance": True}
        ours = shapes_of(story_dalle)
        tensors: dict[str, Source] = {}
        notes = [
            f"source frames are read by {image_encoder} and drawn by {paths[2]}: two fine-tunings of one model, whose "
            "codes may mean slightly different things"
        ]
        for stored, layout, prefix in (
            (encoder, MEGA_ENCODER, f"{BACKBONE}encoder."),
            (decoder, MEGA_DECODER, f"{BACKBONE}decoder."),
            (pictures, MEGA_PICTURES, f"{IMAGES}detokenizer."),
            (images, ENCODING_VQGAN, f"{IMAGES}tokenizer."),
        ):
            with told_of(stored.path):
                tensors |= sources(stored, layout, part(ours, prefix))
            notes += remarks(stored, layout)
        yield Conversion(story_dalle, {name: tensors[name] for name in ours}, notes)


# ------------------------------------------------------------------------------------------------ parts


def found(folder: Path, name: str) -> Path:
    """The file of that name in a folder or one level below; LayoutError if it is missing or there twice."""
    paths = [folder / name] if (folder / name).is_file() else sorted(folder.rglob(name))
    if len(paths) != 1:
        raise LayoutError(f"{folder} holds {'no' if not paths else len(paths)} {name}; give the folder that has one")
    return paths[0]


def found_words(folder: Path, beginnings: Sequence[str]) -> tuple[Path, Path]:
    """Vocabulary and merges with the first of these name beginnings that exists; errors as in ``found``."""
    places = ((search, each) for search in (folder.glob, folder.rglob) for each in beginnings)
    known = next((each for search, each in places if any(search(f"{each}vocab.json"))), beginnings[0])
    return found(folder, f"{known}vocab.json"), found(folder, f"{known}merges.txt")


def mega_files(folder: Path, suffix: str) -> tuple[list[Path], tuple[Path, Path]]:
    """Encoder, decoder and detokenizer, then vocabulary and merges.

    Either all are in one folder, as they are shared (mini's with a suffix), or as min-dalle stores them: without
    suffix, in a folder for each model, and the detokenizer in a third folder. Raises LayoutError as ``found`` does.
    """
    home = folder / CACHES[suffix] if (folder / CACHES[suffix]).is_dir() else folder
    ending = suffix if any(home.rglob(f"encoder{suffix}.pt")) or not any(home.rglob("encoder.pt")) else ""
    is_kept_apart = home.name == CACHES[suffix] and not any(folder.rglob("detoker.pt"))
    pictures = home.absolute().parent / "vqgan" if is_kept_apart else folder
    paths = [found(home, f"encoder{ending}.pt"), found(home, f"decoder{ending}.pt"), found(pictures, "detoker.pt")]
    return paths, (found(home, f"vocab{ending}.json"), found(home, f"merges{ending}.txt"))


def image_tokenizer_config(theirs: Mapping[str, Shape], num_codes: int) -> dict[str, object]:
    """The config of the VQGAN; the size of pictures follows from the transformer's number of codes a frame."""
    return vqgan_config(theirs, TAMING_VQGAN, resolution=resolution_of(theirs, num_codes))


def resolution_of(theirs: Mapping[str, Shape], num_codes: int) -> int:
    """The side, in pixels, of pictures that a VQGAN encodes as ``num_codes`` codes."""
    num_halvings = count(theirs, "encoder.down.{i}.downsample.")
    return math.isqrt(num_codes) * 2**num_halvings


def told_names(num_rows: int, vocab: Path) -> tuple[str, ...]:
    """The names that were added to a vocabulary, found by the number of extra rows in its table."""
    try:
        num_words = len(read_object(vocab))
    except (ValueError, TypeError) as error:
        raise LayoutError(f"{vocab} is no vocabulary: {error}") from error
    if num_rows - num_words not in ADDED_NAMES:
        raise LayoutError(
            f"{vocab} has {num_words} words and the table {num_rows} rows: give the {num_rows - num_words} names that "
            "were added, in their order (added_names)"
        )
    return ADDED_NAMES[num_rows - num_words]


def whole(
    tokenizer: ImageTokenizer, captions: TextTokenizer, model: RetrofittedDALLE, format: str, *files: Path
) -> StoryDALLE:
    """The model of these parts, with a card about its origin; LayoutError if they do not fit together."""
    card = {"sampling": SAMPLING, **licences.converted(format, [file.name for file in files])}
    try:
        return StoryDALLE(tokenizer, captions, model, card)
    except ValueError as error:
        raise LayoutError(f"{error}; they belong to different models") from error


def shapes_of(model: nn.Module) -> dict[str, Shape]:
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def part(shapes: Mapping[str, Shape], prefix: str | tuple[str, ...]) -> dict[str, Shape]:
    return {name: shape for name, shape in shapes.items() if name.startswith(prefix)}


def sources(stored: StoredWeights, layout: Layout, ours: Mapping[str, Shape]) -> dict[str, Source]:
    """The source of each of these tensors; LayoutError as in ``Layout.matched``."""

    def source(name: str, match: Match) -> Source:
        return Source(stored.dtypes[match.theirs], ours[name], lambda: match.row.forward(stored.read(match.theirs)))

    return {name: source(name, match) for name, match in layout.matched(stored.shapes, ours).items()}


def fresh_attention(names: Mapping[str, Shape], dim: int, num_heads: int) -> dict[str, Source]:
    """Source attention as at the start of a training, the same in every conversion."""

    @lru_cache(maxsize=1)
    def drawn(block: int) -> dict[str, Tensor]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(block)
            return SourceCrossAttention(dim, num_heads).state_dict()

    def read(name: str) -> Tensor:
        _, _, block, parameter = name.split(".", 3)
        return drawn(int(block))[parameter]

    return {name: Source(torch.float32, shape, partial(read, name)) for name, shape in names.items()}


# ------------------------------------------------------------------------------------------------ writing


def write_conversion(
    conversion: Conversion,
    target: Path,
    dtype: torch.dtype | None = None,
    max_bytes: int = 4 << 30,
    progress: Progress = lambda num_bytes: None,
) -> list[Path]:
    """Write a model folder; it gets its name when it is complete.

    Numbers keep their precision, or get ``dtype``; the image tokenizer always keeps its own, since rounding can turn
    one code into another. Raises FileExistsError if ``target`` exists, NoRoom if the disk is too small.
    """

    def kept(name: str) -> torch.dtype:
        source = conversion.tensors[name].dtype
        return source if dtype is None or name.startswith(IMAGES) or not source.is_floating_point else dtype

    planned = [Planned(name, kept(name), source.shape) for name, source in conversion.tensors.items()]
    check_room(target, sum(tensor.num_bytes for tensor in planned))

    def read(name: str) -> Tensor:
        tensor = conversion.tensors[name].read().to(kept(name))
        progress(tensor.nbytes)
        return tensor

    with folder_when_whole(target) as folder:
        conversion.model.write_description(folder, conversion.model.description())
        conversion.model.caption_tokenizer.save(folder / CAPTIONS_FOLDER)
        written = write_model(folder, planned, read, WEIGHTS_NAME, max_bytes)
    return [target / path.name for path in written]


def write_tokenizer(tokenizer: ImageTokenizer, target: Path, card: dict[str, object]) -> None:
    """Write an image tokenizer with a card and a README, as models have them; errors are those of a model's."""
    check_room(target, sum(value.nbytes for value in tokenizer.state_dict().values()))
    with folder_when_whole(target) as folder:
        tokenizer.save_pretrained(folder)
        write_text(folder / CARD_NAME, json.dumps(card, indent=2) + "\n")
        facts = {"pictures": f"{tokenizer.resolution} x {tokenizer.resolution} pixels"}
        facts["codes"] = f"{tokenizer.num_codes} a picture, of {tokenizer.codebook_size}"
        write_text(folder / README_NAME, cards.tokenizer_card(target.name, facts, card))
