"""Files of assertions, and which of them hold in what a label reader read."""

from pathlib import Path

import pytest

from storydalle.metrics.held_facts import SeenFrame, named_frame
from storydalle.stories.toon.asserted import Assertions, read_assertion_file, read_assertions
from storydalle.stories.toon.assertions import VALUES, Fact

PIP, LULU, FIRST = 0, 1, 9


def asserted(*lines: str) -> Assertions:
    return read_assertions(lines, "FILE")


def test_lines_tell_of_frames_by_their_numbers_and_may_be_split(tmp_path: Path) -> None:
    path = tmp_path / "asserted.txt"
    path.write_text("# what I want\nframes[3]: Lulu wears blue hat, Pip runs\n\nframes[0]:kitchen\nframes[3] : day\n")
    assertions = read_assertion_file(path)
    assert list(assertions.frames) == [0, 3] and len(assertions.lines) == 3
    assert [str(fact) for fact in assertions.frames[3]] == ["Lulu wears blue hat", "Pip runs", "day"]
    assert assertions.frames[0] == (Fact("setting", (), "kitchen"),) and assertions.guests == ()


def test_guests_are_all_other_names_and_their_looks_are_told_anywhere() -> None:
    assertions = asserted(
        "frames[1]: Mo runs, Pip", "frames[2]: Zub is purple star", "frames[4]: Mo is with bow, Zub is red"
    )
    assert assertions.guests == ("Mo", "Zub")
    assert assertions.looks == {"Mo": {"accessory": "bow"}, "Zub": {"color": "purple", "shape": "star"}}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["frames[1]: Pip runs", "frames[2]: Pip walks"], "FILE, line 2: 'walks' is no action"),
        (["Pip runs"], "FILE, line 1: 'Pip runs' is no assertion; write 'frames.3.: Lulu"),
        (["frames[x]: Pip"], "line 1"),
        (["frames[1]: Pip wears purple hat"], "'purple' is no hat"),
        (["frames[1]: castle"], "'castle' is no setting"),
        (["frames[1]: Pip is red star"], "Pip always looks the same"),
        (["frames[1]: Zub wears red hat"], "guests wear no hats"),
        (["frames[1]: only Pip Lulu Bruno Kiko Mimi"], "at most 4 characters"),
        (["frames[1]: Zub, Mo", "frames[2]: Bob runs"], "line 2: 'Bob' is none of Pip, .* 2 guests: Zub and Mo"),
        (["frames[1]: kitchen", "frames[1]: forest"], "line 2: 'forest' beside 'kitchen'"),
        (["frames[1]:"], "line 1: a fact is missing"),
        (["# nothing"], "FILE holds no assertion"),
    ],
)
def test_what_the_world_lacks_is_named_with_its_line(lines: list[str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        asserted(*lines)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no assertions file .*lines like"):
        read_assertion_file(tmp_path / "lost.txt")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00\x81\x81")
    with pytest.raises(ValueError, match=r"assertions=.*bytes\.txt"):
        read_assertion_file(tmp_path / "bytes.txt")


def read_labels(*guests: tuple[str, str, str], **of_pip: str) -> dict[str, list[int] | int]:
    """What is read in a frame with Pip in the kitchen at night, and guests by colour, shape and accessory."""
    labels: dict[str, list[int] | int] = {"setting": VALUES["setting"].index("kitchen"), "light": 2}
    labels["characters"] = [int(column == PIP or 0 <= column - FIRST < len(guests)) for column in range(11)]
    pip = {"action": "runs", "prop": "none", "hat": "none"} | of_pip
    labels |= {kind: [VALUES[kind].index(value)] + [0] * 10 for kind, value in pip.items()}
    for place, kind in enumerate(("color", "shape", "accessory")):
        values = [VALUES[kind].index(look[place]) for look in guests]
        labels[f"guest_{kind}"] = [*values, -1, -1][:2]
    return labels


def facts_that_hold(labels: dict[str, list[int] | int], *lines: str) -> list[str]:
    assertions = asserted(*lines)
    facts = assertions.frames.get(1, ())
    return [str(fact) for fact in facts if named_frame(labels, assertions, facts).holds(fact)]


def test_each_kind_of_fact_holds_or_not() -> None:
    labels = read_labels(hat="blue", prop="ball")
    right = "only Pip, Pip, no Lulu, Pip runs, Pip wears blue hat, Pip holds ball, kitchen, night"
    assert ", ".join(facts_that_hold(labels, f"frames[1]: {right}")) == right
    for wrong in ("only Lulu", "only Pip Lulu", "Lulu", "no Pip", "Pip sits", "Lulu runs", "Pip wears red hat"):
        assert not facts_that_hold(labels, f"frames[1]: {wrong}"), wrong
    for wrong in (
        "Pip wears no hat",
        "Pip holds nothing",
        "Pip holds flag",
        "beach",
        "day",
        "Zub",
        "Lulu holds nothing",
    ):
        assert not facts_that_hold(labels, f"frames[1]: {wrong}"), wrong


def test_what_is_read_instead_is_told() -> None:
    frame = SeenFrame(read_labels(("red", "star", "bow"), hat="blue"), {"Pip": PIP, "Lulu": LULU, "Zub": FIRST})
    told = {
        Fact("hat", ("Pip",), "red"): "blue",
        Fact("hat", ("Zub",), "red"): "no hat",
        Fact("prop", ("Pip",), "ball"): "nothing",
        Fact("action", ("Lulu",), "runs"): "not shown",
        Fact("cast", ("Pip",)): "only Pip Zub",
        Fact("absent", ("Pip",)): "shown",
        Fact("color", ("Zub",), "teal"): "red",
        Fact("setting", (), "beach"): "kitchen",
    }
    assert {fact: frame.instead(fact) for fact in told} == told


STAR, CLOUD = ("purple", "star", "bow"), ("pink", "cloud", "horns")


def test_guests_have_the_names_that_fit_their_looks_in_any_order() -> None:
    looks = ("frames[2]: Zub is purple star with bow", "frames[3]: Mo is pink cloud")
    facts = "only Pip Zub Mo, Zub is purple, Mo is pink"
    for guests in ((STAR, CLOUD), (CLOUD, STAR)):
        assert ", ".join(facts_that_hold(read_labels(*guests), f"frames[1]: {facts}", *looks)) == facts
    assert facts_that_hold(read_labels(CLOUD), "frames[1]: Zub, no Mo", *looks) == [], "the other one of two"
    assert facts_that_hold(read_labels(CLOUD), "frames[1]: Mo, no Zub", *looks) == ["Mo", "no Zub"]


def test_where_looks_are_not_told_names_fit_the_frame_and_then_go_from_left_to_right() -> None:
    labels = read_labels(STAR, CLOUD)
    labels["action"] = [4, *[-1] * 8, 1, 5]  # jumps on the left, dances on the right
    assert facts_that_hold(labels, "frames[1]: Zub dances, Mo jumps") == ["Zub dances", "Mo jumps"]
    assert facts_that_hold(labels, "frames[1]: Zub jumps, Mo jumps") == ["Zub jumps"]
    assert facts_that_hold(labels, "frames[1]: only Pip Zub") == [], "a guest too many"
    assert facts_that_hold(read_labels(STAR), "frames[1]: only Pip Zub") == ["only Pip Zub"]
