"""From logits to codes: one decode loop for every model.

The prompt of a frame is prefilled once and shared by its candidates. All frames of a story and all candidates decode
in one batch over a preallocated cache. A model with memory draws the frames of a story one after another, all stories
and candidates side by side. Random numbers are keyed by (seed, story, frame, candidate, position), so a frame is the
same picture whatever else is in its batch. A request too large for memory runs in several waves.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from storydalle.mistakes import check_number, check_seed
from storydalle.models.drawing import Progress, Sampling
from storydalle.models.packing import PACKINGS, decoding_view
from storydalle.models.story_dalle.drawing_bytes import WaveSizes, free_on, rows_that_fit, view_bytes, wave_memory
from storydalle.models.story_dalle.look_ahead import draw_ahead, window_for
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE


@dataclass(frozen=True)
class CodeSampling(Sampling):
    """How a code is chosen from its logits: temperature, then top-k, then top-p among those, then a draw.

    ``temperature=0`` takes the likeliest code. ``guidance`` is the scale g of classifier-free guidance, 1 for none:
    logits l = l_empty + g (l_caption - l_empty) (Ho & Salimans 2022, eq. 6, with w = g - 1). ``packing``, one of
    ``packing.PACKINGS``, is the layout of the weights meanwhile; "bf16" may draw other codes, the rest do not.
    """

    temperature: float | int = 1.0
    top_k: int | None = None
    top_p: float | int | None = None
    guidance: float | int = 1.0
    packing: str = "exact"

    def __post_init__(self) -> None:
        check_number("temperature", self.temperature, 0)
        check_number("guidance", self.guidance, 0)
        if self.top_k is not None:
            check_number("top_k", self.top_k, 1, whole=True)
        if self.top_p is not None:
            check_number("top_p", self.top_p, 0, 1)
            if self.top_p == 0:
                raise ValueError("top_p=0 leaves no code to draw: use a share above 0 and up to 1, or leave it out")
        if self.packing not in PACKINGS:
            raise ValueError(f"packing={self.packing!r} is unknown; choose one of {', '.join(PACKINGS)}")

    def code_bytes(self, num_codes: int) -> int:
        """Bytes that one code is drawn with: logits of all branches, and what ``choose`` makes of them."""
        logits = 4 * num_codes * (1 if self.guidance == 1 else 3)
        if self.temperature == 0:
            return logits + 4 * num_codes  # log-probabilities
        kept = min(self.top_k or num_codes, num_codes)
        is_cut = kept < num_codes or self.top_p is not None
        # Logits that are kept with their places; weights, their sums, and which of these are below the threshold.
        return logits + max(4 * num_codes, (12 if is_cut else 0) * kept + (8 + 8 + 1 + 8) * kept)


class FrameKey(NamedTuple):
    """The key of one frame's random numbers."""

    seed: int
    story: int
    frame: int


class Sampled(NamedTuple):
    codes: Int[Tensor, "r k l"]
    log_likelihood: Float[Tensor, "r k"]  # nats of the codes under the unfiltered model at temperature 1


def uniforms(keys: Sequence[FrameKey], candidates: range, length: int) -> Float[Tensor, "r k l"]:
    """One uniform number in [0, 1) for every code to draw, from a counter-based generator keyed by its place."""
    draws = np.empty((len(keys), len(candidates), length))
    for i, key in enumerate(keys):
        check_seed(key.seed)
        for j, candidate in enumerate(candidates):
            entropy = np.random.SeedSequence([*key, candidate])
            draws[i, j] = np.random.Generator(np.random.Philox(entropy)).random(length)
    return torch.from_numpy(draws)


def choose(logits: Float[Tensor, "r v"], uniform: Float[Tensor, " r"], sampling: CodeSampling) -> Int[Tensor, " r"]:
    """Draw one code a row: invert the cumulative distribution of the codes that the filters leave, at ``uniform``."""
    if sampling.temperature == 0:
        return logits.argmax(-1)
    num_kept = min(sampling.top_k or logits.shape[-1], logits.shape[-1])
    if num_kept < logits.shape[-1] or sampling.top_p is not None:
        logits, indices = logits.topk(num_kept, dim=-1)  # r k, the likeliest first
    else:
        indices = None
    weights = (logits.double() / sampling.temperature).softmax(-1)  # double, for the cumulative sum
    if sampling.top_p is not None:  # sorted by now: keep codes until their share reaches top_p, the first always
        weights = weights.masked_fill(weights.cumsum(-1) - weights >= sampling.top_p, 0)
    cumulative = weights.cumsum(-1)
    threshold = uniform.to(cumulative)[:, None] * cumulative[:, -1:]  # r 1; top-p leaves a sum below 1
    # The smallest index whose cumulative weight exceeds the threshold: a code of weight zero is never chosen.
    place = (cumulative <= threshold).sum(-1).clamp(max=cumulative.shape[-1] - 1)
    return place if indices is None else indices.gather(-1, place[:, None]).squeeze(-1)


