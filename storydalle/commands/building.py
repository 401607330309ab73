"""Models to train, from what a config says: ``_target_`` of conf/system."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from storydalle.backbones.backbone import UNNAMED_KIND, Codes, Words, backbone_class
from storydalle.commands.mistakes import UserError, told_in_one_line
from storydalle.gan.caption_encoder import CaptionEncoder, SmallCaptionEncoder
from storydalle.gan.language_models import CLIPCaptionEncoder, LanguageModelEncoder, RobertaCaptionEncoder
from storydalle.licences import inherited
from storydalle.paths import user_path
from storydalle.pretrained import CONFIG_NAME, PretrainedModel, read_card
from storydalle.retrofit import retrofit as retrofitted
from storydalle.stories.story import Stories
from storydalle.story_dalle import StoryDALLE
from storydalle.story_gan import StoryGANc
from storydalle.tokens.captions import CaptionTokenizer
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.known_words import KnownWords

MODEL = "model"  # folder of a finished run's model


def trained_image_tokenizer(folder: str | None, runs: str) -> ImageTokenizer:
    """An image tokenizer that a run has trained."""
    found = model_folder(folder, user_path(runs))
    with told_in_one_line(f"cannot open the image tokenizer {found}", ValueError, OSError):
        return ImageTokenizer.from_pretrained(found)


def text_to_image(
    image_tokenizer: str | None,
    runs: str,
    captions: Mapping[str, Any],
    stories: Stories,
    backbone: Mapping[str, Any],
) -> StoryDALLE:
    """A fresh backbone behind a trained image tokenizer and a caption tokenizer trained on the stories.

    ``backbone`` names its ``kind``, by default a DALLE, and its sizes.
    """
    images = trained_image_tokenizer(image_tokenizer, runs)
    tokenizer = CaptionTokenizer.train(training_captions(stories), **captions)
    sizes = dict(backbone)
    transformer = backbone_class(sizes.pop("kind", UNNAMED_KIND)).sized(
        Words(tokenizer.vocab_size, tokenizer.text_length, tokenizer.pad_id),
        Codes(images.codebook_size, images.num_codes, images.kind),
        **sizes,
    )
    # A released image tokenizer's licence is a part of the model's.
    card = inherited(read_card(model_folder(image_tokenizer, Path(runs))))
    fresh = StoryDALLE(images, tokenizer, retrofitted(transformer, source_blocks="none", story_depth=0), card)
    fresh.words = KnownWords()
    return fresh


def story_dalle(
    text_to_image: str | None, runs: str, retrofit: Mapping[str, Any], added_names: Sequence[str] = ()
) -> StoryDALLE:
    """A trained text-to-image model with a fresh retrofit around its backbone; ``added_names`` become words of it.

    Says so where the model had a retrofit, which is not gone on with.
    """
    folder = model_folder(text_to_image, user_path(runs))
    with told_in_one_line(f"cannot open the text-to-image model {folder}", ValueError, OSError):
        base = StoryDALLE.from_pretrained(folder)
    parts = dict.fromkeys(name.partition(".")[0] for name, _ in base.model.named_parameters())
    if left := [part for part in parts if part != "backbone"]:
        print(f"note: a fresh retrofit goes around the backbone of {folder}; its own is left: {', '.join(left)}")
    backbone, captions = base.model.backbone, base.caption_tokenizer
    if added_names:
        captions = captions.with_names(added_names)
        backbone.add_tokens(captions.vocab_size - backbone.text_vocab_size)
    made = StoryDALLE(base.image_tokenizer, captions, retrofitted(backbone, **retrofit), unguided(base.card))
    made.words = base.words
    return made


def unguided(card: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a model that is about to be trained: whether captions may be weighed up is for that to say."""
    sampling = {name: value for name, value in card.get("sampling", {}).items() if name != "guidance"}
    return {**card, "sampling": sampling, "guidance": False} if card.get("guidance") else dict(card)


