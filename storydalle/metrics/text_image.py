"""Do the pictures show what the captions say? R-precision, cosines, BLEU of recaptioning, and choice of candidates.

The captions of a split are embedded once (``EmbeddedCaptions``) and shared by the metrics, which take pictures or
their embeddings. Numbers of different networks cannot be compared: always name the network.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from itertools import chain
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.text import BLEUScore

from storydalle.metrics.declared import COMPARED, DIAGNOSED, Column, Extent, Setting
from storydalle.metrics.embeddings import EmbeddedCaptions, embedded_frames
from storydalle.metrics.networks.clip import ImageTextNetwork
from storydalle.metrics.seen import Seen, Truth
from storydalle.metrics.story_metric import StoryMetric
from storydalle.metrics.topics import PICTURES

NUM_NEGATIVES = 99


class CaptionMetric(StoryMetric):
    """The base of metrics that compare each frame of a story with the captions of a split.

    ``network`` is needed only if ``update`` gets pictures; it must be the network of the captions' embeddings.
    """

    higher_is_better = True
    needs = ("text_network",)

    def __init__(self, captions: EmbeddedCaptions, network: ImageTextNetwork | None = None) -> None:
        super().__init__()
        self.captions, self.network = captions, network

    @classmethod
    def made(cls, setting: Setting) -> "CaptionMetric":
        assert setting.captions is not None, "scores of texts are in a protocol that says which texts"
        return cls(setting.captions)

    def judge(self, drawn: Seen, truth: Truth) -> None:
        self.update(drawn.embeddings, truth.batch.mask, truth.batch.ids)

    def update(self, frames: Float[Tensor, "b f *k"], mask: Bool[Tensor, "b f"], ids: Sequence[str]) -> None:
        """Add stories by their ids: pictures ``(b, f, c, h, w)`` in [-1, 1], or their embeddings ``(b, f, d)``.

        Frame i belongs to the story's caption i; ``mask`` is true at frames that exist. Raises ``ValueError`` for
        stories without captions, for frames without a caption and for embeddings that are not finite.
        """
        texts = self.texts_of(mask, ids)
        embeddings = self.embeddings_of(frames).masked_fill(~mask.to(self.device)[..., None], 0.0)
        finite = embeddings.isfinite().all(-1).all(-1)
        if not finite.all():
            raise ValueError(f"story {ids[int(finite.int().argmin())]!r} has embeddings that are nan or infinite")
        self.add_stories(self.sums_of(embeddings, mask.to(self.device), texts, ids), ids)

    def texts_of(self, mask: Bool[Tensor, "b f"], ids: Sequence[str]) -> list[list[int]]:
        """Each story's captions, as indices of ``captions.texts``."""
        unknown = [name for name in ids if name not in self.captions.of_story]
        if unknown:
            raise ValueError(f"story {unknown[0]!r} has no captions here: embed the captions of all stories first")
        texts = [self.captions.of_story[name] for name in ids]
        for name, told, exists in zip(ids, texts, mask, strict=True):
            if exists[len(told) :].any():
                raise ValueError(f"story {name!r} has {len(told)} captions, and a frame after the last of them")
        return texts

    def embeddings_of(self, frames: Float[Tensor, "b f *k"]) -> Float[Tensor, "b f d"]:
        if frames.dim() == 5:
            if self.network is None:
                raise ValueError("pictures need a network: give one at construction, or embeddings (b, f, d)")
            frames = embedded_frames(self.network, frames)
        expected = self.captions.embeddings.shape[-1]
        if frames.dim() != 3 or frames.shape[-1] != expected:
            raise ValueError(f"embeddings {tuple(frames.shape)}: give (b, f, {expected}), as wide as the captions'")
        return F.normalize(frames.to(self.device).double(), dim=-1)

    def text_embeddings(self) -> Float[Tensor, "u d"]:
        return self.captions.embeddings.to(self.device)

    def sums_of(
        self,
        embeddings: Float[Tensor, "b f d"],
        mask: Bool[Tensor, "b f"],
        texts: list[list[int]],
        ids: Sequence[str],
    ) -> Tensor:
        """A row of sums a story, from embeddings of length 1 (0 where the mask is false)."""
        raise NotImplementedError


