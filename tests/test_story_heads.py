"""What story vectors have to tell in training: the facts of labels, each where it can be asked."""

import math

import pytest
import torch

from storydalle.commands.application import compose
from storydalle.stories.toonsv.labels import COLUMNS, LABEL_VALUES, NUM_GUESTS
from storydalle.training.story_heads import FactHead, facts_right

FACTS = {"who": [3, 2], "hat": [3, 4, "who"], "place": [1, 5]}
MASK = torch.tensor([[True, True, False]])


def labels() -> dict[str, torch.Tensor]:
    return {
        "who": torch.tensor([[[1, 0, 1], [0, 1, 0], [1, 1, 1]]]),
        "hat": torch.tensor([[[2, 3, -1], [1, 1, 1], [0, 0, 0]]]),
        "place": torch.tensor([[4, -1, 2]]),
    }


def answers(story: torch.Tensor, head: FactHead) -> dict:
    return dict(head.answers(story, labels(), MASK))


def test_only_what_is_known_of_those_who_are_there_is_asked() -> None:
    found = answers(torch.zeros(1, 3, 2, 8), FactHead(FACTS, num_story_tokens=2, dim=8))
    assert found["who"].asked.tolist() == [[[True] * 3, [True] * 3, [False] * 3]]
    assert found["hat"].asked.tolist() == [[[True, False, False], [False, True, False], [False] * 3]]
    assert found["place"].asked.tolist() == [[[True], [False], [False]]]


def test_what_is_not_asked_changes_no_loss() -> None:
    head, story = FactHead(FACTS, num_story_tokens=2, dim=8), torch.randn(1, 3, 2, 8)
    own = labels()
    before = {name: each.loss.item() for name, each in answers(story, head).items()}
    own["hat"][0, 0, 1], own["hat"][0, 2], own["place"][0, 2] = 0, 3, 0
    after = {name: each.loss.item() for name, each in head.answers(story, own, MASK)}
    assert before == after
    own["hat"][0, 0, 0] = 1
    assert dict(head.answers(story, own, MASK))["hat"].loss.item() != before["hat"]


def test_an_untrained_head_guesses_and_a_trained_one_knows() -> None:
    torch.manual_seed(0)
    head, story = FactHead(FACTS, num_story_tokens=2, dim=8), torch.randn(1, 3, 2, 8)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for name, size in (("who", 2), ("hat", 4), ("place", 5)):
        assert answers(story, head)[name].loss.item() == pytest.approx(math.log(size), abs=1.0)
    for _ in range(100):
        optimizer.zero_grad()
        sum(each.loss for each in answers(story, head).values()).backward()
        optimizer.step()
    found = facts_right(answers(story, head), MASK)
    assert {name: right.item() for name, (right, _) in found.items()} == {"who": 6, "hat": 2, "place": 1, "all": 2}
    assert {name: asked.item() for name, (_, asked) in found.items()} == {"who": 6, "hat": 2, "place": 1, "all": 2}


def test_one_wrong_fact_makes_a_frame_wrong() -> None:
    head, story = FactHead(FACTS, num_story_tokens=2, dim=8), torch.zeros(1, 3, 2, 8)
    for name, entry in head.heads.items():
        torch.nn.init.zeros_(entry.weight)
        wanted = {"who": [1, 0, 1], "hat": [2, 1, 0], "place": [4]}[name]  # of the first frame
        entry.bias.data = torch.nn.functional.one_hot(torch.tensor(wanted), FACTS[name][1]).float().flatten()
    right, asked = facts_right(answers(story, head), MASK)["all"]
    assert (right.item(), asked.item()) == (1, 2)


def test_facts_that_the_stories_lack_or_have_otherwise_are_named() -> None:
    story = torch.zeros(1, 3, 1, 4)
    with pytest.raises(ValueError, match="'shoe', but the stories have who, hat, place"):
        dict(FactHead({"shoe": [1, 2]}, 1, 4).answers(story, labels(), MASK))
    with pytest.raises(ValueError, match="'hat' 2 entries a frame, but it has 3"):
        dict(FactHead({"hat": [2, 4]}, 1, 4).answers(story, labels(), MASK))


def test_the_facts_of_toonsv_2_are_its_labels() -> None:
    facts = compose("train", ["experiment=toon/story_dalle", "data=toon2"]).data.facts
    sizes = {name: len(values) for name, values in LABEL_VALUES.items() if not name.endswith("known")}
    assert sizes | {"characters": 2} == {name: values for name, (_, values, *_) in facts.items()}
    entries = {name: entries for name, (entries, *_) in facts.items()}
    assert {entries[name] for name in ("characters", "action", "prop", "hat")} == {len(COLUMNS)}
    assert {entries[name] for name in ("guest_shape", "guest_color", "guest_accessory")} == {NUM_GUESTS}
