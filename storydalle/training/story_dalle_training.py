"""StoryDALL-E's training: the retrofit on a pretrained backbone (section 3 of the paper)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor

from storydalle.mistakes import check_number
from storydalle.models import ranks
from storydalle.models.backbones.backbone import Logits
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.story_dalle.retrofit import RetrofittedDALLE, is_trained, parameter_group
from storydalle.tokens.encoded_stories import EncodedStories
from storydalle.training.optimisation import (
    FrameLosses,
    build_adamw,
    check_optimizer,
    check_text_weight,
    clip_groups,
    frame_losses,
    step_generator,
    train_rows,
    warmup_constant,
    warmup_cosine,
)
from storydalle.training.own_draws import own_draws
from storydalle.training.probes import Match, OtherStories, probe_paths
from storydalle.training.story_heads import BagHead, FactHead, facts_right

NOISE_SEED = 1 << 32  # added to a run's seed: the draws of ``memory_noise`` are not those of dropped conditions
WINDOW_SEED = 1 << 33  # the same, of ``drawn_frames``


class StoryDALLETraining(pl.LightningModule):
    """Loss, parameter groups and probes of a ``StoryDALLE``.

    L = image + text_weight * text + bag_weight * bag + facts_weight * facts, each a mean cross-entropy in nats. DALL-E
    weighs image and text 7/8 and 1/8 (Ramesh et al. 2021, section 2.2), which is ``text_weight`` = 1/7.

    With image and text alone, the model hardly learns to use story and source: the backbone alone explains 95 % of that
    loss. Three measures help:

    - ``story_warmup_steps``: at first only the story encoder trains. It learns to predict, from the vectors of a frame
      and the source's bag of codes, the bag of codes in which the frame differs from the source. No label is needed.
      Later this loss stays, with weight ``bag_weight``. Where the data set has labels, it learns to tell those of
      ``facts`` too (see ``FactHead``), the sum of which weighs ``facts_weight``;
    - codes that differ from the source's code at the same place weigh ``changed_weight`` times as much as the others;
    - the gradients of base, source attention and story encoder are clipped separately.

    ``source_dropout`` and ``caption_dropout`` are the shares of stories trained without source, or without captions
    (the latter allows classifier-free guidance). ``probes`` names the frames where other captions should matter, and
    ``source_probes`` those where another source of the data set should: name -> (label, value), true where any entry
    of the label has the value.

    A model with memory learns from the true frames before each one, in one pass. ``memory_noise`` is the share of steps
    in which it reads its own draws of them instead (``own_draws``), so that it learns not to repeat its errors.

    With ``drawn_frames`` a step draws only so many frames of each story, one after the other from any place on: the
    story encoder, which learns more slowly than the drawing, reads all captions, and a step takes less time.

    ``curriculum`` is a list of [most frames of a story, share of the steps]: first the beginnings of stories, then
    longer ones; the steps that are left have whole stories. Who does what is learned sooner from one caption than
    among eight.

    With ``train_names``, words that were added to the vocabulary train in every mode of tuning, even if the rest of
    their tables is frozen: the pretrained model does not know these names. ``schedule`` is one of ``SCHEDULES``;
    ``clip=None`` leaves gradients as they are.
    """

    last_story: OtherStories | None = None  # that validation has seen
    MONITOR = "val/nats"  # by which a validation judges the model
    SCHEDULES: ClassVar = {"cosine": warmup_cosine, "constant": warmup_constant}

    def __init__(
        self,
        story_dalle: StoryDALLE,
        tuning: str = "full",
        learning_rate: float = 4e-4,
        source_learning_rate: float = 1.2e-3,
        story_learning_rate: float = 4e-4,
        weight_decay: float = 0.01,
        warmup_steps: int = 100,
        max_steps: int = 20_000,
        story_warmup_steps: int = 0,
        bag_weight: float = 0.3,
        changed_weight: float = 3.0,
        text_weight: float | int = 0.1,
        source_dropout: float = 0.0,
        caption_dropout: float = 0.0,
        memory_noise: float | int = 0.0,
        clip: float | int | None = 1.0,
        seed: int = 0,
        probes: Mapping[str, Match] | None = None,
        source_probes: Mapping[str, Match] | None = None,
        facts: Mapping[str, Sequence[int | str]] | None = None,
        facts_weight: float | int = 0.0,
        drawn_frames: int | None = None,
        curriculum: Sequence[Sequence[int | float]] = (),
        betas: Sequence[float] = (0.9, 0.98),
        schedule: str = "cosine",
        optimizer: str = "adamw",
        activation_checkpointing: bool = False,
        train_names: bool = False,
    ) -> None:
        super().__init__()
        self.betas, self.schedule, self.optimizer, self.curriculum = betas, schedule, optimizer, curriculum
        self.story_dalle = story_dalle
        self.tuning, self.seed, self.clip, self.weight_decay = tuning, seed, clip, weight_decay
        self.learning_rates = {"base": learning_rate, "source": source_learning_rate, "story": story_learning_rate}
        self.warmup_steps, self.max_steps, self.story_warmup_steps = warmup_steps, max_steps, story_warmup_steps
        self.bag_weight, self.changed_weight, self.text_weight = bag_weight, changed_weight, text_weight
        self.facts_weight, self.memory_noise, self.drawn_frames = facts_weight, memory_noise, drawn_frames
        self.source_dropout, self.caption_dropout = source_dropout, caption_dropout
        self._check()
        self.probes, self.source_probes = probes or {}, source_probes or {}
        self._freeze()
        self.name_tables = self._unfrozen_names() if train_names else []
        self._add_heads(facts, activation_checkpointing)

    @classmethod
    def check_schedule(cls, schedule: str) -> None:
        if schedule not in cls.SCHEDULES:
            raise ValueError(f"schedule={schedule} is unknown; choose one of {', '.join(cls.SCHEDULES)}")

    def _check(self) -> None:
        """ValueError for settings that do not go together, or that nothing has."""
        self.check_schedule(self.schedule)
        check_optimizer(self.optimizer)
        check_text_weight(self.model.backbone, self.text_weight)
        if self.drawn_frames is not None:
            check_number("drawn_frames", self.drawn_frames, 1, whole=True)
        if (
            any(frames < 1 or share <= 0 for frames, share in self.curriculum)
            or sum(share for _, share in self.curriculum) > 1
        ):
            told = ", ".join(f"[{frames}, {share}]" for frames, share in self.curriculum)
            raise ValueError(f"curriculum=[{told}]: give [frames, share of the steps], with shares of at most 1 in all")
        if self.memory_noise and not self.model.num_remembered:
            raise ValueError(f"memory_noise={self.memory_noise} needs a memory: set it to 0, or retrofit.memory=last")

    def _add_heads(self, facts: Mapping[str, Sequence[int | str]] | None, activation_checkpointing: bool) -> None:
        """The heads of the losses of story vectors, where there is a story encoder and its loss weighs something."""
        self.model.backbone.activation_checkpointing = activation_checkpointing
        encoder, dim = self.model.story_encoder, self.model.backbone.dim
        tells_bag, told = self.bag_weight or self.story_warmup_steps, facts if self.facts_weight else None
        self.bag_head = BagHead(encoder.num_story_tokens, dim) if encoder and tells_bag else None
        self.fact_head = FactHead(told, encoder.num_story_tokens, dim) if encoder and told else None

    def _freeze(self) -> None:
        """Freeze all parameters except those that ``tuning`` trains; none has a packed copy meanwhile."""
        self.story_dalle.may_pack = False
        self.story_dalle.image_tokenizer.requires_grad_(False)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(is_trained(name, self.tuning))

    def _unfrozen_names(self) -> list[Tensor]:
        """Let the rows of added names train, and return the frozen tables that they are in."""
        ids = self.story_dalle.caption_tokenizer.added_ids
        if not ids:
            return []
        frozen: list[Tensor] = [
            table.weight for table in self.model.backbone.word_tables if not table.weight.requires_grad
        ]
        for table in frozen:
            train_rows(table, ids)
        return frozen

    @property
    def model(self) -> RetrofittedDALLE:
        return self.story_dalle.model

    def training_step(self, batch: EncodedStories, batch_idx: int) -> Tensor:
        batch = batch.of_frames(slice(self.lesson()))
        batch, has_source = self.drop_conditions(batch, batch_idx)
        story = self.model.encode_story(batch.tokens, batch.mask, source=batch.source[:, None], has_source=has_source)
        loss = batch.tokens.new_zeros((), dtype=torch.float)
        if story is not None:
            told = self.told_by(story, batch)
            self.log_dict({f"train/loss_{name}": each for name, each in told.items()}, prog_bar=True, sync_dist=True)
            is_warmup = self.global_step < self.story_warmup_steps
            weights = {"bag": 1.0 if is_warmup else self.bag_weight, "facts": self.facts_weight}
            loss = sum((weights[name] * each for name, each in told.items()), loss)
            if is_warmup and told:
                return loss  # the transformer is not computed yet
        remembered = self.remembered(batch, story, batch_idx)
        remembered = batch.codes if remembered is None else remembered
        drawn = self.frames_to_draw(batch.mask.shape[1], batch_idx)
        story, remembered = None if story is None else story[:, drawn], remembered[:, : drawn.stop]
        batch = batch.of_frames(drawn)
        logits = self.model(batch.tokens, batch.codes, batch.source[:, None], batch.mask, story, has_source, remembered)
        losses = self.losses(logits, batch)
        self.log_dict(losses.named("train"), prog_bar=True, sync_dist=True)
        return loss + losses.total(self.text_weight)

    def drop_conditions(self, batch: EncodedStories, batch_idx: int = 0) -> tuple[EncodedStories, Tensor | None]:
        """Remove the captions, or the source, of some stories; each batch of an accumulated step has its own draws."""
        if not self.source_dropout and not self.caption_dropout:
            return batch, None
        num_stories, generator = len(batch.codes), step_generator(self.seed, self._number_of(batch_idx))
        draws = torch.rand(2, ranks.num_ranks() * num_stories, generator=generator)
        draws = ranks.own_rows(draws.T, num_stories).to(batch.codes.device)  # b 2
        dropped = (draws[:, 0] < self.caption_dropout)[:, None, None]  # b 1 1
        empty = self.story_dalle.caption_tokenizer.encode([""]).tokens.to(batch.tokens)
        tokens = torch.where(dropped, empty, batch.tokens)
        return batch._replace(tokens=tokens), draws[:, 1] >= self.source_dropout

    def lesson(self) -> int | None:
        """The most frames of a story that this step reads; None for all."""
        done, end = self.global_step / self.max_steps, 0.0
        for frames, share in self.curriculum:
            end += share
            if done < end:
                return int(frames)
        return None

    def frames_to_draw(self, num_frames: int, batch_idx: int = 0) -> slice:
        """The frames of a batch's stories that a step draws, side by side, since memory may read those before."""
        number = self.drawn_frames or num_frames
        if number >= num_frames:
            return slice(0, num_frames)
        generator = step_generator(self.seed + WINDOW_SEED, self._number_of(batch_idx))
        start = int(torch.randint(num_frames - number + 1, (), generator=generator))
        return slice(start, start + number)

    def _number_of(self, batch_idx: int) -> int:
        """The number of a batch in the whole training: accumulated steps have several."""
        batches = self._trainer.accumulate_grad_batches if self._trainer else 1
        return self.global_step * batches + batch_idx % batches

    def remembered(
        self, batch: EncodedStories, story: Tensor | None, batch_idx: int = 0
    ) -> Int[Tensor, "b f l"] | None:
        """The frames that are remembered in place of the true ones, b f l; None where the true ones are."""
        if not self.memory_noise:
            return None
        generator = step_generator(self.seed + NOISE_SEED, self._number_of(batch_idx))
        if torch.rand((), generator=generator) >= self.memory_noise:
            return None
        seeds = torch.randint(2**62, (ranks.num_ranks() * len(batch.codes),), generator=generator)
        sampling = self.story_dalle.sampling(guidance=1)
        return own_draws(self.model, batch, story, sampling, ranks.own_rows(seeds, len(batch.codes)).tolist())

    def losses(self, logits: Logits, batch: EncodedStories) -> FrameLosses:
        """Losses of the frames that exist; codes that differ from the source weigh ``changed_weight``."""
        changed = batch.codes != batch.source[:, None]  # b f l
        weights = torch.where(changed, self.changed_weight, 1.0) * batch.mask[..., None]  # 0 where no frame is
        codes, weights = (rearrange(each, "b f l -> (b f) l") for each in (batch.codes, weights))
        return frame_losses(logits, codes, self.model.backbone.pad_id, weights, batch.mask.flatten())

    def told_by(self, story: Float[Tensor, "b f s d"], batch: EncodedStories) -> dict[str, Float[Tensor, ""]]:
        """The losses of what story vectors have to tell by themselves."""
        told = {}
        if self.bag_head is not None:
            told["bag"] = self.bag_loss(batch, story)
        if self.fact_head is not None:
            answers = dict(self.fact_head.answers(story, batch.labels, batch.mask))
            told["facts"] = torch.stack([each.loss for each in answers.values()]).sum()
        return told

    def bag_loss(self, batch: EncodedStories, story: Float[Tensor, "b f s d"]) -> Float[Tensor, ""]:
        """Cross-entropy of the codes that differ from the source, in any order."""
        assert self.bag_head is not None
        # Detached: this loss teaches the story encoder what codes mean, and leaves the codes as they are.
        logits = self.bag_head(story, batch.source, self.model.backbone.code_table.detach())  # b f v
        changed = (batch.codes != batch.source[:, None]) & batch.mask[..., None]
        nats = -F.log_softmax(logits.float(), -1).gather(-1, batch.codes)
        return ranks.ratio((nats * changed).sum(), changed.sum(), least=1)

    def on_validation_epoch_start(self) -> None:
        self.last_story = None

    def validation_step(self, batch: EncodedStories, batch_idx: int) -> None:
        others = OtherStories.before(batch, self.last_story)
        self.last_story = OtherStories.last_of(batch)
        for name, probed in probe_paths(self.model, batch, self.probes, self.source_probes, others).items():
            self.log(f"val/{name}", probed.mean, batch_size=probed.num_frames, sync_dist=True)
        self._log_facts(batch)

    def _log_facts(self, batch: EncodedStories) -> None:
        """The share of facts that can be read from the story vectors: of each label, and of whole frames ("all")."""
        if self.fact_head is None:
            return
        story = self.model.encode_story(batch.tokens, batch.mask, source=batch.source[:, None])
        assert story is not None  # there is a head only beside a story encoder
        answers = dict(self.fact_head.answers(story, batch.labels, batch.mask))
        for name, (right, asked) in facts_right(answers, batch.mask).items():
            if asked:
                self.log(f"val/fact_{name}", right / asked, batch_size=int(asked), sync_dist=True)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.log_dict({f"train/grad_{name}": norm for name, norm in clip_groups(optimizer, self.clip).items()})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups: dict[str, list[Tensor]] = {"base": [], "source": [], "story": []}
        for name, parameter in self.model.named_parameters():
            if is_trained(name, self.tuning):
                groups[parameter_group(name)].append(parameter)
        if self.bag_head is not None:
            groups["story"].extend(self.bag_head.parameters())
        if self.fact_head is not None:
            groups["story"].extend(self.fact_head.parameters())
        rates = {**self.learning_rates, "names": self.learning_rates["base"]}
        groups["names"] = self.name_tables
        optimizer = build_adamw(groups, rates, self.weight_decay, self.betas, self.optimizer, undecayed=("names",))
        schedule = self.SCHEDULES[self.schedule](optimizer, self.warmup_steps, self.max_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