class RPrecision(CaptionMetric):
    """CLIP R-precision (Park et al. 2021): the share of frames nearer to their caption than to all of R others.

    In [0, 1], higher is better, chance is 1 / (1 + R) for R = ``num_negatives``. Negatives are different captions of
    other stories, never one of the frame's own story; they are drawn by (seed, story id, frame), so batches and their
    order make no difference. A tie counts as a miss. ``r_precision`` is the mean over ``num_draws`` draws of all
    negatives; ``r_precision_deviation`` is the standard deviation over draws, not the uncertainty of the score.

    Differs from AttnGAN's R-precision, which uses DAMSM: numbers cannot be compared.
    """

    names = ("r_precision",)
    asked_as = "r_precision"
    rank = 5
    takes_many = True
    columns = (Column("r_precision", "R-precision", PICTURES), Column("r_precision", "R-precision", COMPARED, 1))
    families: ClassVar = {PICTURES: "r_precision.*"}

    def __init__(
        self,
        captions: EmbeddedCaptions,
        network: ImageTextNetwork | None = None,
        num_negatives: int = NUM_NEGATIVES,
        num_draws: int = 10,
        seed: int = 0,
    ) -> None:
        super().__init__(captions, network)
        if num_negatives < 1 or num_draws < 1:
            raise ValueError(f"num_negatives={num_negatives}, num_draws={num_draws}: both must be at least 1")
        most = max((len(set(told)) for told in captions.of_story.values()), default=0)
        if len(captions.texts) - most < num_negatives:
            raise ValueError(
                f"num_negatives={num_negatives}: beside its own, a story has {len(captions.texts) - most} distinct "
                "captions to be told from; give fewer negatives or more stories"
            )
        self.num_negatives, self.num_draws, self.seed = num_negatives, num_draws, seed

    @classmethod
    def is_enough(cls, extent: Extent) -> bool:
        """True if there are enough other stories to draw captions from."""
        return extent.num_stories > NUM_NEGATIVES

    @classmethod
    def recorded(cls, extent: Extent) -> dict[str, int]:
        return {"num_negatives": NUM_NEGATIVES}

    @classmethod
    def made(cls, setting: Setting) -> "RPrecision":
        assert setting.captions is not None, "scores of texts are in a protocol that says which texts"
        return cls(setting.captions, num_negatives=setting.num_negatives or 1, seed=setting.seed)

    @property
    def chance(self) -> float:
        return 1 / (1 + self.num_negatives)

    def negatives(self, name: str, frame: int) -> Int[Tensor, "draws k"]:
        """The negatives for a frame's caption, as indices of ``captions.texts``."""
        own = sorted(set(self.captions.of_story[name]))
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        num_others = len(self.captions.texts) - len(own)
        rng = np.random.default_rng([self.seed, key, frame])
        draws = [
            rng.choice(num_others, self.num_negatives, replace=False, shuffle=False) for _ in range(self.num_draws)
        ]
        drawn = np.stack(draws)
        for index in own:  # In ascending order, so that each index skips those that are left out below it.
            drawn += drawn >= index
        return torch.from_numpy(drawn)

    def sums_of(
        self,
        embeddings: Float[Tensor, "b f d"],
        mask: Bool[Tensor, "b f"],
        texts: list[list[int]],
        ids: Sequence[str],
    ) -> Int[Tensor, "b draws 2"]:
        """The number of hits in each draw, and the number of frames."""
        known = self.text_embeddings()
        rows = torch.zeros(len(ids), self.num_draws, 2, dtype=torch.long, device=self.device)
        for row, name in enumerate(ids):
            cosines = embeddings[row] @ known.T
            for frame in mask[row].nonzero()[:, 0].tolist():
                against = cosines[frame][self.negatives(name, frame).to(self.device)].amax(1)
                rows[row, :, 0] += cosines[frame, texts[row][frame]] > against
                rows[row, :, 1] += 1
        return rows

    def scores_of_sums(self, sums: Float[Tensor, "*r draws 2"]) -> dict[str, Float[Tensor, "*r"]]:
        draws = sums[..., 0] / sums[..., 1]
        deviation = draws.std(-1) if self.num_draws > 1 else torch.full_like(draws[..., 0], float("nan"))
        return {"r_precision": draws.mean(-1), "r_precision_deviation": deviation}


class ClipT(CaptionMetric):
    """CLIP-T: the mean cosine x y / (|x| |y|) of a frame and its caption, in [-1, 1], higher is better.

    A plain cosine, as papers on stories print it (0.2 to 0.35 for OpenAI's CLIPs); CLIPScore is max(0, cosine) times
    2.5 (Hessel et al. 2021) or times 100. ``clip_t_chance`` is the mean cosine of each frame with every caption of all
    other stories: the level of unrelated pictures; nan if there is only one story.
    """

    names = ("clip_t", "clip_t_chance")
    asked_as = "clip_t"
    rank = 6
    columns = (
        Column("clip_t", "CLIP-T", PICTURES),
        Column("clip_t_chance", "chance", PICTURES),
        Column("clip_t", "CLIP-T", COMPARED),
        Column("clip_t", "CLIP-T", DIAGNOSED),
    )
    families: ClassVar = {PICTURES: "clip_t"}

    def sums_of(
        self,
        embeddings: Float[Tensor, "b f d"],
        mask: Bool[Tensor, "b f"],
        texts: list[list[int]],
        ids: Sequence[str],
    ) -> Float[Tensor, "b 2 2"]:
        known = self.text_embeddings()
        everything = list(chain.from_iterable(self.captions.of_story.values()))
        total = known[everything].sum(0)
        rows = torch.zeros(len(ids), 2, 2, dtype=torch.double, device=self.device)
        for row, told in enumerate(texts):
            shown = mask[row].nonzero()[:, 0]
            frames, own = embeddings[row, shown], known[[told[frame] for frame in shown.tolist()]]
            rows[row, 0] = torch.stack([(frames * own).sum(), frames.new_tensor(len(shown))])
            num_others = len(everything) - len(told)
            if num_others:
                others = (total - known[told].sum(0)) / num_others
                rows[row, 1] = torch.stack([(frames @ others).sum(), frames.new_tensor(len(shown))])
        return rows


