"""Captions of ToonSV 2, which tell what a frame's ``Scene`` says that they tell, and full descriptions of frames.

Words have random streams of their own, so they do not change the facts.
"""

from dataclasses import replace
from typing import NamedTuple

from storydalle.stories.toon.assertions import Fact
from storydalle.stories.toon.world import generator
from storydalle.stories.toonsv.clauses import ClauseMaker, Voice
from storydalle.stories.toonsv.dice import Dice
from storydalle.stories.toonsv.facts import KNOWN_PRONOUN, KNOWN_SAID, Event, Scene, Tale
from storydalle.stories.toonsv.plan import Planner, named_of
from storydalle.stories.toonsv.predicates import Phrasing
from storydalle.stories.toonsv.reference import Discourse, UnclearError
from storydalle.stories.toonsv.sentences import FIRST_OPENERS, NEVER_FIRST, OPENERS, REMARKS, Sentences
from storydalle.stories.toonsv.slips import SHARE, slipped
from storydalle.stories.toonsv.statements import statements_of
from storydalle.stories.toonsv.surface import Segment, finished, spell, tidy

TRIES = 240
CAREFUL = 15  # tries before plainer plans


class ToldCaption(NamedTuple):
    """A caption, and its clauses in order, each with the facts that it tells."""

    text: str
    clauses: tuple[tuple[str, tuple[Fact, ...]], ...]


def captions_of(tale: Tale) -> list[str]:
    """Return one caption for each target frame; some of the split "train" are typed lightly wrong."""
    captions = [told.text for told in tellings_of(tale)]
    if tale.split != "train":
        return captions
    dice = Dice(generator("toonsv2", "slips", tale.split, tale.index, len(tale.targets)))
    names = frozenset(tale.name(who).lower() for who in range(len(tale.roster)))
    return [slipped(caption, names, dice) if dice.chance(SHARE) else caption for caption in captions]


def tellings_of(tale: Tale) -> list[ToldCaption]:
    """Return the caption of each target frame with the facts that its clauses tell."""
    dice = Dice(generator("toonsv2", "captions", tale.split, tale.index, len(tale.targets)))
    voice = _voice(dice)
    phrasing = Phrasing(tale, dice)
    return [_told(phrasing, scene, tale.frames[: at + 1], voice) for at, scene in enumerate(tale.targets)]


def descriptions_of(tale: Tale) -> list[str]:
    """Return one full description for each frame, the source's first."""
    dice = Dice(generator("toonsv2", "descriptions", tale.split, tale.index, len(tale.targets)))
    phrasing = Phrasing(tale, dice, adorns=False)
    voice = Voice(embellishes=0.0)
    return [_told(phrasing, _described(tale, scene), (), voice).text for scene in tale.frames]


def _described(tale: Tale, scene: Scene) -> Scene:
    """A scene whose caption tells all of it."""
    events = [Event("is_in", value=scene.setting), Event("is_time", value=scene.light)]
    for one in scene.shown:
        events += [Event("looks", one.who)] if tale.guest(one.who) else []
        events += [Event("wears", one.who, value=one.hat)] if one.hat else []
        events += [Event("holds", one.who, value=one.prop)] if one.prop else []
    shown = tuple(replace(one, cast_known=KNOWN_SAID, action_known=KNOWN_SAID) for one in scene.shown)
    return replace(scene, shown=shown, events=tuple(events))


def _voice(dice: Dice) -> Voice:
    """How one story is told: plainly, richly or in notes."""
    roll = dice.random()
    is_terse = roll < 0.15
    return Voice(
        is_past=not is_terse and dice.chance(0.22),
        is_terse=is_terse,
        contracts=dice.chance(0.3),
        progressive=0.6 if is_terse else dice.pick((0.1, 0.3, 0.5)),
        embellishes=0.05 if is_terse else dice.pick((0.05, 0.15, 0.3)),
        is_lower=dice.chance(0.35 if is_terse else 0.07),
        has_stop=not dice.chance(0.4 if is_terse else 0.08),
    )


def _told(phrasing: Phrasing, scene: Scene, frames: tuple[Scene, ...], voice: Voice) -> ToldCaption:
    """Draw plans until one has words that are clear."""
    for number in range(TRIES):
        try:
            return _tried(phrasing, scene, frames, voice, is_careful=number >= CAREFUL)
        except UnclearError:
            continue
    raise AssertionError(f"no clear words for {scene} after {frames[-1:]}")


def _tried(phrasing: Phrasing, scene: Scene, frames: tuple[Scene, ...], voice: Voice, is_careful: bool) -> ToldCaption:
    """One caption; UnclearError if its words would not mean what they have to."""
    tale, dice = phrasing.tale, phrasing.dice
    before = frozenset(frames[-1].cast) if frames else frozenset()
    planner = Planner(scene, phrasing, voice, before, is_careful)
    plan = planner.plan(statements_of(tale, scene, frames, dice))
    seen = frozenset(who for frame in frames for who in frame.cast)
    discourse = Discourse(tale, dice, before, seen, named_of(scene), plan.appositions)
    builder = Sentences(ClauseMaker(phrasing, dice, voice), dice)
    spelled = []
    for at, sentence in enumerate(plan.sentences):
        opener = _opener(dice, voice, len(frames) == 1 and not at) if frames else ""
        if not sentence.units or any(not unit.who and not unit.whole for unit in sentence.units):
            pieces = builder.fragment(sentence.units, sentence.fronted)
        else:
            pieces = builder.sentence(sentence.units, sentence.fronted, opener)
        spelled.append(spell(pieces, discourse, voice))
    _check(scene, discourse)
    spelled = [segments for segments in spelled if segments]
    if discourse.named and dice.chance(voice.embellishes / 3):
        spelled.append(spell(builder.speech(discourse.named[-1:]), discourse, voice))
    elif not spelled or dice.chance(voice.embellishes / 2):
        remark = dice.pick(REMARKS)
        spelled.insert(len(spelled) if remark in NEVER_FIRST or dice.chance(0.7) else 0, [Segment(remark, ())])
    text = finished(spelled, dice, voice)
    return ToldCaption(text, tuple((tidy(part.words), part.facts) for sentence in spelled for part in sentence))


def _opener(dice: Dice, voice: Voice, is_first: bool) -> str:
    if not dice.chance(0.1 + voice.embellishes):
        return ""
    return dice.pick(FIRST_OPENERS if is_first else OPENERS)


def _check(scene: Scene, discourse: Discourse) -> None:
    """UnclearError if somebody who has to be named or meant is not."""
    named, meant = set(discourse.named), discourse.meant
    to_name = {one.who for one in scene.known_by(KNOWN_SAID)}
    to_mean = {one.who for one in scene.known_by(KNOWN_PRONOUN)}
    if not to_name <= named or not to_mean <= meant or discourse.appositions:
        raise UnclearError
