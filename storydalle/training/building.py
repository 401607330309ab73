"""Build the models to train, from settings: ``_target_``s of conf/system."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from storydalle.files.conf import config_names
from storydalle.files.paths import user_path
from storydalle.mistakes import UserError, nearest, told_in_one_line
from storydalle.models import kinds, zoo
from storydalle.models.backbones.backbone import BACKBONES, Codes, Words
from storydalle.models.licences import inherited, part_of
from storydalle.models.pretrained import CAPTIONS_FOLDER, PretrainedModel, read_card
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE
from storydalle.models.story_dalle.retrofit import retrofit as retrofitted
from storydalle.models.story_gan.caption_encoder import CaptionEncoder, SmallCaptionEncoder
from storydalle.models.story_gan.language_models import CLIPCaptionEncoder, LanguageModelEncoder, RobertaCaptionEncoder
from storydalle.models.story_gan.model import StoryGANc
from storydalle.models.zoo import CONFIG_NAME
from storydalle.stories.story import Stories
from storydalle.tokens.caption_tokenizer import CaptionOptions, CaptionTokenizer, TextTokenizer
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.known_words import KnownWords
from storydalle.training.runs import MODEL, finished_models


def trained_image_tokenizer(folder: str | None, runs: str) -> ImageTokenizer:
    """A trained image tokenizer, from its own folder or from that of a StoryDALL-E."""
    return tokenizers(model_folder(folder, user_path(runs)))[0]


def tokenizers(folder: Path) -> tuple[ImageTokenizer, TextTokenizer | None]:
    """Both tokenizers of a StoryDALL-E's folder, or only the image tokenizer of its own folder."""
    with told_in_one_line(f"cannot open the tokenizers of {folder}", ValueError, OSError):
        if not (folder / CAPTIONS_FOLDER).is_dir():
            return ImageTokenizer.from_pretrained(folder), None
        model = StoryDALLE.from_pretrained(folder)
        return model.image_tokenizer, model.caption_tokenizer


def text_to_image(
    image_tokenizer: str | None,
    runs: str,
    captions: CaptionOptions,
    stories: Stories,
    backbone: Mapping[str, object],
) -> StoryDALLE:
    """A fresh backbone, with a trained image tokenizer and a caption tokenizer trained on the stories.

    ``backbone`` names its ``kind``, by default a DALLE, and its sizes. Where ``image_tokenizer`` names a text-to-image
    model, all of that is trained on, as it is; of a model with a retrofit the image tokenizer alone is taken.
    """
    folder = model_folder(image_tokenizer, user_path(runs))
    if (folder / CAPTIONS_FOLDER).is_dir():
        base = opened(folder)
        if not retrofit_of(base):
            print(f"note: training continues from {folder}, with its own tokenizers and backbone")
            return base
    images = tokenizers(folder)[0]
    tokenizer = CaptionTokenizer.train(training_captions(stories), **captions)
    kind, sizes = BACKBONES.split(backbone)
    transformer = kind.sized(
        Words(tokenizer.vocab_size, tokenizer.text_length, tokenizer.pad_id),
        Codes(images.codebook_size, images.num_codes, images.kind),
        **sizes,
    )
    # A released image tokenizer's licence is a part of the model's.
    card = inherited(read_card(folder))
    fresh = StoryDALLE(images, tokenizer, retrofitted(transformer, source_blocks="none", story_depth=0), card)
    fresh.words = KnownWords()
    return fresh


def story_dalle(
    text_to_image: str | None,
    runs: str,
    retrofit: Mapping[str, object],
    added_names: Sequence[str] = (),
    fresh_backbone: bool = False,
) -> StoryDALLE:
    """A trained model with the requested retrofit; ``added_names`` are added to its vocabulary.

    If the model already has a retrofit with the same settings, those of memory aside, its training continues.
    Otherwise the backbone gets a new one; prints a note if the model's own retrofit is discarded. With
    ``fresh_backbone`` the model gives its sizes and tokenizers alone, and nothing of it has been trained.
    """
    folder = model_folder(text_to_image, user_path(runs))
    base = with_fresh_backbone(opened(folder)) if fresh_backbone else opened(folder)
    backbone, captions = base.model.backbone, base.caption_tokenizer
    if added_names:
        captions = captions.with_names(added_names)
        backbone.add_tokens(captions.vocab_size - backbone.text_vocab_size)
    model, parts = retrofitted(backbone, **retrofit), retrofit_of(base)
    if parts and is_continued(model, base.model):
        told = continued(model, base.model)
        print(f"note: training continues from {folder}, with its retrofit: {', '.join(parts)}{told}")
    elif parts:
        print(f"note: the backbone of {folder} gets a new retrofit; its own is discarded: {', '.join(parts)}")
    made = StoryDALLE(base.image_tokenizer, captions, model, unguided(base.card))
    made.words = base.words
    return made


def is_continued(model: RetrofittedDALLE, base: RetrofittedDALLE) -> bool:
    """True if two retrofits have the same settings, but for memory, and for a reach that only one of them has."""
    own, other = (replace(each.settings, memory="none", memory_frames=1) for each in (model, base))
    if own.story_reach is None or other.story_reach is None:
        own, other = replace(own, story_reach=None), replace(other, story_reach=None)
    return own == other


