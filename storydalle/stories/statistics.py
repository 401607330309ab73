"""A story set in numbers: captions, characters, duplicate pictures, and leaks between splits.

Everything here is a function of records and of facts of the clips that can be used; no file is read.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

from storydalle.stories.inspection import ClipFacts
from storydalle.stories.story_set import Problem, StoryRecord

Facts = Mapping[str, ClipFacts]
PRONOUN = re.compile(r"\b(he|she|it|they|him|her|them|his|their)\b", re.IGNORECASE)
WINDOW = re.compile(r"(.+)#\d+")
PLAIN = "0" * 16  # the look of a picture of one colour, which says nothing


class Leak(NamedTuple):
    """Stories, captions and pictures that two splits share."""

    kind: str
    splits: tuple[str, str]
    number: int
    total: int  # of the second split: ``number`` of these are also in the first
    num_stories: tuple[int, int]  # of each split, with something shared
    examples: tuple[tuple[str, str], ...]  # the first five pairs of stories, one of each split, that share something


class CaptionStatistics(NamedTuple):
    """Statistics of the captions of target frames, one caption for each frame."""

    num_captions: int
    num_empty: int
    mean_words: float
    max_words: int
    pronoun_share: float  # of the captions that are not empty
    mean_tokens: float | None
    max_tokens: int | None
    num_truncated: int | None


def problem_kinds(problems: Iterable[Problem]) -> dict[str, int]:
    """How often each kind of problem occurs, the most common first; the kind is the part before the colon."""
    counts = Counter(problem.what.partition(":")[0] for problem in problems)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def usable(records: Iterable[StoryRecord], bad: Collection[str]) -> list[StoryRecord]:
    """The stories without a bad clip."""
    bad = set(bad)
    return [record for record in records if bad.isdisjoint(record.clips)]


def whole_story(record: StoryRecord) -> str:
    """The book that ``book#3`` is a window of, or the group that a story is cut from, such as an episode."""
    window = WINDOW.fullmatch(record.id)
    return window[1] if window else record.group


# ------------------------------------------------------------------------------------------------ pictures


def same_bytes(facts: Facts) -> list[tuple[str, ...]]:
    """Groups of clips with the same bytes."""
    clips = defaultdict(list)
    for clip, each in facts.items():
        if each.sha256 is not None:
            clips[each.sha256].append(clip)
    return [tuple(same) for same in clips.values() if len(same) > 1]


def look_alikes(facts: Facts) -> list[tuple[str, ...]]:
    """Groups of clips with a frame that looks the same, without the same bytes."""
    clips: dict[str, dict[str, str | None]] = defaultdict(dict)
    for clip, each in facts.items():
        for look in _looks(each):
            clips[look][clip] = each.sha256
    return [tuple(alike) for alike in clips.values() if len(set(alike.values())) > 1]


def in_several_stories(records: Iterable[StoryRecord], facts: Facts) -> list[tuple[str, ...]]:
    """Groups of clips with the same bytes in more than one ``whole_story``."""
    clips: dict[str, dict[str, None]] = defaultdict(dict)
    stories: dict[str, set[str]] = defaultdict(set)
    for record in records:
        for clip in record.clips:
            if clip in facts and (digest := facts[clip].sha256) is not None:
                clips[digest][clip] = None
                stories[digest].add(whole_story(record))
    return [tuple(same) for digest, same in clips.items() if len(stories[digest]) > 1]


def repeated_frames(records: Iterable[StoryRecord], facts: Facts) -> list[tuple[str, str]]:
    """Pairs of clips that follow each other in a story and have the same bytes."""
    pairs = {pair: None for record in records for pair in pairwise(record.clips) if _are_same(pair, facts)}
    return list(pairs)


def repeated_sources(records: Iterable[StoryRecord], facts: Facts) -> list[tuple[str, str]]:
    """Stories whose source has the same bytes as one of their targets, with the clip of that target."""
    found = []
    for record in records:
        source, *targets = record.clips
        same = [target for target in targets if _are_same((source, target), facts)]
        found += [(record.id, same[0])] if same else []
    return found


def _are_same(pair: tuple[str, str], facts: Facts) -> bool:
    one, other = (facts[clip].sha256 if clip in facts else None for clip in pair)
    return one is not None and one == other


def _looks(facts: ClipFacts) -> set[str]:
    return {look for look in facts.looks if look != PLAIN}


# ------------------------------------------------------------------------------------------------ splits


