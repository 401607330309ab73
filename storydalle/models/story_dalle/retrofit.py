"""The paper's contribution, alone: what turns a text-to-image transformer into one that continues a story.

StoryDALL-E (ECCV 2022, section 3) adds three parts: cross-attention to the source frame inside the pretrained blocks;
an encoder over the captions of the whole story, whose vectors of a frame are prepended to that frame's caption; and
prompt tokens for tuning with a frozen backbone. A frame's sequence is ``[prompt | story | caption | codes]``, in one
transformer; an encoder-decoder has the codes in its decoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import torch
from einops import rearrange, repeat
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from storydalle.configured import Configured, NetworkSettings
from storydalle.models.backbones.backbone import Backbone, Hook, Logits, init_weights
from storydalle.models.story_dalle.source_attention import STARTS, FrameContext, SourceCrossAttention, SourceMemory
from storydalle.models.story_dalle.story_encoder import SentenceStoryEncoder, StoryEncoder

MEMORIES = ("none", "last", "all")
TUNING_MODES = ("full", "prompt", "retrofit")
EMBEDDINGS = ("emb_", "embed_")  # in the names of a backbone's embedding tables


class PromptTokens(nn.Module):
    """Learned tokens ahead of all others, made by a small network as in prefix tuning (Li & Liang 2021)."""

    def __init__(self, num_tokens: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(num_tokens, dim)
        self.transform = nn.Sequential(nn.Linear(dim, dim), nn.Tanh(), nn.Linear(dim, dim))
        self.apply(init_weights)

    def forward(self, num_rows: int) -> Float[Tensor, "r p d"]:
        return self.transform(self.embedding.weight).expand(num_rows, -1, -1)


BlockMemory = SourceMemory | list[SourceMemory]  # of a story, or of each of its frames


class Conditions(NamedTuple):
    """A story, as its frames see it: tokens ahead of the captions, and the memory of context frames in every block."""

    prefix: Float[Tensor, "r p d"] | None
    memories: list[BlockMemory | None] | None


@dataclass(frozen=True)
class RetrofitSettings(NetworkSettings):
    """``source_blocks``: "all" (the paper), "third" (the released code: blocks 2, 5, 8, ...), "lower" or "upper" half,
    "none", or indices; ``source_start``: "identity", or "random" as in the released code. ``story_depth=0`` leaves the
    story encoder out. With ``sentence_dim`` the story encoder is the released code's, which reads a sentence encoder's
    vectors of that width. With ``story_reads_source`` it reads the source's codes ahead of the captions; the paper's
    does not.

    ``story_reach``: how many captions before and after it a caption is read with, told apart by their distance. None is
    the paper: all of the story, at absolute positions, and in stories longer than those of training a window of it.

    ``memory``: the frames that source attention reads beside the source. "none" is the paper; "last" is the frame drawn
    before, "all" are those drawn before, of which the newest ``memory_frames`` count, so that a long story needs no
    more memory than a short one.
    """

    source_blocks: str | tuple[int, ...] = "all"
    story_depth: int = 1
    num_story_tokens: int = 1
    num_prompt_tokens: int = 0
    causal_story: bool = False
    story_positions: bool = True
    story_reads_source: bool = False
    story_reach: int | None = None
    source_start: str = "identity"
    sentence_dim: int | None = None
    memory: str = "none"
    memory_frames: int = 7  # the most that a story of 8 frames, the longest of ToonSV's training, has before one

    def __post_init__(self) -> None:
        if self.story_reach is not None and self.story_reach < 1:
            raise ValueError(f"story_reach={self.story_reach}: give 1 or more, or null to read the whole story")
        if self.memory not in MEMORIES:
            raise ValueError(f"memory={self.memory!r}: choose {', '.join(MEMORIES)}")
        if self.memory_frames < 1:
            raise ValueError(f"memory_frames={self.memory_frames}: give 1 or more, or memory=none")
        if self.source_start not in STARTS:
            raise ValueError(f"source_start={self.source_start!r}: choose {' or '.join(STARTS)}")

    def of_depth(self, depth: int) -> "RetrofitSettings":
        """Settings with the blocks as indices; ValueError for blocks that a backbone of ``depth`` blocks lacks."""
        named, blocks = {"all": range(depth), "third": range(2, depth, 3), "none": ()}, self.source_blocks
        named |= {"lower": range(depth // 2), "upper": range(depth // 2, depth)}
        if isinstance(blocks, str) and blocks not in named:
            raise ValueError(f"source_blocks={blocks!r}: choose {', '.join(named)} or a list of block indices")
        chosen = tuple(named[blocks] if isinstance(blocks, str) else blocks)
        if unknown := [index for index in chosen if not 0 <= index < depth]:
            raise ValueError(f"source_blocks {unknown} do not exist: the backbone has blocks 0 to {depth - 1}")
        if self.memory != "none" and not chosen:
            raise ValueError(f"memory={self.memory} needs source attention to be read with, but source_blocks has none")
        return replace(self, source_blocks=chosen)

    @property
    def num_remembered(self) -> int:
        """Frames drawn before that are read, at most."""
        return {"none": 0, "last": 1, "all": self.memory_frames}[self.memory]


class RetrofittedDALLE(Configured, nn.Module):
    """A backbone with source attention, story encoder and prompt tokens around it, of ``RetrofitSettings``."""

    settings: RetrofitSettings

    def __init__(self, backbone: Backbone, *values: object, **named: object) -> None:
        super().__init__()
        self.settings = settings = RetrofitSettings.of(*values, **named).of_depth(backbone.depth)
        dim, heads = backbone.dim, backbone.num_heads
        self.backbone = backbone
        self.num_remembered = settings.num_remembered
        start, blocks = settings.source_start, settings.source_blocks
        attention = {str(i): SourceCrossAttention(dim, heads, start, self.num_remembered) for i in blocks}
        self.source_attention = nn.ModuleDict(attention)  # block index -> its own
        self.story_encoder = story_encoder(dim, heads, settings)
        self.prompt_tokens = PromptTokens(settings.num_prompt_tokens, dim) if settings.num_prompt_tokens else None

    @property
    def num_prefix(self) -> int:
        """Embeddings ahead of a caption, if it has its story's vectors."""
        story = 0 if self.story_encoder is None else self.story_encoder.num_story_tokens
        return story + (0 if self.prompt_tokens is None else self.prompt_tokens.embedding.num_embeddings)

    def forward(
        self,
        tokens: Int[Tensor, "b f t"],
        codes: Int[Tensor, "b f l"],
        source: Int[Tensor, "b g l"] | None,
        mask: Bool[Tensor, "b f"],
        story: Float[Tensor, "b f s d"] | None = None,
        has_source: Bool[Tensor, " b"] | None = None,
        remembered: Int[Tensor, "b e l"] | None = None,
    ) -> Logits:
        """Logits of every frame, stories and frames flattened to rows.

        ``source`` holds the codes of ``g`` context frames (1: the source alone). ``story`` replaces the encoder's
        vectors, for probes; where ``has_source`` is false a story is read without its source, and without memory. A
        model with memory remembers before each frame the true ``codes`` of the frames ahead of it, or those of
        ``remembered``: as many frames or more, the last of which stands at the last one that is drawn.
        """
        if story is None:
            story = self.encode_story(tokens, mask, None, source, has_source)
        before = (codes if remembered is None else remembered)[:, :-1]
        conditions = self.conditions(source, story, tokens.shape[1], len(tokens), before)
        flat = "b f x -> (b f) x"
        hooks = self.hooks(conditions, has_source)
        return self.backbone(rearrange(tokens, flat), rearrange(codes, flat), conditions.prefix, hooks)

    def encode_story(
        self,
        tokens: Int[Tensor, "b f t"],
        mask: Bool[Tensor, "b f"],
        sentences: Float[Tensor, "b f e"] | None = None,
        source: Int[Tensor, "b g l"] | None = None,
        has_source: Bool[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b f s d"] | None:
        """Story vectors of every frame from the backbone's own token embeddings; None without a story encoder.

        ``source`` is read by an encoder made for it, except in stories whose ``has_source`` is false. A
        ``SentenceStoryEncoder`` reads ``sentences`` instead; without them the result is None.
        """
        if self.story_encoder is None:
            return None
        if isinstance(self.story_encoder, SentenceStoryEncoder):
            return None if sentences is None else self.story_encoder(sentences, mask)
        columns = self.backbone.used_columns(rearrange(tokens, "b f t -> (b f) t"))
        tokens = tokens[:, :, columns]  # the same columns as the backbone computes
        present = torch.ones_like(tokens, dtype=torch.bool)
        if self.backbone.pad_id is not None:
            present = tokens != self.backbone.pad_id
        codes = None
        if self.story_encoder.source is not None and source is not None:
            codes = self._embedded(source).flatten(1, 2)  # b (g l) d
        return self.story_encoder(self.backbone.embed_tokens(tokens), present, mask, codes, has_source)

    def conditions(
        self,
        source: Int[Tensor, "b g l"] | None,
        story: Float[Tensor, "b f s d"] | None,
        num_frames: int,
        num_stories: int,
        before: Int[Tensor, "b e l"] | None = None,
    ) -> Conditions:
        """Prefix of every row, and the source's keys and values; ``source=None`` draws from text and story alone.

        ``before`` are the frames that stand before the last of ``num_frames``, oldest first: of the others, the last
        ones are before each. They are read by a model with memory alone.
        """
        prefix = None if story is None else rearrange(story, "b f s d -> (b f) s d")
        if self.prompt_tokens is not None:
            prompt = self.prompt_tokens(num_stories * num_frames)  # (b f) p d
            prefix = prompt if prefix is None else torch.cat([prompt, prefix], 1)  # [prompt | story]
        if source is None or not len(self.source_attention):
            return Conditions(prefix, None)
        frames = source if before is None or not self.num_remembered else torch.cat([source, before], 1)
        embedded = self._embedded(frames)
        context = FrameContext(embedded, source.shape[1], num_frames)
        memories: list[BlockMemory | None] = [None] * self.backbone.depth
        for index, module in self.source_attention.items():
            attention = cast(SourceCrossAttention, module)
            if frames.shape[1] == source.shape[1]:  # nothing is remembered
                memories[int(index)] = attention.remember(embedded.flatten(1, 2))
            else:
                own = attention.remember_frames(context)
                memories[int(index)] = own[0] if num_frames == 1 else own
        return Conditions(prefix, memories)

    def _embedded(self, frames: Int[Tensor, "b g l"]) -> Float[Tensor, "b g l d"]:
        return self.backbone.embed_codes(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])

    def hooks(
        self, conditions: Conditions, has_source: Bool[Tensor, " b"] | None = None
    ) -> Sequence[Hook | None] | None:
        """The source attention of each block as a function of the residual stream, for the backbone to call."""
        if conditions.memories is None:
            return None

        def hook(index: int, memory: BlockMemory) -> Hook:
            attention = self.source_attention[str(index)]

            def attend_to_source(x: Tensor) -> Tensor:
                out = attention(x, memory)
                if has_source is None:
                    return out
                # Dropped by a factor of 0, so that the batch keeps its shape and each story its own source.
                return out * repeat(has_source, "b -> (b r) 1 1", r=len(x) // len(has_source))

            return attend_to_source

        return [None if memory is None else hook(i, memory) for i, memory in enumerate(conditions.memories)]


def story_encoder(dim: int, num_heads: int, settings: RetrofitSettings) -> StoryEncoder | SentenceStoryEncoder | None:
    """The story encoder of the paper, that of the released code, or none."""
    if settings.sentence_dim is not None:
        return SentenceStoryEncoder(dim, num_heads, settings.sentence_dim)
    if not settings.story_depth:
        return None
    return StoryEncoder(
        dim,
        num_heads,
        settings.story_depth,
        settings.num_story_tokens,
        causal=settings.causal_story,
        positions=settings.story_positions,
        reads_source=settings.story_reads_source,
        reach=settings.story_reach,
    )


def retrofit(backbone: Backbone, *values: object, **named: object) -> RetrofittedDALLE:
    """Put the retrofit around ``backbone``; what may be given are the fields of ``RetrofitSettings``."""
    return RetrofittedDALLE(backbone, *values, **named)


def is_trained(name: str, mode: str) -> bool:
    """True for a parameter of a RetrofittedDALLE that trains in ``mode``: the one predicate of tuning.

    It decides what the optimizer gets, and what a checkpoint of the tuning alone must hold. "full" trains everything,
    "retrofit" what the retrofit added, "prompt" the retrofit with its prompt tokens and the backbone's embeddings (as
    the released prompt tuning, without its side effect on the text head). Raises ValueError for an unknown mode.
    """
    if mode not in TUNING_MODES:
        raise ValueError(f"tuning={mode!r} is unknown; choose one of {', '.join(TUNING_MODES)}")
    if mode == "full" or not name.startswith("backbone."):
        return True
    return mode == "prompt" and any(part in name for part in EMBEDDINGS)


def parameter_group(name: str) -> str:
    """The group of a parameter, for learning rates and clipping: base, source or story."""
    if name.startswith("backbone."):
        return "base"
    return "source" if name.startswith("source_attention.") else "story"
