"""Do drawn frames show the right characters? Scores of what a classifier recognises in them.

Papers report one "Char-F1" and the exact frame accuracy, but the average behind the F1 differs: StoryViz and
StoryDALL-E print a report with four averages, and their papers do not say which one they quote; StoryGPT-V computes the
micro average; Make-A-Story's evaluation of MUGEN the weighted one, over the first two characters only. Here every
average has its own name; do not compare numbers of different averages. A classifier makes mistakes too: compare each
score with that of the true frames.
"""

from collections.abc import Sequence
from typing import ClassVar

import torch
from einops import rearrange, reduce
from jaxtyping import Bool, Float, Int, Num
from torch import Tensor
from torch.nn import functional as F

from storydalle.metrics.declared import COMPARED, DIAGNOSED, Column, Ranking, Setting
from storydalle.metrics.seen import Seen, Truth
from storydalle.metrics.story_metric import StoryMetric
from storydalle.metrics.topics import CHARACTERS
from storydalle.stories.character_labels import f1_terms

NUMBERS = ("0", "1", "2", "3+")
"""Groups of frames, by the number of characters that should be in them."""
Present = Int[Tensor, "b f k"] | Bool[Tensor, "b f k"]


def cell_sums(
    predicted: Bool[Tensor, "b f k"], truth: Bool[Tensor, "b f k"], cells: Bool[Tensor, "b f k"], pattern: str
) -> Int[Tensor, "b g 3"]:
    """Numbers of found, read and true characters among ``cells``, summed by an einops pattern that keeps groups."""
    kept = torch.stack([predicted & truth & cells, predicted & cells, truth & cells], dim=-1).long()
    return reduce(kept, pattern, "sum")


def grouped_cells(
    predicted: Bool[Tensor, "b f k"],
    truth: Bool[Tensor, "b f k"],
    mask: Bool[Tensor, "b f"],
    source: Bool[Tensor, "b k"] | None,
) -> Int[Tensor, "b g 3"]:
    """Sums for each character; each number of characters; in the source and not in it; each position, in this order."""
    cells = mask[..., None].expand_as(truth)
    numbers = truth.sum(-1, keepdim=True).clamp(max=len(NUMBERS) - 1)
    by_character = cell_sums(predicted, truth, cells, "b f k s -> b k s")
    groups = [numbers == number for number in range(len(NUMBERS))]
    if source is None:  # then no one is known to be in it, nor not to be
        groups += [torch.zeros_like(truth), torch.zeros_like(truth)]
    else:
        groups += [source[:, None], ~source[:, None]]
    by_group = [cell_sums(predicted, truth, cells & group, "b f k s -> b () s") for group in groups]
    by_position = cell_sums(predicted, truth, cells, "b f k s -> b f s")
    return torch.cat([by_character, *by_group, by_position], dim=1)


def grouped_frames(
    predicted: Bool[Tensor, "b f k"], truth: Bool[Tensor, "b f k"], mask: Bool[Tensor, "b f"]
) -> Int[Tensor, "b g 2"]:
    """(right, of) of frames; stories; frames of each number of characters; frames of each position, in this order."""
    right = (predicted == truth).all(-1)
    numbers = truth.sum(-1).clamp(max=len(NUMBERS) - 1)
    stories = mask.any(1, keepdim=True)
    stories_right = stories & (right | ~mask).all(1, keepdim=True)
    groups = [mask, *(mask & (numbers == number) for number in range(len(NUMBERS)))]
    frames, *by_number = (reduce(pair(right, of), "b f s -> b () s", "sum") for of in groups)
    return torch.cat([frames, pair(stories_right, stories), *by_number, pair(right, mask)], dim=1)


def pair(right: Bool[Tensor, "b f"], of: Bool[Tensor, "b f"]) -> Int[Tensor, "b f 2"]:
    """Pairs (right, of); what is right but not part of ``of`` does not count."""
    return torch.stack([right & of, of], dim=-1).long()


def f1(cells: Float[Tensor, "*r 3"]) -> Float[Tensor, "*r"]:
    """F1 of (found, read, true) = (tp, tp + fp, tp + fn); nan if a character is neither read nor true."""
    twice_found, read_and_true = f1_terms(*cells.unbind(-1))
    return twice_found / read_and_true


def precision(cells: Float[Tensor, "*r 3"]) -> Float[Tensor, "*r"]:
    """tp / (tp + fp): the share of read characters that are true; nan if none is read."""
    return cells[..., 0] / cells[..., 1]


def recall(cells: Float[Tensor, "*r 3"]) -> Float[Tensor, "*r"]:
    """tp / (tp + fn): the share of true characters that are read; nan if there are none."""
    return cells[..., 0] / cells[..., 2]