class Prompt(NamedTuple):
    """The inputs that the frames of some stories are drawn from."""

    tokens: Int[Tensor, "b f t"]
    story: Float[Tensor, "b f s d"] | None
    source: Int[Tensor, "b g l"] | None
    keys: list[FrameKey]  # one a frame, story by story
    before: Int[Tensor, "b e l"] | None = None  # frames drawn ahead of them, oldest first, for a model with memory


# The number of a frame and its candidates, to the candidate of each story that is kept.
Choose = Callable[[int, Sampled], Int[Tensor, " b"]]


def likeliest(frame: int, candidates: Sampled) -> Int[Tensor, " b"]:
    return candidates.log_likelihood.argmax(1)


@torch.inference_mode()
def sample(
    model: RetrofittedDALLE,
    prompt: Prompt,
    num_candidates: int = 1,
    sampling: CodeSampling | None = None,
    without_caption: Prompt | None = None,
    max_rows: int | None = None,
    progress: Progress | None = None,
    window: int | None = None,
    choose: Choose = likeliest,
) -> Sampled:
    """Draw ``num_candidates`` code grids for every frame of the prompt.

    ``without_caption`` is the same prompt with empty captions, for guidance. ``max_rows`` limits the rows of a wave, by
    default to what fits into the memory that is free. ``window`` is the number of codes of a row that a step tries (see
    ``look_ahead``), by default one that suits model and rows. A model with memory remembers of each frame the candidate
    that ``choose`` keeps, by default the likeliest. Raises ValueError for a seed out of range, and for guidance without
    ``without_caption``.
    """
    sampling = sampling or CodeSampling()
    if sampling.guidance != 1 and without_caption is None:
        raise ValueError("guidance needs an unconditional prompt; use guidance=1")
    branches = [prompt] if sampling.guidance == 1 or without_caption is None else [prompt, without_caption]
    if max_rows is None:
        source_length = 0 if prompt.source is None else prompt.source[0].numel()
        num_before = 0 if prompt.before is None else prompt.before.shape[1]
        whole = request_sizes(model, prompt.tokens, source_length, num_candidates, sampling, num_before)
        max_rows = rows_of_waves(model, whole, free_on(prompt.tokens.device) - view_bytes(model, sampling.packing))
    decoder = Decoder(model, decoding_view(model, sampling.packing))
    draw = partial(_sample_waves, decoder, num_candidates, sampling, max_rows, window)
    if not model.num_remembered:
        return draw(branches, progress)
    return _sample_in_turn(model, branches, draw, choose, progress)


def _sample_in_turn(
    model: RetrofittedDALLE,
    branches: list[Prompt],
    draw: Callable[[list[Prompt], Progress | None], Sampled],
    choose: Choose,
    progress: Progress | None,
) -> Sampled:
    """Frames one after another; each remembers the candidates that were chosen of those before it."""
    num_stories, num_frames = branches[0].tokens.shape[:2]
    before, drawn = branches[0].before, list[Sampled]()
    if before is None:
        before = branches[0].tokens.new_empty(num_stories, 0, model.backbone.image_length)
    for frame in range(num_frames):

        def report(done: int, steps: int, frame: int = frame) -> None:
            if progress is not None:
                progress(frame * steps + done, num_frames * steps)

        wave = Wave(range(num_stories), range(frame, frame + 1), range(1))
        before = before[:, -model.num_remembered :]  # however long the story is
        now = [wave.cut(branch)._replace(before=before) for branch in branches]
        drawn.append(draw(now, report))
        if frame + 1 == num_frames:
            break  # nobody remembers it
        kept = choose(now[0].keys[0].frame, drawn[-1])
        newest = drawn[-1].codes[torch.arange(num_stories, device=kept.device), kept]  # b l
        before = torch.cat([before, newest[:, None]], 1)
    return Sampled(*(torch.stack(parts, 1).flatten(0, 1) for parts in zip(*drawn, strict=True)))  # (b f) k