class RecaptioningBleu(StoryMetric):
    """BLEU-2 and BLEU-3 (Papineni et al. 2002, section 2.3) of captions that a captioner writes for the drawn frames.

    BLEU-N = min(1, exp(1 - r / c)) (p_1 ... p_N)^(1 / N) for n-gram precisions p_n, c words of the captioner and r
    words of the references. In [0, 1] (papers print 100 times this), higher is better; one corpus, one reference a
    frame, no smoothing. Texts are lower-cased and split into words and punctuation marks, so compare only numbers with
    the same captioner and splitting. ``captioner`` maps images ``(n, c, h, w)`` in [-1, 1] to n captions.
    """

    names = ("bleu_2", "bleu_3")
    ORDERS = (2, 3, 1)  # of the n-grams in a row: those that give a score its name come first

    def __init__(self, captioner: Callable[[Tensor], list[str]]) -> None:
        super().__init__()
        self.captioner = captioner

    def update(
        self,
        frames: Float[Tensor, "b f c h w"],
        captions: Sequence[Sequence[str]],
        mask: Bool[Tensor, "b f"],
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add stories: drawn frames in [-1, 1] and the captions they were drawn for; ``mask`` is true at frames."""
        rows = []
        for pictures, told, exists in zip(frames, captions, mask, strict=True):
            shown = exists.nonzero()[:, 0]
            if len(shown) and int(shown[-1]) >= len(told):
                raise ValueError(f"a story has {len(told)} captions, and a frame after the last of them: give one each")
            read = self.captioner(pictures[shown]) if len(shown) else []
            if len(read) != len(shown):
                raise ValueError(
                    f"the captioner gave {len(read)} captions for {len(shown)} frames: it must give one each"
                )
            rows.append(self.counted(read, [told[frame] for frame in shown.tolist()]))
        self.add_stories(torch.stack(rows), ids)

    def counted(self, read: list[str], told: list[str]) -> Float[Tensor, "4 2"]:
        """Matched and written n-grams for each of ``ORDERS``, then the words of captioner and references."""
        bleu = BLEUScore(n_gram=max(self.ORDERS))
        bleu.update([split(text) for text in read], [[split(text)] for text in told])
        grams = [torch.stack([bleu.numerator[n - 1], bleu.denominator[n - 1]]) for n in self.ORDERS]
        return torch.stack([*grams, torch.stack([bleu.preds_len, bleu.target_len])]).double()

    def scores_of_sums(self, sums: Float[Tensor, "*r 4 2"]) -> dict[str, Float[Tensor, "*r"]]:
        """BLEU from the sums: the geometric mean of n-gram precisions, times the brevity penalty."""
        two, three, one = (sums[..., i, 0] / sums[..., i, 1].clamp(min=1) for i in range(len(self.ORDERS)))
        penalty = (1 - sums[..., -1, 1] / sums[..., -1, 0]).clamp(max=0).exp()
        return {"bleu_2": penalty * (one * two).sqrt(), "bleu_3": penalty * (one * two * three) ** (1 / 3)}


def split(text: str) -> str:
    """A caption's words and punctuation marks in lower case, with spaces between them."""
    return " ".join(re.findall(r"\w+|[^\w\s]", text.lower()))


def caption_cosines(
    network: ImageTextNetwork, captions: Sequence[str], candidates: Float[Tensor, "m f c h w"]
) -> Float[Tensor, "m f"]:
    """The cosine of each frame of ``m`` drawings of a story, in [-1, 1], with its caption; higher is better."""
    if candidates.shape[1] != len(captions):
        raise ValueError(f"{len(captions)} captions for {candidates.shape[1]} frames a candidate: give one a frame")
    texts = network.embed_captions(list(captions))
    return (embedded_frames(network, candidates).to(texts) * texts).sum(-1)


def rerank(
    network: ImageTextNetwork, captions: Sequence[str], candidates: Float[Tensor, "m f c h w"]
) -> Float[Tensor, " m"]:
    """A score for each of ``m`` drawings of a story: the mean cosine of its frames and their captions.

    Higher is better. Candidates of single frames are ranked by the columns of ``caption_cosines``.
    """
    return caption_cosines(network, captions, candidates).mean(-1)