def story_gan(caption_encoder: CaptionEncoder, stories: Stories, **networks: Any) -> StoryGANc:
    """A fresh StoryGANc for the characters and the size of the stories."""
    labels = stories.outline(0).labels
    num_characters = labels["characters"].shape[-1] if "characters" in labels else 0
    if cut := cut_captions(caption_encoder, stories):
        print(cut)
    fresh = StoryGANc(caption_encoder, num_characters, stories.resolution, **networks)
    if isinstance(caption_encoder, SmallCaptionEncoder):  # a language model has read more than anybody knows
        fresh.words = KnownWords()
    return fresh


def cut_captions(encoder: CaptionEncoder, stories: Stories, num_stories: int = 4000) -> str:
    """Says how many captions of the first stories are longer than the encoder reads of each; empty if none is."""
    told = [stories.outline(i).captions for i in range(min(num_stories, len(stories)))]
    num_cut, total = sum(len(encoder.notes(captions)) for captions in told), sum(len(captions) for captions in told)
    return f"{num_cut} of {total} captions are longer than the caption encoder reads, and are cut" if num_cut else ""


def small_caption_encoder(captions: Mapping[str, Any], stories: Stories, **sizes: int) -> CaptionEncoder:
    """A fresh encoder behind a caption tokenizer trained on the stories."""
    return SmallCaptionEncoder(CaptionTokenizer.train(training_captions(stories), **captions), **sizes)


def pretrained_caption_encoder(kind: str, folder: str | None, tuning: str) -> CaptionEncoder:
    """A language model from a folder, as a caption encoder."""
    if folder is None:
        raise UserError(
            f"language_model is not set: give the folder of a {kind} model, or take the small encoder, which needs "
            "none (caption_encoder@network.caption_encoder=small)"
        )
    encoders: dict[str, type[LanguageModelEncoder]] = {"roberta": RobertaCaptionEncoder, "clip": CLIPCaptionEncoder}
    return encoders[kind].from_pretrained(user_path(folder), tuning)


def model_folder(pretrained: str | None, runs: Path) -> Path:
    """A model's folder: the given one, or that of the newest finished run of an experiment."""
    if pretrained is None:
        raise UserError("pretrained is not set: give pretrained=EXPERIMENT or pretrained=FOLDER")
    folder = user_path(pretrained)
    if (folder / CONFIG_NAME).is_file():
        return folder
    newest = newest_model(pretrained, runs)
    if newest is None:
        raise UserError(
            f"pretrained={pretrained} is no model's folder, and {runs / pretrained} holds no finished run: "
            f"storydalle train experiment={pretrained} makes one"
        )
    return newest


def newest_model(experiment: str, runs: Path) -> Path | None:
    """The model's folder of the newest finished run of an experiment."""
    finished = list((runs / experiment).glob(f"**/{MODEL}/{CONFIG_NAME}"))
    return max(finished, key=lambda path: path.stat().st_mtime).parent if finished else None


def learn_words(model: PretrainedModel, stories: object, texts: str = "captions") -> None:
    """Add the words of all stories' ``texts`` to those that a model knows, unless what it read before is not known.

    Of encoded stories, such as shards, the words are not known either.
    """
    if model.words is None or not isinstance(stories, Stories):
        model.words = None
        return
    numbers = tqdm(range(len(stories)), desc="reading words", disable=None, leave=False)
    told = (text for i in numbers for text in getattr(stories.outline(i), texts))
    model.words = model.words.with_those_of(KnownWords.read(told, stories.made_up_names()))


def training_captions(stories: Stories, num_stories: int = 4000) -> list[str]:
    """Captions and descriptions of the first stories."""
    outlines = [stories.outline(i) for i in range(min(num_stories, len(stories)))]
    return [text for outline in outlines for text in (*outline.captions, *outline.descriptions) if text]