def _sample_waves(
    decoder: "Decoder",
    num_candidates: int,
    sampling: CodeSampling,
    max_rows: int,
    window: int | None,
    branches: list[Prompt],
    progress: Progress | None,
) -> Sampled:
    """All frames of the prompt together, in waves of at most ``max_rows`` rows."""
    num_stories, num_frames = branches[0].tokens.shape[:2]
    waves = list(plan_waves(num_stories, num_frames, num_candidates, max_rows))
    length, device = decoder.model.backbone.image_length, branches[0].tokens.device
    shape = (len(branches[0].keys), num_candidates)
    codes = torch.empty(*shape, length, dtype=torch.long, device=device)
    likelihood = torch.empty(shape, device=device)
    for number, wave in enumerate(waves):

        def report(position: int, number: int = number) -> None:
            if progress is not None:
                progress(number * length + position, len(waves) * length)

        parts = [wave.cut(branch) for branch in branches]
        drawn = _sample_wave(decoder, parts, wave.candidates, sampling, report, window)
        rows = torch.tensor(wave.rows(num_frames), device=device)
        columns = torch.tensor(list(wave.candidates), device=device)
        codes[rows[:, None], columns] = drawn.codes
        likelihood[rows[:, None], columns] = drawn.log_likelihood
    return Sampled(codes, likelihood)


class Wave(NamedTuple):
    """Stories, frames and candidates that decode together."""

    stories: range
    frames: range
    candidates: range

    def rows(self, num_frames: int) -> list[int]:
        return [story * num_frames + frame for story in self.stories for frame in self.frames]

    def cut(self, prompt: Prompt) -> Prompt:
        stories, frames = slice(self.stories.start, self.stories.stop), slice(self.frames.start, self.frames.stop)
        keys = [prompt.keys[row] for row in self.rows(prompt.tokens.shape[1])]
        story = None if prompt.story is None else prompt.story[stories, frames]
        source = None if prompt.source is None else prompt.source[stories]
        before = None if prompt.before is None else prompt.before[stories]
        return Prompt(prompt.tokens[stories, frames], story, source, keys, before)


