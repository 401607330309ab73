"""A reader of captions of ToonSV 2: it knows the rules of ``people/README.md``, English words, and no grammar of ours.

It reads a story caption by caption. Mentions are resolved first, from left to right; then what is said is found by the
words around them, and told of the subject before it (of the one after it, where a sentence opens with a participle).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.toon_mentions import OWNERS, Mention, Mentions, Person
from tests.toon_words import ACTIONS, COLORS, LIGHTS, PLACES

ADJECTIVE = r"(?!(?:and|with|to|on|off|in|who|as|while)\b)[\w-]+ "
ITEM = rf"(?P<item>(?:an?|the|own|other:\w+|<\d+> 's) (?:{ADJECTIVE}){{0,5}}?ITEM_\w+)"
GIVE = r"(?:give|hand|pass|lend|bring|offer|leave)"
TAKE = r"(?:get|take|borrow|receive|snatch|accept|put on|try on|wear|hold|have)"
GETS = (
    r"(?:put on|put|try on|try|pop on|pop|slip on|slip|get|find|pull on|pull out|wear|have|choose|place|set|"
    r"dress up in|"
    r"buy|pick up|pick|take|grab|hold up|hold|fetch|bring along|bring|carry|discover|show off|lift up|come across|"
    r"play with|clutch|own|with|in)"
)
OFF = (
    r"(?:take off|remove|lose|pull off|slip off|throw away|get rid of|put down|drop|let go of|lay down|set down|"
    r"no longer (?:have|wear|hold)|do not (?:have|wear|hold))"
)
PATTERNS = tuple(  # in order: what an earlier one has read, later ones do not read again
    (kind, re.compile(rf"(?<![\w'>-])(?:{pattern})(?![\w'-])"))
    for kind, pattern in (
        ("passive", rf"{ITEM} be (?:give|hand|pass) to <(?P<taker>\d+)> by <(?P<giver>\d+)>"),
        ("passive", rf"{ITEM} go from <(?P<giver>\d+)> to <(?P<taker>\d+)>"),
        ("gives", rf"{GIVE} <(?P<taker>\d+)> (?!'s){ITEM}"),
        ("gives", rf"{GIVE} {ITEM} (?:on |over )?to <(?P<taker>\d+)>"),
        ("gives", rf"let <(?P<taker>\d+)> (?:have|wear|hold) {ITEM}"),
        ("gives", rf"put {ITEM} on <(?P<taker>\d+)>"),
        ("gets", rf"(?:be allow to )?{TAKE} {ITEM} from <(?P<giver>\d+)>"),
        ("gets", rf"(?:be allow to )?{TAKE} (?P<item>(?:<\d+> 's|other:\w+) (?:\w+ )?ITEM_\w+)"),
        (
            "swaps",
            r"(?:swap|trade|exchange|switch) (?:own )?(?P<what>hats|things)(?: with (?:<(?P<whom>\d+)>|each other))?",
        ),
        ("bare", r"(?:without (?:a|any)|no|not wear a|not have a) ITEM_hat(?: on)?|bareheaded"),
        ("empty", r"empty-handed|empty hands?|(?:hold|have|carry) nothing|without anything"),
        ("loses", rf"{OFF} {ITEM}"),
        ("loses", rf"(?:take|pull|lift|slip) {ITEM} off|(?:put|throw) {ITEM.replace('<item>', '<b>')} away"),
        ("loses", rf"hang {ITEM} up|put {ITEM.replace('<item>', '<b>')} (?:down|aside)"),
        ("loses", rf"leave {ITEM} behind|lay {ITEM.replace('<item>', '<b>')} down"),
        ("loses", rf"let {ITEM} go"),
        ("finds", rf"{GETS} {ITEM}"),
        ("home", r"at home|back home|home again|(?:go|return|come|head|walk) (?:back )?home"),
        (
            "start",
            r"(?:(?:go|come|return|head) (?:back )?)?"
            r"(?:to |at |in |back )(?:where (?:the story|everything|the tale) \w+|the (?:start|first place|"
            r"very first place|"
            r"beginning))",
        ),
        (
            "last",
            r"(?:(?:go|come|return|head) (?:back )?)?(?:to|at|in) the (?:place before|last place|"
            r"previous place)|turn back|the same way",
        ),
        ("lives", r"live|own home|have own home"),
        ("back to", r"(?:come|go|return|head|travel|walk|be) back to(?! <)|return to (?=the|a|where)"),
        ("here", r"(?:here|along|there) (?:come|be) <(?P<whom>\d+)>"),
        (
            "joins",
            r"(?:join|come (?:over |along |back )?to|meet(?: up with)?|walk up to|come to see|visit|drop in on|"
            r"return to|be back with) <(?P<whom>\d+)>(?! 's)",
        ),
        (
            "arrives",
            r"come (?:along|over|by|too|closer|again|walk up|to play|to say hello|to visit|for a visit|back)|"
            r"walk up(?! to)|"
            r"walk in(?! the)|stroll up|stop by|drop by|drop in|pop up|pop in|show up|turn up|join in|"
            r"be here too now|"
            r"be the newcomer|be back(?= again| at last|$| [^a-z]| and| with us| but| because| as| while|"
            r" when| now| so)|"
            r"be (?:here|there) again|arrive|appear|reappear|return|be with us again|"
            r"(?<!morning )(?<!evening )(?<!night )come(?= [^a-z]|$| and| at last| but| while| as| when| so)",
        ),
        (
            "leaves",
            r"go away|walk away|wander off|head off|slip away|disappear|have to (?:go|leave)|go off alone|"
            r"depart|sneak away|"
            r"leave(?! ITEM| own| the| other)|walk off|be off|vanish|say bye and go|go elsewhere|stroll off|go off",
        ),
        (
            "away",
            r"be not (?:there|here|around|with us)|be (?:still )?(?:away|miss|absent|gone)|stay behind|"
            r"be nowhere to be see|be somewhere else|be far away(?! on)|be out of sight|without <(?P<whom>\d+)>",
        ),
        ("alone", r"alone|on own own|by (?:him|her|it)self|by themselves|nobody (?:else|there)"),
        (
            "echo",
            r"(?:and )?so do <(?P<whom>\d+)>|"
            r"and <(?P<who>\d+)> (?:do (?:too|the same(?! again| as before))|too|as well)",
        ),
        ("cheers", r"cry (?:hooray|hurray)|(?:shout|yell) (?:for|with) (?:joy|delight)|up in joy"),
        ("sits", r"rest own legs|have a rest|(?:down )?to rest|be seat"),
        (
            "stirs",
            r"break down cry|jump for joy|have a lie-down|run to keep|full of joy|in a good mood|show a few dance",
        ),
    )
)


@dataclass
class Frame:
    """What is true of a frame, as far as it can be known."""

    cast: frozenset[str]
    setting: str
    light: str
    hats: dict[str, str] = field(default_factory=dict)
    props: dict[str, str] = field(default_factory=dict)
    actions: dict[str, str] = field(default_factory=dict)
    named: frozenset[str] = frozenset()


class Reader:
    """Reads the captions of one story; hats, things and places last from one to the next."""

    def __init__(self, people: Sequence[Person], source: Frame) -> None:
        self.people, self.frame = people, source
        self.pronouns = {person.name: person.pronoun for person in people}
        self.places, self.home, self.seen = [source.setting], "", source.cast

    def read(self, caption: str) -> Frame:
        """The frame of the next caption."""
        mentions = Mentions(self.people, self.frame.cast, self.seen)
        words = mentions.read(caption)
        reading = _Reading(self, mentions, words)
        cast = reading.cast()
        self._go(reading)
        light = next((light for light, pattern in LIGHTS.items() if re.search(rf"\b(?:{pattern})\b", reading.text)), "")
        self.frame = Frame(
            cast,
            self.places[-1],
            light or self.frame.light,
            reading.hats,
            reading.props,
            {name: action for name, action in reading.actions.items() if name in cast},
            frozenset(mentions.named),
        )
        self.seen |= cast
        return self.frame

    def _go(self, reading: "_Reading") -> None:
        kinds = {kind for kind, *_ in reading.events}
        place = reading.place()
        if "home" in kinds or "lives" in kinds:
            if place:
                self.home = place
            else:
                place = self.home
                assert place, reading.text
        elif "start" in kinds:
            place = self.places[0]
        elif "last" in kinds:
            place = self.places[-2]
        if place and place != self.places[-1]:
            self.places.append(place)


class _Reading:
    """One caption while it is read."""

    def __init__(self, reader: Reader, mentions: Mentions, words: list[str]) -> None:
        self.reader, self.found, self.owners = reader, mentions.found, mentions.owners
        self.hats, self.props = dict(reader.frame.hats), dict(reader.frame.props)
        self.actions: dict[str, str] = {}
        self.text = self._with_owners(words)
        self.sentences = [m.span() for m in re.finditer(r"[^.!?]+", self.text)]
        self.events: list[tuple[str, int, re.Match[str]]] = []
        rest = self.text
        for kind, pattern in PATTERNS:
            for match in pattern.finditer(rest):
                self.events.append((kind, match.start(), match))
            rest = pattern.sub(lambda match: "#" * len(match[0]), rest)
        self.rest = rest
        self._find_actions()
        for kind, at, match in sorted(self.events, key=lambda event: event[1]):
            self._happen(kind, at, match)

    def _with_owners(self, words: list[str]) -> str:
        """His, her, its: own where it fits the subject; otherwise the other one's."""
        out: list[str] = []
        owners = iter(self.owners)
        for word in words:
            out.append(word)
            if word in OWNERS or word == "their":
                owner = next(owners)
                subject = self._subject(" ".join(out), len(" ".join(out)) - 1)
                fits = word == "their" or any(self.reader.pronouns[name] == OWNERS[word] for name in subject)
                out[-1] = "own" if fits or not subject else f"other:{next(iter(owner), '')}"
        return " ".join(out)

    def _mentions(self, text: str) -> list[tuple[int, Mention]]:
        return [(m.start(), self.found[int(m[1])]) for m in re.finditer(r"<(\d+)>(?! 's)", text)]

    def _subject(self, text: str, at: int) -> frozenset[str]:
        """Of whom words at a place are said: the last subject before in its sentence, else the first one after."""
        start = max((text.rfind(mark, 0, at) for mark in ".!?"), default=0)
        ends = [text.find(mark, at) for mark in ".!?"]
        end = min((end for end in ends if end >= 0), default=len(text))
        before = [m.who for place, m in self._mentions(text) if start < place < at and m.is_subject]
        after = [m.who for place, m in self._mentions(text) if at <= place < end and m.is_subject]
        return before[-1] if before else after[0] if after else frozenset()

    def _find_actions(self) -> None:
        """Words of actions that no other pattern has read."""
        lemmas = {lemma: action for action, words in ACTIONS.items() for lemma in words.split()}
        for match in re.finditer(r"(?<![\w-])[a-z]+(?:-[a-z]+)*(?![\w-])", self.rest):
            if match[0] in lemmas:
                self.events.append((lemmas[match[0]], match.start(), match))

    def who(self, match: re.Match[str], group: str) -> frozenset[str]:
        return self.found[int(match[group])].who

    def _happen(self, kind: str, at: int, match: re.Match[str]) -> None:
        subject = self._subject(self.text, at)
        if kind in ACTIONS:
            self.actions |= dict.fromkeys(subject or self.reader.frame.cast, kind)
        elif kind == "stirs":
            action = {"break": "cries", "jump": "jumps", "have": "sleeps", "run": "runs", "show": "dances"}
            if match[0].split()[0] in action:
                self._happen(action[match[0].split()[0]], at, match)
        elif kind == "echo":
            others = self.who(match, "whom" if match["whom"] else "who")
            (last,) = {self.actions[name] for name in subject if name in self.actions}
            self.actions |= dict.fromkeys(others, last)
        elif kind == "bare":
            self.hats |= dict.fromkeys(subject, "none")
        elif kind == "empty":
            self.props |= dict.fromkeys(subject, "none")
        elif kind in ("loses", "finds", "gives", "gets", "passive", "swaps"):
            self._change(kind, subject, match)

    def _change(self, kind: str, subject: frozenset[str], match: re.Match[str]) -> None:
        if kind == "swaps":
            one, other = self.who(match, "whom") | subject if match["whom"] else subject
            has = self.hats if match["what"] == "hats" else self.props
            has[one], has[other] = has[other], has[one]
            return
        words = match["item"] or match["b"]
        noun = words.rpartition("ITEM_")[2]
        has = self.hats if noun == "hat" else self.props
        if kind == "passive":
            (giver,), (taker,) = self.who(match, "giver"), self.who(match, "taker")
        elif kind == "gives":
            (giver,), (taker,) = subject, self.who(match, "taker")
        elif kind == "gets":
            (taker,), giver = subject, self._owner(words, match)
        else:
            value = "none" if kind == "loses" else _color(words) if noun == "hat" else noun
            if value:
                (one,) = subject
                has[one] = value
            return
        has[taker], has[giver] = has[giver], "none"

    def _owner(self, words: str, match: re.Match[str]) -> str:
        if "giver" in match.re.groupindex:
            (giver,) = self.who(match, "giver")
            return giver
        owner = re.match(r"<(\d+)> 's|other:(\w+)", words)
        assert owner, words
        if owner[1]:
            (giver,) = self.found[int(owner[1])].who
            return giver
        return owner[2]

    def place(self) -> str:
        """The setting that the caption names."""
        text = re.sub(r"by the #+|dark forest", lambda m: m[0], self.rest)
        found = set()
        for setting, words in PLACES.items():
            for word in words.split():
                if re.search(rf"(?<![\w-]){word}(?![\w-])", text):
                    found.add(setting)
        assert len(found) < 2, (self.text, found)
        return found.pop() if found else ""

    def cast(self) -> frozenset[str]:
        """Rule 1: whom the caption names or means; who comes is added, who leaves is not there any more."""
        before = self.reader.frame.cast
        meant = frozenset(name for mention in self.found for name in mention.who)
        gone, away, company = set[str](), set[str](), set[str]()
        arrives = False
        for kind, at, match in self.events:
            subject = self._subject(self.text, at)
            if kind == "leaves":
                gone |= subject
            elif kind == "away":
                away |= self.who(match, "whom") if match["whom"] else subject
            elif kind in ("arrives", "here"):
                arrives = True
            elif kind == "joins":
                company |= self.who(match, "whom")
        absent = gone | away
        if gone:
            return (before | meant) - absent
        is_alone = any(kind == "alone" for kind, *_ in self.events)
        if arrives and not is_alone and not company and not self.place():
            return (before | meant) - absent
        return (meant - absent) or before - absent


def _color(words: str) -> str:
    tokens = words.split()
    return next((color for color, names in COLORS.items() if set(tokens) & set(names.split())), "")
