"""StoryGANc's training: two discriminators against a generator, with manual optimisation; one drawing a step."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import pytorch_lightning as pl
import torch
from jaxtyping import Bool, Float, Shaped
from pytorch_lightning.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Adam

from storydalle.models import ranks
from storydalle.models.story_gan.augmentation import POLICIES, Augmentation
from storydalle.models.story_gan.discriminators import ImageDiscriminator, StoryDiscriminator
from storydalle.models.story_gan.existing import placed
from storydalle.models.story_gan.losses import LOSSES, character_loss, fooled, gradient_penalty, masked
from storydalle.models.story_gan.model import Imagined, StoryGANc
from storydalle.models.story_gan.story_encoder import Noise
from storydalle.stories.story import StoryBatch
from storydalle.training.optimisation import step_generator, warmup_cosine_factor
from storydalle.training.probes import separation
from storydalle.training.state import ForeignState
from storydalle.training.tokenizer_training import edge_weight

Discriminator = ImageDiscriminator | StoryDiscriminator


class StoryGANTraining(pl.LightningModule):
    """One step: frames are drawn once; each discriminator learns from them; then the generator learns from both.

    Each discriminator D learns true pictures as real. Drawn pictures, and true ones under another story's captions
    (*wrong*), it learns as false, each at half the weight; l is one of ``LOSSES``:

    ``l_real(D(true)) + l_drawn(D(drawn)) / 2 + l_drawn(D(wrong)) / 2``

    The generator minimises

    ``image + story_weight * story + class_weight * characters + kl_weight * KL``

    Differs from the paper: four more terms and settings, all off unless a config sets them. ``reconstruction_weight``
    adds the absolute error to the true frame, with more weight near edges by ``edge_emphasis``. ``word_weight`` adds
    the cross-entropy of a caption's own words, predicted from its vector. ``order_weight`` counts a story whose
    captions are in another order as false. ``adversarial_start`` is the number of steps before the discriminators begin
    to judge; until then the image discriminator only learns to name characters.

    Against a discriminator that wins too early: ``loss="hinge"``, ``r1_weight`` (every ``r1_every`` steps),
    ``augmentation`` (names of ``POLICIES``), ``clip`` of the generator's gradient, and separate learning rates. The
    rates halve every ``halve_every`` steps; where that is None they follow half a cosine to ``max_steps``.
    """

    MONITOR = "val/error"  # by which a validation judges the model
    NOT_AVERAGED = ("story_gan.image_discriminator", "story_gan.story_discriminator")  # in the running mean of weights

    def __init__(
        self,
        story_gan: StoryGANc,
        learning_rate: float = 2e-4,
        discriminator_learning_rate: float = 2e-4,
        betas: Sequence[float] = (0.5, 0.999),
        story_weight: float = 1.0,
        class_weight: float = 1.0,
        kl_weight: float = 1.0,
        adversarial_weight: float = 1.0,
        reconstruction_weight: float = 0.0,
        edge_emphasis: float = 0.0,
        order_weight: float = 0.0,
        word_weight: float = 0.0,
        loss: str = "logistic",
        r1_weight: float = 0.0,
        r1_every: int = 16,
        augmentation: Sequence[str] = (),
        adversarial_start: int = 0,
        clip: float | None = None,
        halve_every: int | None = None,
        warmup_steps: int = 0,
        max_steps: int = 10_000,
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        check_teaching(story_gan, class_weight, batch_size, adversarial_start, reconstruction_weight)
        check_names(loss, augmentation)
        self.story_gan = story_gan
        self.learning_rates = (learning_rate, discriminator_learning_rate)
        self.betas = (float(betas[0]), float(betas[1]))
        self.story_weight, self.class_weight, self.kl_weight = story_weight, class_weight, kl_weight
        self.adversarial_weight, self.word_weight = adversarial_weight, word_weight
        self.reconstruction_weight, self.edge_emphasis = reconstruction_weight, edge_emphasis
        sizes = (story_gan.story_encoder.sentence.out_features, story_gan.caption_encoder.marker)
        self.words = nn.Linear(*sizes) if word_weight else None
        self.order_weight, self.loss, self.r1_weight, self.r1_every = order_weight, loss, r1_weight, r1_every
        self.augmentation, self.clip, self.adversarial_start = tuple(augmentation), clip, adversarial_start
        self.halve_every, self.warmup_steps, self.max_steps, self.seed = halve_every, warmup_steps, max_steps, seed
        self.real_logits: list[Tensor] = []
        self.permuted_logits: list[Tensor] = []
        self.num_validated = 0  # stories, each of which has draws of its own

    # ------------------------------------------------------------------------------------------------- the step

    def training_step(self, batch: StoryBatch, batch_idx: int) -> None:
        generator, *others = optimizers = cast(list[LightningOptimizer], self.optimizers())
        for optimizer, rate in zip(optimizers, self.rates(self.global_step), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
        draws = step_generator(self.seed, self.global_step)
        imagined = self.imagine(batch, draws)
        condition = imagined.state.condition().detach()  # the discriminators do not train the story encoder
        augment = Augmentation(self.augmentation, len(batch.mask), draws)
        real, drawn = augment(batch.frames), augment(imagined.frames)
        judges = zip(self.judges().items(), others, strict=False)  # the image discriminator comes first in both
        for (name, discriminator), optimizer in judges:
            # Detached: here the drawn frames are data, and the generator takes its gradient below.
            loss = self.discriminator_loss(name, discriminator, real, drawn.detach(), condition, batch)
            optimizer.zero_grad()
            self.manual_backward(loss)
            # Not through Lightning's wrapper, which would count this as a training step of its own.
            optimizer.optimizer.step()
        with frozen(self.judges().values()):
            loss = self.generator_loss(imagined, drawn, condition, batch)
            generator.zero_grad()
            self.manual_backward(loss)
        if self.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.story_gan.drawing_parameters(), self.clip)
            self.log("train/grad_generator", norm)
        generator.step()

    def judges(self) -> dict[str, Discriminator]:
        """The discriminators that take part in this step; before their start, only the one that names characters."""
        names = {"image", "story"} if self.is_adversarial else {"image"} if self.class_weight else set()
        return {name: each for name, each in self.story_gan.discriminators().items() if name in names}

    @property
    def is_adversarial(self) -> bool:
        return self.global_step >= self.adversarial_start

    @property
    def is_penalised(self) -> bool:
        return self.is_adversarial and self.r1_weight > 0 and self.global_step % self.r1_every == 0

    def imagine(self, batch: StoryBatch, draws: torch.Generator) -> Imagined:
        """The frames that are drawn in this step, with the graph for the generator's gradient."""
        # Noise only for frames that exist: the draws do not depend on how the batch is padded.
        encoder, num_frames = self.story_gan.story_encoder, int(batch.mask.sum())
        of_stories = ranks.drawn(torch.randn, len(batch.mask), encoder.content_dim, generator=draws).to(self.device)
        of_frames = ranks.drawn(torch.randn, num_frames, encoder.noise_dim, generator=draws).to(self.device)
        noise = Noise(of_stories, placed(of_frames, batch.mask))
        vectors = self.story_gan.caption_encoder(batch.captions)
        return self.story_gan.imagine(vectors, batch.source, noise, batch.mask)

    def discriminator_loss(
        self,
        name: str,
        discriminator: Discriminator,
        real: Float[Tensor, "b f c h w"],
        drawn: Float[Tensor, "b f c h w"],
        condition: Float[Tensor, "b f d"],
        batch: StoryBatch,
    ) -> Float[Tensor, ""]:
        """A discriminator's loss: what is real, and who is in the true pictures."""
        real = real.detach().requires_grad_(self.is_penalised)  # R1 needs the gradient by the pixels
        features, loss = discriminator.encode(real, batch.mask), torch.zeros((), device=self.device)
        if self.is_adversarial:
            loss = self.adversarial_loss(name, discriminator, real, features, drawn, condition, batch.mask)
        if self.class_weight and isinstance(discriminator, ImageDiscriminator):
            names = discriminator.name(features, batch.mask)
            characters = character_loss(names, batch.labels["characters"], batch.mask)
            self.log("train/loss_characters_real", characters, sync_dist=True)
            loss = loss + self.class_weight * characters
        return loss

    def adversarial_loss(
        self,
        name: str,
        discriminator: Discriminator,
        real: Float[Tensor, "b f c h w"],
        features: Float[Tensor, "b ..."],
        drawn: Float[Tensor, "b f c h w"],
        condition: Float[Tensor, "b f d"],
        mask: Bool[Tensor, "b f"],
    ) -> Float[Tensor, ""]:
        """True pictures, encoded as ``features``, are real; drawn ones and true ones under wrong captions are not."""
        judged, has_others = discriminator.judged(mask), ranks.num_ranks() * len(mask) > 1
        verdict = discriminator.judge(features, condition, mask)
        loss = self.verdict_loss(name, "real", verdict, True, judged)
        with unrecorded([discriminator]):
            logits = discriminator.judge(discriminator.encode(drawn, mask), condition, mask)
            loss = loss + (0.5 if has_others else 1.0) * self.verdict_loss(name, "fake", logits, False, judged)
            if has_others:
                wrong = mask & rolled(mask)
                logits = discriminator.judge(features, rolled(condition), wrong)
                loss = loss + 0.5 * self.verdict_loss(name, "wrong", logits, False, discriminator.judged(wrong))
            if self.order_weight and name == "story":
                logits = discriminator.judge(features, shifted(condition, mask), mask)
                loss = loss + self.order_weight * self.verdict_loss(name, "order", logits, False, mask.sum(1) > 1)
        if self.is_penalised:  # times its interval: on average as if added in every step
            loss = loss + self.r1_weight * self.r1_every * gradient_penalty(verdict, real)
        return loss

    def verdict_loss(
        self, name: str, kind: str, logits: Float[Tensor, "*n"], is_real: bool, mask: Bool[Tensor, "*n"]
    ) -> Float[Tensor, ""]:
        """Mean loss of logits that should all say real, or all say drawn; logs the share that do."""
        self.log(f"train/{name}_right_{kind}", masked(((logits > 0) == is_real).float(), mask), sync_dist=True)
        return masked(LOSSES[self.loss](logits, is_real), mask)

    def generator_loss(
        self,
        imagined: Imagined,
        drawn: Float[Tensor, "b f c h w"],
        condition: Float[Tensor, "b f d"],
        batch: StoryBatch,
    ) -> Float[Tensor, ""]:
        """The generator's loss: the discriminators' logits of drawn frames, and the divergence of the posterior."""
        mask, weights = batch.mask, {"image": 1.0, "story": self.story_weight}
        divergence = imagined.state.divergence()
        entropy = ranks.ratio(imagined.entropy * mask.sum(), mask.sum())
        loss, logged = self.kl_weight * divergence, {"kl": divergence, "attention_entropy": entropy}
        for name, discriminator in self.judges().items():
            features = discriminator.encode(drawn, mask)
            if self.is_adversarial:
                logits = discriminator.judge(features, condition, mask)
                logged[f"loss_{name}"] = masked(fooled(logits, self.loss), discriminator.judged(mask))
                loss = loss + self.adversarial_weight * weights[name] * logged[f"loss_{name}"]
            if self.class_weight and isinstance(discriminator, ImageDiscriminator):
                logged["loss_characters"] = character_loss(
                    discriminator.name(features, mask), batch.labels["characters"], mask
                )
                loss = loss + self.class_weight * logged["loss_characters"]
        if self.reconstruction_weight:
            logged["loss_reconstruction"] = self.reconstruction_loss(imagined.frames, batch)
            loss = loss + self.reconstruction_weight * logged["loss_reconstruction"]
        if self.word_weight:
            logged["loss_words"] = self.word_loss(imagined, batch)
            loss = loss + self.word_weight * logged["loss_words"]
        self.log_dict({f"train/{name}": value for name, value in logged.items()}, sync_dist=True)
        self.log("train/content", imagined.state.content.abs().mean(), sync_dist=True)
        return loss

    def word_loss(self, imagined: Imagined, batch: StoryBatch) -> Float[Tensor, ""]:
        """Cross-entropy of a caption's words, in nats a word, predicted from the caption's vector alone."""
        assert self.words is not None
        shares = self.story_gan.caption_encoder.words(batch.captions).to(self.device)  # n v, rows sum to 1
        nats = -(shares * self.words(imagined.state.sentences[batch.mask]).float().log_softmax(-1)).sum(1)
        return ranks.ratio(nats.sum(), batch.mask.sum())

    def reconstruction_loss(self, frames: Float[Tensor, "b f c h w"], batch: StoryBatch) -> Float[Tensor, ""]:
        """Mean absolute error to the true frames in [-1, 1], with more weight near their edges."""
        drawn, true = frames[batch.mask], batch.frames[batch.mask]  # n c h w
        weight = edge_weight(true, self.edge_emphasis)
        return ranks.ratio(((drawn - true).abs().mean(1, keepdim=True) * weight).sum(), weight.sum())

    # ------------------------------------------------------------------------------------------------- validation

    def validation_step(self, batch: StoryBatch, batch_idx: int) -> None:
        """Log the mean absolute error as a share of the range; keep logits of the story discriminator for its AUC."""
        mask, gan = batch.mask, self.story_gan
        drawn = gan.draw_stories(batch.captions, batch.source, first=self.num_validated)[:, :, 0]
        self.num_validated += len(mask)
        error = (drawn - batch.frames).abs()[mask].mean() / 2
        self.log("val/error", error, prog_bar=True, batch_size=int(mask.sum()), sync_dist=True)
        if gan.story_discriminator is not None:
            longer = mask.sum(1) > 1  # one frame has no other order
            self.real_logits.append(self.story_logits(batch, batch.frames)[longer])
            self.permuted_logits.append(self.story_logits(batch, shifted(batch.frames, mask))[longer])

    def story_logits(self, batch: StoryBatch, frames: Float[Tensor, "b f c h w"]) -> Float[Tensor, " b"]:
        return self.story_gan.story_logits(batch.captions, frames, batch.mask)

    def on_validation_epoch_start(self) -> None:
        self.real_logits, self.permuted_logits, self.num_validated = [], [], 0

    def on_validation_epoch_end(self) -> None:
        if self.real_logits:
            real, permuted = torch.cat(self.real_logits), torch.cat(self.permuted_logits)
            self.log("val/story_order_auc", separation(real, permuted), sync_dist=True)

    # ------------------------------------------------------------------------------------------------- optimisation

    def configure_optimizers(self) -> list[Adam]:
        """The generator's optimizer, then one a discriminator; their rates are set in each step."""
        words = [] if self.words is None else list(self.words.parameters())
        parameters = [self.story_gan.drawing_parameters() + words]
        parameters += [list(each.parameters()) for each in self.story_gan.discriminators().values()]
        return [Adam(each, rate, self.betas, fused=True) for each, rate in zip(parameters, self.rates(0), strict=True)]

    def rates(self, step: int) -> list[float]:
        """The learning rates of all optimizers at a step; the schedule of the discriminators begins when they start."""
        rate, judging = self.learning_rates
        start = self.adversarial_start
        if self.halve_every is not None:
            drawing_share, judging_share = (0.5 ** (each // self.halve_every) for each in (step, max(step - start, 0)))
        else:
            drawing_share = warmup_cosine_factor(step, self.warmup_steps, self.max_steps, floor=0.02)
            judging_share = warmup_cosine_factor(max(step - start, 0), 0, self.max_steps - start, floor=0.02)
        return [rate * drawing_share, *[judging * judging_share] * len(self.story_gan.discriminators())]

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        states = checkpoint["optimizer_states"]
        assert isinstance(states, list)
        saved, own = len(states), 1 + len(self.story_gan.discriminators())
        if saved != own:
            raise ForeignState(
                f"the checkpoint holds {saved} optimizers, but this run has {own}: resume with the settings that the "
                "run began with (network.has_story_discriminator), or start without resume=true"
            )


def check_teaching(
    story_gan: StoryGANc,
    class_weight: float,
    batch_size: int | None,
    adversarial_start: int,
    reconstruction_weight: float,
) -> None:
    """Raise ValueError if a part of the loss would have nothing to learn from."""
    if class_weight and not story_gan.num_characters:
        raise ValueError(
            f"class_weight={class_weight}: this data set names no characters, so there is nothing to classify; "
            "set class_weight=0"
        )
    if batch_size == 1:
        raise ValueError("batch_size=1: batch normalisation and wrong captions need another story; use 2 or more")
    if adversarial_start and not reconstruction_weight:
        raise ValueError(
            f"adversarial_start={adversarial_start} with reconstruction_weight=0: until that step the generator would "
            "have nothing to learn from; set reconstruction_weight above 0, or adversarial_start=0"
        )


def check_names(loss: str, augmentation: Sequence[str]) -> None:
    """Raise ValueError for an unknown loss or augmentation."""
    unknown = set(augmentation) - set(POLICIES)
    if unknown:
        raise ValueError(f"augmentation={sorted(unknown)}: choose from {', '.join(POLICIES)}")
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}: choose one of {', '.join(LOSSES)}")


def rolled(x: Tensor) -> Tensor:
    """Give each story the rows of the story before it; of two or more stories, none keeps its own.

    The stories are those of all ranks; no gradient flows to rows of other ranks.
    """
    if ranks.num_ranks() == 1:
        return x.roll(1, 0)
    return ranks.own_rows(ranks.gathered(x).roll(1, 0), len(x))[:, : x.shape[1]]


def shifted(x: Shaped[Tensor, "b f *d"], mask: Bool[Tensor, "b f"]) -> Shaped[Tensor, "b f *d"]:
    """Move every frame of a story one place forward; the first goes to the end."""
    place, lengths = torch.arange(mask.shape[1], device=mask.device), mask.sum(1, keepdim=True)  # f and b 1
    order = torch.where(mask, (place + 1) % lengths, place)
    return x[torch.arange(len(x), device=x.device)[:, None], order]


@contextmanager
def frozen(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Networks that pass gradients on but take none themselves, and whose batch norms keep no statistics."""
    networks = list(networks)
    for network in networks:
        network.requires_grad_(False)
    try:
        with unrecorded(networks):
            yield
    finally:
        for network in networks:
            network.requires_grad_(True)


@contextmanager
def unrecorded(networks: Iterable[nn.Module]) -> Iterator[None]:
    """Networks whose batch norms keep no statistics of what they see.

    A trained discriminator uses the statistics of true pictures. Training sees as many drawn ones; statistics of both
    together would fit neither.
    """
    norms = [module for network in networks for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