def continued(model: RetrofittedDALLE, base: RetrofittedDALLE) -> str:
    """Give ``model`` the weights of ``base``, of which ``is_continued`` is true; return what a note has to add.

    Positions of remembered frames that ``base`` has are taken over; new parameters stay as they are made.
    """
    weights, own, told = base.state_dict(), model.state_dict(), ""
    for name, positions in own.items():
        if name.endswith(".positions"):
            known = weights.get(name, positions[:0])[: len(positions)]
            weights[name] = torch.cat([known, positions[len(known) :]])
            if len(known) < len(positions):
                told = f"; new, and zero, are source_attention.*.positions from row {len(known)} on"
    if fresh := own.keys() - weights.keys():
        told += f"; new: {', '.join(sorted(fresh))}"
    weights = own | weights
    model.load_state_dict({name: weights[name] for name in own})
    if base.num_remembered and not model.num_remembered:
        told += "; its memory is left out"
    return told


def with_fresh_backbone(base: StoryDALLE) -> StoryDALLE:
    """A text-to-image model with the sizes and tokenizers of a trained one, that has learned no word."""
    backbone = type(base.model.backbone)(**base.model.backbone.config)
    fresh = StoryDALLE(
        base.image_tokenizer,
        base.caption_tokenizer,
        retrofitted(backbone, source_blocks="none", story_depth=0),
        inherited(base.card),
    )
    fresh.words = KnownWords()
    return fresh


def unguided(card: Mapping[str, object]) -> dict[str, object]:
    """The card of a base model without its guidance: the training decides if the new model has it."""
    sampling = {name: value for name, value in part_of(card, "sampling").items() if name != "guidance"}
    return {**card, "sampling": sampling, "guidance": False} if card.get("guidance") else dict(card)


def opened(folder: Path) -> StoryDALLE:
    with told_in_one_line(f"cannot open the text-to-image model {folder}", ValueError, OSError):
        return StoryDALLE.from_pretrained(folder)


def retrofit_of(model: StoryDALLE) -> list[str]:
    """The names of the parts of a model around its backbone."""
    parts = dict.fromkeys(name.partition(".")[0] for name, _ in model.model.named_parameters())
    return [part for part in parts if part != "backbone"]


def story_gan(
    caption_encoder: CaptionEncoder,
    stories: Stories,
    pretrained: str | None = None,
    runs: str = "runs",
    **networks: object,
) -> StoryGANc:
    """A fresh StoryGANc for the characters and the size of the stories, or a trained one, as it is."""
    labels = stories.outline(0).labels
    num_characters = labels["characters"].shape[-1] if "characters" in labels else 0
    if pretrained is not None:
        return trained_story_gan(model_folder(pretrained, user_path(runs)), num_characters, stories.resolution)
    if cut := cut_captions(caption_encoder, stories):
        print(cut)
    fresh = StoryGANc(caption_encoder, num_characters, stories.resolution, card=None, **networks)
    if isinstance(caption_encoder, SmallCaptionEncoder):  # a language model has read more than anybody knows
        fresh.words = KnownWords()
    return fresh


def trained_story_gan(folder: Path, num_characters: int, resolution: int) -> StoryGANc:
    with told_in_one_line(f"cannot open the StoryGANc {folder}", ValueError, OSError):
        story_gan = StoryGANc.from_pretrained(folder)
    for what, own, wanted in (
        ("characters", story_gan.num_characters, num_characters),
        ("pixels a side", story_gan.resolution, resolution),
    ):
        if own != wanted:
            raise UserError(
                f"{folder} knows {own} {what}, but the stories have {wanted}: use other stories, or train a new model"
            )
    print(f"note: training continues from {folder}, generator and discriminators, with its own sizes")
    return story_gan.train()


def cut_captions(encoder: CaptionEncoder, stories: Stories, num_stories: int = 4000) -> str:
    """A note about captions of the first stories that are longer than the encoder can read; empty if there are none."""
    told = [stories.outline(i).captions for i in range(min(num_stories, len(stories)))]
    num_cut, total = sum(len(encoder.notes(captions)) for captions in told), sum(len(captions) for captions in told)
    return f"{num_cut} of {total} captions are longer than the caption encoder can read, and are cut" if num_cut else ""


def small_caption_encoder(captions: CaptionOptions, stories: Stories, **sizes: int) -> CaptionEncoder:
    """A fresh encoder, with a caption tokenizer trained on the stories."""
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
    """The folder of a model to build on.

    ``pretrained`` is a name in the zoo, a folder of a model or of a finished run, a model of the hub, or an experiment,
    which means its newest finished run or, if there is none yet, the shipped model that it made.
    """
    if pretrained is None:
        raise UserError("pretrained is not set: give pretrained=EXPERIMENT or pretrained=FOLDER")
    if pretrained in zoo.zoo_names():
        return zoo.zoo_folder() / pretrained
    for folder in (user_path(pretrained), user_path(pretrained) / MODEL):
        if (folder / CONFIG_NAME).is_file():
            return folder
    if newest := newest_model(pretrained, runs):
        return newest
    makes_one = f"storydalle train experiment={pretrained} makes one"
    if shipped := zoo.stand_in(pretrained):
        print(f"note: {pretrained} has no finished run, so the shipped {shipped} is used; {makes_one}")
        return zoo.zoo_folder() / shipped
    experiments = config_names("experiment")
    if pretrained not in experiments and zoo.is_hub_id(pretrained):
        try:
            return kinds.locate(pretrained)
        except UserError as error:
            raise UserError(f"{error}; of experiments: {nearest(pretrained, experiments)}") from error
    raise UserError(
        f"pretrained={pretrained} is not a model's folder, and {runs / pretrained} has no finished run: {makes_one}"
    )


def newest_model(experiment: str, runs: Path) -> Path | None:
    """The model's folder of the newest finished run of an experiment."""
    return next(iter(finished_models(runs / experiment)), None)


def learn_words(model: PretrainedModel, stories: object, texts: str = "captions") -> None:
    """Add the words of all stories' ``texts`` to the known words of a model, unless its earlier words are unknown.

    The words of encoded stories, such as shards, are unknown too.
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
