"""StoryDALL-E as one object: captions and a source picture in, frames out."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from storydalle.files.json_values import as_object
from storydalle.files.reading import read_object
from storydalle.files.weights import WithoutNumbers, described_by
from storydalle.models.backbones.backbone import open_backbone
from storydalle.models.drawing import Candidates, Progress, Sampling, StoryRequest
from storydalle.models.packing import picture_view, resolved
from storydalle.models.pretrained import CAPTIONS_FOLDER, CARD_NAME, PretrainedModel, read_card
from storydalle.models.story_dalle.drawing_bytes import free_on, view_bytes
from storydalle.models.story_dalle.drawing_plan import DrawingPlan, pictures_at_once
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, retrofit
from storydalle.models.story_dalle.sampling import (
    Choose,
    CodeSampling,
    FrameKey,
    Prompt,
    Sampled,
    likeliest,
    request_sizes,
    sample,
)
from storydalle.models.story_dalle.story_encoder import SentenceStoryEncoder
from storydalle.models.zoo import CONFIG_NAME, WEIGHTS_NAME
from storydalle.stories.images import to_pixels, to_tensor
from storydalle.stories.story import Stories
from storydalle.tokens.caption_tokenizer import TextTokenizer, load_caption_tokenizer
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.known_words import KnownWords

TOKENIZER_PREFIX = "image_tokenizer."


class StoryDALLE(PretrainedModel):
    """Image tokenizer, caption tokenizer and retrofitted transformer; the sizes of all three are checked together.

    A text-to-image model is the same object with an empty retrofit.
    """

    sampling_class = CodeSampling
    candidates_by = "likelihood"
    may_pack = True  # False while it trains: packed copies of the weights would take memory that training needs

    def __init__(
        self,
        image_tokenizer: ImageTokenizer,
        caption_tokenizer: TextTokenizer,
        model: RetrofittedDALLE,
        card: dict[str, object] | None = None,
    ) -> None:
        super().__init__()
        backbone = model.backbone
        for what, ours, theirs in (
            ("codes a frame", backbone.image_length, image_tokenizer.num_codes),
            ("image codes", backbone.num_codes, image_tokenizer.codebook_size),
            ("tokens a caption", backbone.text_length, caption_tokenizer.text_length),
            ("text tokens", backbone.text_vocab_size, caption_tokenizer.vocab_size),
        ):
            if ours != theirs:
                raise ValueError(f"the backbone has {ours} {what}, its tokenizer {theirs}: they must agree")
        if backbone.codes_of not in (None, image_tokenizer.kind):
            raise ValueError(
                f"the backbone writes codes of an image tokenizer of kind {backbone.codes_of}, but this one is of "
                f"kind {image_tokenizer.kind}: both have {image_tokenizer.codebook_size} codes, but they mean "
                "different things"
            )
        self.image_tokenizer = image_tokenizer
        self.caption_tokenizer = caption_tokenizer
        self.model = model
        self.card = card or {}
        self.resolution = image_tokenizer.resolution
        encoder = model.story_encoder
        self.sentence_dim = encoder.input_dim if isinstance(encoder, SentenceStoryEncoder) else None

    @property
    def device(self) -> torch.device:
        return self.model.backbone.device

    # ------------------------------------------------------------------------------------------------- drawing

    def draw_candidates(self, request: StoryRequest) -> Candidates:
        """Frames, drawn as codes; the likeliest candidate of each frame comes first."""
        assert isinstance(request.sampling, CodeSampling)
        tokens, mask = self._tokenize(request.captions)  # b f t, b f
        num_frames, num_candidates = tokens.shape[1], request.num_candidates
        plan = self.plan(request)
        if request.announce is not None:
            request.announce(str(plan))
        keys = [
            FrameKey(request.seed, request.first + story, frame)
            for story in range(len(tokens))
            for frame in range(num_frames)
        ]
        choose = likeliest if request.choose is None else self._choice_of(request)
        draw = partial(
            self.draw,
            tokens,
            num_candidates=num_candidates,
            sampling=request.sampling,
            mask=mask,
            progress=request.progress,
            sentences=request.sentences,
            max_rows=plan.max_rows,
            choose=choose,
        )
        if request.source is None:
            drawn = draw_without_source(draw, keys, num_frames, choose if self.model.num_remembered else likeliest)
        else:
            parts = request.source.split(pictures_at_once(self.image_tokenizer))
            drawn = draw(source=torch.cat([self.image_tokenizer.encode(part) for part in parts]), keys=keys)
        ranked, _ = likeliest_first(drawn)
        images = self._decoded(rearrange(ranked.codes, "r k l -> (r k) l"), request.as_pixels)
        return Candidates(
            rearrange(images, "(b f k) x y z -> b f k x y z", f=num_frames, k=num_candidates),
            lambda: rearrange(ranked.log_likelihood, "(b f) k -> b f k", f=num_frames),
        )

    def _choice_of(self, request: StoryRequest) -> Choose:
        """The request's choice among pictures as one among codes, the likeliest shown first."""
        assert request.choose is not None
        asked = request.choose

        def choose(frame: int, drawn: Sampled) -> Int[Tensor, " b"]:
            ranked, order = likeliest_first(drawn)
            images = self._decoded(rearrange(ranked.codes, "b k l -> (b k) l"), request.as_pixels)
            kept = asked(frame, rearrange(images, "(b k) x y z -> b k x y z", k=request.num_candidates))
            return order.gather(1, kept.to(order)[:, None]).squeeze(1)

        return choose

    def plan(self, request: StoryRequest) -> DrawingPlan:
        """The waves of a request, and the memory that it needs; ValueError if it does not fit."""
        tokens, _ = self._tokenize(request.captions)
        sampling = self._packed_as_allowed(request.sampling)
        has_source = request.source is not None or tokens.shape[1] > 1
        source_length = self.model.backbone.image_length if has_source else 0
        whole = request_sizes(self.model, tokens, source_length, request.num_candidates, sampling)
        packed = view_bytes(self.model, sampling.packing)
        return DrawingPlan(self.image_tokenizer, self.model, whole, packed, request.as_pixels, free_on(self.device))

    def _packed_as_allowed(self, sampling: Sampling) -> CodeSampling:
        assert isinstance(sampling, CodeSampling)
        return sampling if self.may_pack else replace(sampling, packing="plain")

    def _decoded(
        self, codes: Int[Tensor, "n l"], as_pixels: bool
    ) -> Float[Tensor, "n c h w"] | UInt8[Tensor, "n h w c"]:
        """Pictures of codes; as pixels they take a quarter of the memory, and none of the device's."""
        decode = picture_view(self.image_tokenizer).decode
        parts = (decode(part) for part in codes.split(pictures_at_once(self.image_tokenizer)))
        return torch.cat([to_pixels(part).cpu() if as_pixels else part for part in parts])

    def ceilings(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """The image tokenizer's reconstruction of true frames: no drawn frame can be better."""
        return {"tokenizer reconstruction": self.reconstruct}

    @torch.inference_mode()
    def reconstruct(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Pictures in [-1, 1], encoded and decoded by the image tokenizer: the best that the model can draw."""
        parts = [self.image_tokenizer.encode(part.to(self.device)) for part in images.split(64)]
        return torch.cat([self.image_tokenizer.decode(part) for part in parts])

    def sampling(self, sampling: Sampling | None = None, **given: float | int | str | None) -> CodeSampling:
        """As for every model; also ValueError for guidance if the model was not trained for it."""
        chosen = super().sampling(sampling, **given)
        assert isinstance(chosen, CodeSampling)
        if chosen.guidance != 1 and not self.card.get("guidance", False):
            raise ValueError(f"guidance={chosen.guidance}: this model was not trained for guidance; leave it at 1")
        return chosen

    @torch.inference_mode()
    def draw(
        self,
        tokens: Int[Tensor, "b f t"],
        source: Int[Tensor, "b l"] | None,
        keys: list[FrameKey],
        num_candidates: int = 1,
        sampling: CodeSampling | None = None,
        mask: Bool[Tensor, "b f"] | None = None,
        progress: Progress | None = None,
        frames: slice = slice(None),
        sentences: Float[Tensor, "b f e"] | None = None,
        max_rows: int | None = None,
        before: Int[Tensor, "b e l"] | None = None,
        choose: Choose = likeliest,
    ) -> Sampled:
        """Codes of the given ``frames`` of whole stories; the story encoder always reads all captions.

        ``before`` are the frames of the stories ahead of the first one that is drawn: a model with memory takes them as
        they are. It remembers of each frame the candidate that ``choose`` keeps. Raises ValueError if it draws later
        frames alone and is not told what stands before them.
        """
        if self.model.num_remembered and (frames.start or 0) > 0 and before is None:
            raise ValueError(f"a model with memory draws frame {frames.start + 1} from the frames before it: give them")
        prompts = []
        sampling = self._packed_as_allowed(sampling or self.sampling())
        empty = self.caption_tokenizer.encode([""]).tokens.to(tokens).expand_as(tokens)  # b f t
        context = None if source is None else source[:, None]  # b 1 l: one context frame
        for captions in [tokens] if sampling.guidance == 1 else [tokens, empty]:  # the second one unconditional
            story = self._encode_story(captions, mask, sentences, context)
            story = None if story is None else story[:, frames]
            prompts.append(Prompt(captions[:, frames], story, context, keys, before))
        unconditional = prompts[1] if len(prompts) > 1 else None
        return sample(
            self.model, prompts[0], num_candidates, sampling, unconditional, max_rows, progress, choose=choose
        )

    def _encode_story(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        sentences: Tensor | None = None,
        context: Tensor | None = None,
    ) -> Tensor | None:
        """Story vectors; in a story longer than those of training, each frame sees a window of captions up to it."""
        mask = torch.ones_like(tokens[..., 0], dtype=torch.bool) if mask is None else mask

        def encoded(near: slice) -> Tensor | None:
            vectors = None if sentences is None else sentences[:, near]
            return self.model.encode_story(tokens[:, near], mask[:, near], vectors, context)

        num_frames = tokens.shape[1]
        said = self.card.get("story_window") if self.model.settings.story_reach is None else None
        window = said if isinstance(said, int) and said else num_frames
        story = encoded(slice(window))
        if story is None:
            return None
        parts = [story]
        for end in range(window + 1, num_frames + 1):
            nearest = encoded(slice(end - window, end))
            assert nearest is not None
            parts.append(nearest[:, -1:])  # b 1 s d, the last frame of its window
        return torch.cat(parts, 1)

    def _tokenize(self, captions: list[list[str]]) -> tuple[Int[Tensor, "b f t"], Bool[Tensor, "b f"]]:
        """Tokens of stories, the shorter ones filled up with empty captions, and a mask of the frames that exist."""
        num_frames = max(map(len, captions))
        mask = torch.tensor([[i < len(story) for i in range(num_frames)] for story in captions], device=self.device)
        padded = [caption for story in captions for caption in [*story, *[""] * (num_frames - len(story))]]
        tokens = rearrange(self.caption_tokenizer.encode(padded).tokens, "(b f) t -> b f t", f=num_frames)
        return tokens.to(self.device), mask

    def caption_notes(self, captions: list[str]) -> list[str]:
        limit = self.caption_tokenizer.text_length
        cut = [
            f"caption {index + 1} has {limit + cut} tokens; the last {cut} were cut, since the model reads {limit}"
            for index, cut in self.caption_tokenizer.encode(captions).overflow
        ]
        return cut + super().caption_notes(captions)

    def request_notes(self, request: StoryRequest) -> list[str]:
        """Notes on a missing source, on one unlike those of training, and on a story encoder without its vectors."""
        notes = []
        if request.source is None:
            notes.append("no source given: the first frame is drawn from its caption alone and leads the others")
        else:
            error = self.reconstruction_errors(request.source).max().item()
            limit = self.card.get("reconstruction_error_p99")
            if isinstance(limit, int | float) and error > limit:
                notes.append(
                    f"the source looks unlike the pictures that this model was trained on: its tokenizer reconstructs "
                    f"it with an error of {error:.3f} a pixel (at most {limit:.3f} for 99 % of its own pictures), so "
                    "expect the drawn frames to differ from it"
                )
        if self.sentence_dim is not None and request.sentences is None:
            notes.append(
                f"the story encoder is not used: it reads vectors of a sentence encoder, {self.sentence_dim} wide, but "
                "none were given (sentences)"
            )
        assert isinstance(request.sampling, CodeSampling)
        _, note = resolved(request.sampling.packing)
        return notes if note is None else [*notes, note]

    @torch.inference_mode()
    def reconstruction_errors(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Mean absolute error of the image tokenizer on pictures in [-1, 1], as a share of the range of 2."""
        parts = [
            (self.image_tokenizer.decode(self.image_tokenizer.encode(part)) - part).abs().mean((1, 2, 3)) / 2
            for part in pixels.split(32)
        ]
        return torch.cat(parts)

    def measured(self, stories: Stories) -> dict[str, object]:
        """For the card: the error of the image tokenizer that 99 % of the stories' frames do not exceed."""
        pixels = to_tensor(np.concatenate([story.frames for story in stories.readable(64)]))
        return {"reconstruction_error_p99": float(np.quantile(self.reconstruction_errors(pixels).numpy(), 0.99))}

    def description(self) -> dict[str, object]:
        """The content of ``config.json``."""
        return {
            "image_tokenizer": self.image_tokenizer.description,
            "backbone": {"kind": self.model.backbone.kind, **self.model.backbone.config},
            "retrofit": self.model.config,
        }

    def summary(self) -> dict[str, str]:
        """A summary for people: what is drawn, and how large the model is."""
        backbone, num_codes = self.model.backbone, self.image_tokenizer.num_codes
        num_parameters = sum(parameter.numel() for parameter in self.parameters())
        return {
            "draws": f"{self.resolution} x {self.resolution} pixels, {num_codes} codes a frame",
            "parameters": f"{num_parameters / 1e6:.1f} M, image tokenizer included",
            "transformer": f"{backbone.depth} blocks, {backbone.dim} wide, {backbone.num_heads} heads",
        }

    # ------------------------------------------------------------------------------------------------- files

    @classmethod
    def open_folder(cls, folder: Path) -> "StoryDALLE":
        story_dalle, files = cls.without_numbers(folder)
        story_dalle.load_files(*files)
        with described_by(folder / CARD_NAME, "is no card of a StoryDALL-E"):
            story_dalle.sampling()
        return story_dalle.eval()

    @classmethod
    def without_numbers(cls, folder: Path) -> tuple["StoryDALLE", list[tuple[Path, str]]]:
        """The model of a folder before its weights are read, and the files of the weights, as ``load_files`` takes.

        Raises ValueError if the folder describes no such model.
        """
        named, otherwise = folder / CONFIG_NAME, "is no StoryDALL-E configuration"
        with described_by(named, otherwise):
            config = read_object(named)
            lender = folder  # the folder of the image tokenizer, which models of one family may share
            if isinstance(config["image_tokenizer"], str):
                lender = folder / config["image_tokenizer"]
                config["image_tokenizer"] = read_object(lender / CONFIG_NAME)["image_tokenizer"]
        with described_by(named, otherwise, folder / WEIGHTS_NAME, lender / WEIGHTS_NAME), WithoutNumbers():
            image_tokenizer = ImageTokenizer.from_config(as_object(config["image_tokenizer"]))
            model = retrofit(open_backbone(as_object(config["backbone"])), **as_object(config["retrofit"]))
        captions = load_caption_tokenizer(folder / CAPTIONS_FOLDER)
        shared = [] if lender == folder else [(lender / WEIGHTS_NAME, TOKENIZER_PREFIX)]
        story_dalle = cls(image_tokenizer, captions, model, read_card(folder))
        story_dalle.words = KnownWords.load(folder)
        return story_dalle, [(folder / WEIGHTS_NAME, ""), *shared]

    def save_folder(
        self,
        folder: str | Path,
        dtype: torch.dtype = torch.float16,
        tokenizer_of: str | None = None,
        is_tokenizer_rounded: bool = False,
    ) -> None:
        """Write config, weights (half precision), caption tokenizer, card and README.

        The image tokenizer keeps its precision, since rounding can turn one code into another;
        ``is_tokenizer_rounded`` rounds it too. ``tokenizer_of`` is a folder, relative to this one, of a model with the
        same image tokenizer: it is then read from there and not written again. Raises ValueError, before anything is
        written, if a weight is not finite.
        """
        config = self.description()
        if tokenizer_of is not None:
            config["image_tokenizer"] = tokenizer_of
        weights = self.state_dict()
        if tokenizer_of is not None:
            weights = {name: value for name, value in weights.items() if not name.startswith(TOKENIZER_PREFIX)}
        exact = None if is_tokenizer_rounded else TOKENIZER_PREFIX
        self.write_weights(Path(folder), {WEIGHTS_NAME: weights}, dtype, exact)
        self.caption_tokenizer.save(Path(folder) / CAPTIONS_FOLDER)
        self.write_description(Path(folder), config)


def likeliest_first(drawn: Sampled) -> tuple[Sampled, Int[Tensor, "r k"]]:
    """Candidates of each frame in order, and their old places."""
    likelihood, order = drawn.log_likelihood.sort(dim=1, descending=True, stable=True)  # r k; r = b f
    return Sampled(drawn.codes.gather(1, order[..., None].expand_as(drawn.codes)), likelihood), order


def draw_without_source(draw: Callable[..., Sampled], keys: list[FrameKey], num_frames: int, choose: Choose) -> Sampled:
    """The first frame of each story from text alone; its best candidate is the source of the rest.

    A memory of the rest begins after it, as in training it begins after the source.
    """
    first = draw(source=None, keys=keys[::num_frames], frames=slice(0, 1))  # b k
    if num_frames == 1:
        return first
    best = choose(0, first)
    source = first.codes[torch.arange(len(best), device=best.device), best]  # b l
    later = [key for key in keys if key.frame]
    rest = draw(source=source, keys=later, frames=slice(1, None), before=first.codes[:, :0])  # (b f) k

    def joined(head: Tensor, tail: Tensor) -> Tensor:
        whole = torch.cat([head[:, None], rearrange(tail, "(b f) ... -> b f ...", f=num_frames - 1)], 1)
        return rearrange(whole, "b f ... -> (b f) ...")

    return Sampled(*(joined(*pair) for pair in zip(first, rest, strict=True)))