def macro(values: Float[Tensor, "*r k"], cells: Float[Tensor, "*r k 3"]) -> Float[Tensor, "*r"]:
    """The mean over the characters that are read or true anywhere; a ratio without a denominator counts as 0."""
    occurs = cells[..., 1:].sum(-1) > 0
    return (values.nan_to_num() * occurs).sum(-1) / occurs.sum(-1)


class CharacterScores(StoryMetric):
    """Scores of the characters read in drawn frames against those that should be there.

    All lie in [0, 1], higher is better, nan where they have no denominator. ``compute`` returns:

    - ``character_micro_{f1,precision,recall}``: all characters of all frames are counted together; the F1 of
      StoryGPT-V (``eval/eval_cls.py``). Frequent characters decide it.
    - ``character_macro_{f1,precision,recall}``: the mean of each character's own, so that rare ones count as much. As
      scikit-learn's ``average="macro", zero_division=0``, over the characters that occur.
    - ``character_weighted_f1``: the mean of each character's F1 by how often it is true, the average of Make-A-Story.
    - ``frame_accuracy``: frames whose characters are read exactly, empty frames included; ``story_accuracy``: stories
      all of whose frames are. The "image" and "story exact match" of StoryViz (``eval_classifier.py``).
    - ``character_f1_<name>`` of each character.
    - ``frame_accuracy_{0,1,2,3+}``, ``character_micro_f1_{1,2,3+}``: by how many characters should be in the frame.
    - ``character_{micro_f1,precision,recall}_{in_source,not_in_source}``: for characters in the source frame, and for
      the others. A system that always draws the characters of the source has a high recall with a low precision for
      these, and a recall near 0 for the others.
    - ``frame_accuracy_at_<i>``, ``character_micro_f1_at_<i>``: by position, from 1 to ``num_frames``.
    """

    higher_is_better = True
    asked_as = "characters"
    rank = 1
    needs = ("classifier",)
    columns = (
        Column("character_micro_f1", "micro F1", CHARACTERS),
        Column("character_macro_f1", "macro F1", CHARACTERS),
        Column("character_micro_precision", "precision", CHARACTERS),
        Column("character_micro_recall", "recall", CHARACTERS),
        Column("frame_accuracy", "frames exact", CHARACTERS),
        Column("story_accuracy", "stories exact", CHARACTERS),
        Column("frame_accuracy_0", "0 of them", CHARACTERS),
        *(Column(f"frame_accuracy_{number}", number, CHARACTERS) for number in NUMBERS[1:]),
        Column("character_recall_in_source", "recall, in source", CHARACTERS),
        Column("character_precision_in_source", "precision", CHARACTERS),
        Column("character_recall_not_in_source", "recall, not in source", CHARACTERS),
        Column("character_precision_not_in_source", "precision", CHARACTERS),
        Column("character_micro_f1", "char F1", COMPARED),
        Column("frame_accuracy", "frames exact", COMPARED),
        Column("character_micro_f1", "char F1", DIAGNOSED),
    )
    legend: ClassVar = {CHARACTERS: "*n of them*: frames with so many characters"}
    families: ClassVar = {
        CHARACTERS: r"character_(micro|macro|weighted)_(f1|precision|recall)|(frame|story)_accuracy(_[a-z]+)?",
        "Characters by number and by source": r"character_.*|frame_accuracy_.*",
    }
    details = r"character_f1_.*"
    curves: ClassVar = {"character_micro_f1_at_": "Character F1 by frame"}
    bars: ClassVar = {"character_f1_": "F1 of each character"}
    ranking = Ranking(("character_micro_f1",), "the F1 of the characters read in it")

    def __init__(self, characters: Sequence[str], num_frames: int) -> None:
        """``characters`` names the last axis of labels, ``num_frames`` is the length of the longest story.

        Raises ``ValueError`` for repeated names, and if there is no character or no frame.
        """
        super().__init__()
        if not characters or len(set(characters)) < len(characters):
            raise ValueError(f"characters {list(characters)}: give each of at least one character its own name")
        if num_frames < 1:
            raise ValueError(f"num_frames={num_frames}: give the number of frames of the longest story")
        self.characters = tuple(characters)
        self.num_frames = num_frames
        positions = tuple(f"at_{position}" for position in range(1, num_frames + 1))
        self.groups = (*NUMBERS, "in_source", "not_in_source", *positions)
        accuracies = tuple(f"frame_accuracy_{group}" for group in (*NUMBERS, *positions))
        self.accuracies = ("frame_accuracy", "story_accuracy", *accuracies)
        width = 3 * (len(self.characters) + len(self.groups)) + 2 * len(self.accuracies)
        self.names = tuple(self.scores_of_sums(torch.zeros(width, dtype=torch.double)))

    @classmethod
    def made(cls, setting: Setting) -> "CharacterScores":
        return cls(setting.characters, setting.num_frames)

    def judge(self, drawn: Seen, truth: Truth) -> None:
        mask, labels, ids = truth.batch.mask, truth.batch.labels, truth.batch.ids
        self.update(drawn.characters, labels["characters"], mask, labels.get("source_characters"), ids)

    def update(
        self,
        predicted: Present,
        truth: Present,
        mask: Bool[Tensor, "b f"],
        source: Int[Tensor, "b k"] | Bool[Tensor, "b k"] | None = None,
        ids: Sequence[str] | None = None,
    ) -> None:
        """Add stories: 1 where a character is read and where it should be, ``mask`` true at frames that exist.

        ``source`` says who is in the given frame; without it the scores by source do not count these stories. Raises
        ``ValueError`` for labels of other characters, of more frames than ``num_frames``, and other than 0 and 1.
        """
        labels = {"predicted": predicted, "truth": truth, "source": source}
        read, true, shown = (None if value is None else self.checked(name, value) for name, value in labels.items())
        assert read is not None and true is not None
        mask = mask.to(self.device)
        cells = grouped_cells(read, true, mask, shown)
        frames = grouped_frames(read, true, mask)
        missing = self.num_frames - mask.shape[1]
        padded = [F.pad(sums, (0, 0, 0, missing)) for sums in (cells, frames)]
        self.add_stories(torch.cat([rearrange(sums, "b g s -> b (g s)") for sums in padded], dim=1), ids)

    def checked(self, name: str, labels: Tensor) -> Tensor:
        """Labels as truth values, on this metric's device."""
        if labels.shape[-1] != len(self.characters):
            raise ValueError(
                f"{name} has labels of {labels.shape[-1]} characters and {len(self.characters)} are named: "
                f"{', '.join(self.characters)}"
            )
        if name != "source" and labels.shape[1] > self.num_frames:
            raise ValueError(f"a story of {labels.shape[1]} frames with num_frames={self.num_frames}: raise num_frames")
        if not ((labels == 0) | (labels == 1)).all():
            raise ValueError(f"{name} holds {labels.min().item()} to {labels.max().item()}: give 0 and 1 only")
        return labels.to(self.device) > 0

    def unpacked(self, sums: Num[Tensor, "*r k"]) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        """Sums (found, read, true) of each character and of each group, and (right, of) of each accuracy."""
        num_accuracies = 2 * len(self.accuracies)
        cells = rearrange(sums[..., :-num_accuracies], "... (g s) -> ... g s", s=3)
        frames = rearrange(sums[..., -num_accuracies:], "... (g s) -> ... g s", s=2)
        each, groups = cells.split([len(self.characters), len(self.groups)], dim=-2)
        by_group = dict(zip(self.groups, groups.unbind(-2), strict=True))
        return each, by_group, dict(zip(self.accuracies, frames.unbind(-2), strict=True))

    def scores_of_sums(self, sums: Float[Tensor, "*r k"]) -> dict[str, Float[Tensor, "*r"]]:
        """Scores of summed rows; axes before a row's own are kept."""
        each, groups, accuracies = self.unpacked(sums)
        ratios = {"f1": f1, "precision": precision, "recall": recall}
        scores = {f"character_micro_{name}": ratio(each.sum(-2)) for name, ratio in ratios.items()}
        scores |= {f"character_macro_{name}": macro(ratio(each), each) for name, ratio in ratios.items()}
        scores["character_weighted_f1"] = (f1(each).nan_to_num() * each[..., 2]).sum(-1) / each[..., 2].sum(-1)
        scores |= {name: right_of[..., 0] / right_of[..., 1] for name, right_of in accuracies.items()}
        scores |= {f"character_f1_{name}": f1(each[..., i, :]) for i, name in enumerate(self.characters)}
        # A frame that should be empty has no character to find: its F1 would be 0 for any mistake, and else undefined.
        scores |= {f"character_micro_f1_{group}": f1(sums) for group, sums in groups.items() if group != NUMBERS[0]}
        for group in ("in_source", "not_in_source"):
            scores[f"character_precision_{group}"] = precision(groups[group])
            scores[f"character_recall_{group}"] = recall(groups[group])
        return scores

    def counts(self) -> dict[str, int]:
        """How many stories were scored, how many frames (stories) each accuracy and true characters each F1 is of."""
        with self.sync_context():
            rows = self.story_rows()
        each, groups, accuracies = self.unpacked(rows.sum(0))
        numbers = {name: right_of[1] for name, right_of in accuracies.items()}
        numbers |= {f"character_f1_{name}": each[i, 2] for i, name in enumerate(self.characters)}
        numbers |= {f"character_micro_f1_{group}": sums[2] for group, sums in groups.items() if group != NUMBERS[0]}
        return {"stories": len(rows)} | {name: int(number) for name, number in numbers.items()}