def plan_waves(num_stories: int, num_frames: int, num_candidates: int, max_rows: int) -> Iterator[Wave]:
    """Cut the request into waves of at most ``max_rows`` rows: along candidates first, then frames, then stories."""
    candidates = min(num_candidates, max_rows)
    frames = max(1, min(num_frames, max_rows // candidates))
    stories = max(1, min(num_stories, max_rows // (candidates * frames)))
    for story in range(0, num_stories, stories):
        for frame in range(0, num_frames, frames):
            for candidate in range(0, num_candidates, candidates):
                yield Wave(
                    range(story, min(story + stories, num_stories)),
                    range(frame, min(frame + frames, num_frames)),
                    range(candidate, min(candidate + candidates, num_candidates)),
                )


def request_sizes(
    model: RetrofittedDALLE,
    tokens: Int[Tensor, "b f t"],
    source_length: int,
    num_candidates: int,
    sampling: CodeSampling,
    num_before: int = 0,
) -> WaveSizes:
    """A request as one wave; its stories have a source of ``source_length`` codes, and frames drawn before."""
    if source_length:
        remembered = min(model.num_remembered, num_before + tokens.shape[1] - 1)
        source_length += remembered * model.backbone.image_length
    return WaveSizes(
        num_stories=tokens.shape[0],
        num_frames=tokens.shape[1],
        num_candidates=num_candidates,
        num_columns=model.num_prefix + len(model.backbone.used_columns(tokens.flatten(0, 1))),
        source_length=source_length,
        num_branches=1 if sampling.guidance == 1 else 2,
        code_bytes=sampling.code_bytes(model.backbone.num_codes),
        in_turn=model.num_remembered > 0,
    )


def largest_wave(whole: WaveSizes, max_rows: int) -> WaveSizes:
    num_frames = 1 if whole.in_turn else whole.num_frames
    wave = next(plan_waves(whole.num_stories, num_frames, whole.num_candidates, max_rows))
    return whole._replace(
        num_stories=len(wave.stories), num_frames=len(wave.frames), num_candidates=len(wave.candidates)
    )


def rows_of_waves(model: RetrofittedDALLE, whole: WaveSizes, free: int) -> int:
    """The most rows of a wave that fit well into ``free`` bytes."""
    return rows_that_fit(lambda rows: wave_memory(model, largest_wave(whole, rows)).total, free)


class Decoder(NamedTuple):
    """The model that reads prompts, and its view that draws codes."""

    model: RetrofittedDALLE
    view: RetrofittedDALLE


def _sample_wave(
    decoder: Decoder,
    prompts: list[Prompt],
    candidates: range,
    sampling: CodeSampling,
    report: Callable[[int], None],
    window: int | None,
) -> Sampled:
    num_candidates, length = len(candidates), decoder.model.backbone.image_length
    uniform = uniforms(prompts[0].keys, candidates, length).to(prompts[0].tokens.device)
    uniform = rearrange(uniform, "r k l -> (r k) l")  # candidates of a frame side by side, as the cache repeats them
    branches = [_Branch(decoder, prompt, num_candidates) for prompt in prompts]

    def drawn(logits: list[Tensor], uniform: Float[Tensor, "r n"]) -> tuple[Int[Tensor, "r n"], Float[Tensor, "r n"]]:
        """A code from the logits of each place, r n v of every branch, and its nats."""
        mixed = logits[0] if len(logits) == 1 else logits[1] + sampling.guidance * (logits[0] - logits[1])
        code = choose(mixed.flatten(0, 1), uniform.flatten(), sampling).view(uniform.shape)
        # Of the unfiltered logits under the caption: how likely the model finds the picture, however it was drawn.
        return code, logits[0].log_softmax(-1).gather(-1, code[..., None]).squeeze(-1)

    def drawn_at(codes: Int[Tensor, "r n"], places: Int[Tensor, "r n"]) -> tuple[Tensor, Tensor]:
        return drawn([branch.read(codes, places) for branch in branches], uniform.gather(1, places + 1))

    code, nats = drawn([branch.read_prompt() for branch in branches], uniform[:, :1])
    report(1)
    window = window or window_for(decoder.model, len(uniform), num_candidates)
    if window > 1:
        codes, others = draw_ahead(drawn_at, code[:, 0], first_guesses(prompts[0], code, length), window, report)
        nats = nats[:, 0] + others
    else:
        every, nats = [code], nats[:, 0]
        for position in range(1, length):
            code, found = drawn([branch.read(every[-1]) for branch in branches], uniform[:, position, None])
            every.append(code)
            nats += found[:, 0]
            report(position + 1)
        codes = torch.cat(every, 1)
    split = {"k": num_candidates}
    return Sampled(rearrange(codes, "(r k) l -> r k l", **split), rearrange(nats, "(r k) -> r k", **split))


def first_guesses(prompt: Prompt, first: Int[Tensor, "r 1"], length: int) -> Int[Tensor, "r l"]:
    """The codes of the newest frame of the context, or of the source; without one, each frame's first code everywhere.

    What another frame of the story shows is much of what comes, and what it showed last is more of it.
    """
    if prompt.source is None:
        return first.expand(-1, length)
    context = prompt.source if prompt.before is None else torch.cat([prompt.source, prompt.before], 1)
    return context[:, -1].repeat_interleave(len(first) // len(prompt.source), 0)


class _Branch:
    """The decoding of one prompt: its prompt is read once, then the newest codes in every step."""

    def __init__(self, decoder: Decoder, prompt: Prompt, num_candidates: int) -> None:
        self.decoder, self.num_candidates = decoder, num_candidates
        model, num_frames = decoder.model, prompt.tokens.shape[1]
        self.conditions = model.conditions(prompt.source, prompt.story, num_frames, len(prompt.tokens), prompt.before)
        self.hooks = decoder.view.hooks(self.conditions)
        self.tokens = rearrange(prompt.tokens, "b f t -> (b f) t")
        num_prefix = 0 if self.conditions.prefix is None else self.conditions.prefix.shape[1]
        num_columns = num_prefix + len(model.backbone.used_columns(self.tokens))
        self.cache = model.backbone.new_cache(len(self.tokens), num_columns)

    def read_prompt(self) -> Float[Tensor, "r 1 v"]:
        model = self.decoder.model
        hooks = model.hooks(self.conditions)
        logits = model.backbone(self.tokens, None, self.conditions.prefix, hooks, self.cache).image[:, -1:].float()
        self.cache.repeat(self.num_candidates)  # one prefill for all candidates of a frame
        return logits.repeat_interleave(self.num_candidates, 0)  # (b f) 1 v -> (b f k) 1 v

    def read(self, codes: Int[Tensor, "r n"], places: Int[Tensor, "r n"] | None = None) -> Float[Tensor, "r n v"]:
        """Logits after each of the codes, which stand at ``places``; by default after those that were read."""
        if places is not None:
            self.cache.place(places)
        return self.decoder.view.backbone(None, codes, hooks=self.hooks, cache=self.cache).image.float()