def leaks(splits: Mapping[str, Sequence[StoryRecord]], facts: Facts) -> list[Leak]:
    """Clips and captions that two splits share, for each pair of splits in the order given.

    ``kind`` is "groups", "clips", "pictures" (the same bytes), "looks" (alike, and not only the same bytes) or
    "captions" (of targets, in any case).
    """

    def pictures_of(record: StoryRecord) -> set[str]:
        return {digest for clip in record.clips if clip in facts and (digest := facts[clip].sha256)}

    def looks_of(record: StoryRecord) -> set[str]:
        return {look for clip in record.clips if clip in facts for look in _looks(facts[clip])}

    pictures = {split: _pictures_by_look(records, facts) for split, records in splits.items()}
    found = []
    for pair in combinations(splits, 2):
        first, second = (pictures[split] for split in pair)
        alike = {look for look in first.keys() & second.keys() if len(first[look] | second[look]) > 1}
        found += [
            _shared("groups", pair, splits, lambda record: {record.group}),
            _shared("clips", pair, splits, lambda record: set(record.clips)),
            _shared("pictures", pair, splits, pictures_of),
            _shared("looks", pair, splits, looks_of, alike),
            _shared("captions", pair, splits, _target_captions),
        ]
    return [leak for leak in found if leak.number]


def _shared(
    kind: str,
    pair: tuple[str, str],
    splits: Mapping[str, Sequence[StoryRecord]],
    traits_of: Callable[[StoryRecord], Collection[str]],
    only: Collection[str] | None = None,
) -> Leak:
    first, second = (_stories_by_trait(splits[split], traits_of) for split in pair)
    shared = [trait for trait in second if trait in first and (only is None or trait in only)]
    in_first, in_second = ({story for trait in shared for story in stories[trait]} for stories in (first, second))
    pairs = dict.fromkeys((first[trait][0], second[trait][0]) for trait in shared)
    return Leak(kind, pair, len(shared), len(second), (len(in_first), len(in_second)), tuple(pairs)[:5])


def _pictures_by_look(records: Iterable[StoryRecord], facts: Facts) -> dict[str, set[str | None]]:
    pictures: dict[str, set[str | None]] = defaultdict(set)
    for clip in {clip for record in records for clip in record.clips if clip in facts}:
        for look in _looks(facts[clip]):
            pictures[look].add(facts[clip].sha256)
    return pictures


def _stories_by_trait(
    records: Iterable[StoryRecord], traits_of: Callable[[StoryRecord], Collection[str]]
) -> dict[str, list[str]]:
    stories = defaultdict(list)
    for record in records:
        for trait in sorted(traits_of(record)):
            stories[trait].append(record.id)
    return stories


def _target_captions(record: StoryRecord) -> set[str]:
    return {caption.lower() for caption in record.captions[1:] if caption}


# ------------------------------------------------------------------------------------------------ words and names


def caption_statistics(
    records: Iterable[StoryRecord],
    lengths_of: Callable[[Sequence[str]], Sequence[int]] | None = None,
    text_length: int = 64,
) -> CaptionStatistics:
    """``lengths_of`` gives captions' numbers of tokens; a caption of more than ``text_length`` is truncated."""
    targets = (target for record in records for target in zip(record.clips[1:], record.captions[1:], strict=True))
    captions = [caption for _, caption in dict.fromkeys(targets)]
    told = [caption for caption in captions if caption]
    words = [len(caption.split()) for caption in captions]
    tokens = list(lengths_of(captions)) if lengths_of is not None else None
    return CaptionStatistics(
        num_captions=len(captions),
        num_empty=len(captions) - len(told),
        mean_words=_mean(words),
        max_words=max(words, default=0),
        pronoun_share=_mean([PRONOUN.search(caption) is not None for caption in told]),
        mean_tokens=_mean(tokens) if tokens is not None else None,
        max_tokens=max(tokens, default=0) if tokens is not None else None,
        num_truncated=sum(length > text_length for length in tokens) if tokens is not None else None,
    )


def character_counts(records: Iterable[StoryRecord], characters: Sequence[str]) -> dict[str, int]:
    """Target frames of each character, each frame once; then those of "nobody", and those that are "not labelled"."""
    rows: dict[str, tuple[int, ...] | None] = {}
    for record in records:
        for place, clip in enumerate(record.clips[1:], start=1):
            rows[clip] = record.characters[place] if record.characters is not None else None
    labelled = [row for row in rows.values() if row is not None]
    counts = {name: sum(row[i] for row in labelled) for i, name in enumerate(characters)}
    return counts | {"nobody": sum(not any(row) for row in labelled), "not labelled": len(rows) - len(labelled)}


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values) if values else 0.0
