"""Forms of English verbs: ``run`` has runs, ran, run and running."""

from functools import cache
from typing import NamedTuple

from storydalle.stories.toonsv.lexicon import phrases


class VerbForms(NamedTuple):
    base: str
    third: str
    past: str
    participle: str
    gerund: str


# base: past, participle
_IRREGULAR = {
    **{verb: (verb, verb) for verb in ("put", "set", "let", "burst", "cut", "hit", "shut", "shed")},
    "be": ("was", "been"),
    "become": ("became", "become"),
    "begin": ("began", "begun"),
    "blow": ("blew", "blown"),
    "break": ("broke", "broken"),
    "bring": ("brought", "brought"),
    "buy": ("bought", "bought"),
    "catch": ("caught", "caught"),
    "choose": ("chose", "chosen"),
    "come": ("came", "come"),
    "do": ("did", "done"),
    "drive": ("drove", "driven"),
    "fall": ("fell", "fallen"),
    "feel": ("felt", "felt"),
    "find": ("found", "found"),
    "fly": ("flew", "flown"),
    "get": ("got", "got"),
    "give": ("gave", "given"),
    "go": ("went", "gone"),
    "grow": ("grew", "grown"),
    "hang": ("hung", "hung"),
    "have": ("had", "had"),
    "hold": ("held", "held"),
    "keep": ("kept", "kept"),
    "lay": ("laid", "laid"),
    "leap": ("leapt", "leapt"),
    "leave": ("left", "left"),
    "lend": ("lent", "lent"),
    "lie": ("lay", "lain"),
    "lose": ("lost", "lost"),
    "make": ("made", "made"),
    "meet": ("met", "met"),
    "ride": ("rode", "ridden"),
    "rise": ("rose", "risen"),
    "run": ("ran", "run"),
    "say": ("said", "said"),
    "see": ("saw", "seen"),
    "shake": ("shook", "shaken"),
    "shine": ("shone", "shone"),
    "sing": ("sang", "sung"),
    "sink": ("sank", "sunk"),
    "sit": ("sat", "sat"),
    "sleep": ("slept", "slept"),
    "speed": ("sped", "sped"),
    "spin": ("spun", "spun"),
    "spring": ("sprang", "sprung"),
    "stand": ("stood", "stood"),
    "stick": ("stuck", "stuck"),
    "swing": ("swung", "swung"),
    "take": ("took", "taken"),
    "think": ("thought", "thought"),
    "throw": ("threw", "thrown"),
    "wear": ("wore", "worn"),
    "weep": ("wept", "wept"),
}
_DOUBLED = frozenset(
    phrases(
        """begin, chat, clap, cut, dim, dip, drop, get, grab, grin, hit, hop, hug, hum, jet, jog, let, nap, nod, plan
        plop, pop, put, quit, run, scan, set, shed, shrug, shut, sit, skip, slip, snap, sob, spin, squat, step, stop
        strut, swap, tap, tiptap, travel, trip, trot, tug, wrap, zip"""
    )
)


@cache
def forms_of(verb: str) -> VerbForms:
    """All forms of a verb, told by its base."""
    if verb == "be":
        return VerbForms("be", "is", "was", "been", "being")
    past, participle = _IRREGULAR.get(verb, (_regular_past(verb),) * 2)
    return VerbForms(verb, _third(verb), past, participle, _gerund(verb))


def _third(verb: str) -> str:
    if verb == "have":
        return "has"
    if verb.endswith("y") and verb[-2] not in "aeou":
        return verb[:-1] + "ies"
    return verb + ("es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else "s")


def _regular_past(verb: str) -> str:
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in "aeou":
        return verb[:-1] + "ied"
    return (verb + verb[-1] if verb in _DOUBLED else verb) + "ed"


def _gerund(verb: str) -> str:
    if verb.endswith("ie"):
        return verb[:-2] + "ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return verb[:-1] + "ing"
    return (verb + verb[-1] if verb in _DOUBLED else verb) + "ing"
