"""Hand-listed stories: each relation of ToonSV 2, told by events, comes to the facts that a reader expects."""

from storydalle.stories.toon import ACTIONS, HATS, PROPS, SETTINGS, TINTS
from storydalle.stories.toonsv.chronicle import Chronicle
from storydalle.stories.toonsv.facts import KNOWN, KNOWN_SAID, Appearance, Event, Scene

PIP, LULU, ZUB = range(3)  # of a roster whose third is a guest
RED, BLUE = HATS.index("red"), HATS.index("blue")
BALL, FLAG = PROPS.index("ball"), PROPS.index("flag")
BEACH, CITY, MOON = (SETTINGS.index(name) for name in ("beach", "city", "moon"))
WAVES = ACTIONS.index("waves")


def told(source: tuple[Appearance, ...], *frames: tuple[tuple[int, ...], list[Event]]) -> list[Scene]:
    """The scenes of a story by day at the beach, from the cast of each frame and the events of its caption."""
    chronicle = Chronicle(Scene(source, BEACH, TINTS.index("day")))
    scenes = []
    for cast, events in frames:
        parts = [Appearance(who, WAVES, cast_known=KNOWN_SAID, action_known=KNOWN_SAID) for who in cast]
        scenes.append(chronicle.scene(parts, events, guests=(ZUB,)))
    return scenes


def hats(scene: Scene) -> list[tuple[str, str]]:
    return [(HATS[one.hat], KNOWN[one.hat_known]) for one in scene.shown]


def props(scene: Scene) -> list[tuple[str, str]]:
    return [(PROPS[one.prop], KNOWN[one.prop_known]) for one in scene.shown]


BARE = (Appearance(PIP, 0), Appearance(LULU, 1))


def test_a_hat_is_passed_on():
    first, second, third = told(
        BARE,
        ((PIP, LULU), [Event("puts_on", LULU, value=BLUE)]),
        ((PIP, LULU), [Event("gives_hat", LULU, PIP, BLUE)]),
        ((PIP, LULU), []),
    )
    assert hats(first) == [("none", "unsaid"), ("blue", "said")]
    assert hats(second) == [("blue", "said"), ("none", "said")]
    assert hats(third) == [("blue", "carried"), ("none", "carried")]


def test_a_hat_is_worn_while_its_wearer_is_away():
    scenes = told(
        (Appearance(PIP, 0, hat=RED), Appearance(LULU, 1)),
        ((PIP, LULU), []),
        ((LULU,), [Event("leaves", PIP)]),
        ((LULU,), []),
        ((PIP, LULU), [Event("comes_back", PIP)]),
        ((PIP, LULU), []),
    )
    assert [hats(scene)[0] for scene in scenes] == [
        ("red", "source"),
        ("none", "unsaid"),
        ("none", "unsaid"),
        ("red", "returned"),
        ("red", "source"),
    ]


def test_who_gives_a_thing_while_leaving_comes_back_without_it():
    scenes = told(
        (Appearance(PIP, 0, prop=BALL), Appearance(LULU, 1)),
        ((LULU,), [Event("leaves", PIP), Event("gives_prop", PIP, LULU, BALL)]),
        ((PIP, LULU), []),
    )
    assert props(scenes[0]) == [("ball", "said")]
    assert props(scenes[1]) == [("none", "returned"), ("ball", "carried")]


def test_swaps_change_both():
    (scene,) = told(
        (Appearance(PIP, 0, prop=BALL, hat=RED), Appearance(LULU, 1, prop=FLAG, hat=BLUE)),
        ((PIP, LULU), [Event("swaps_hats", PIP, LULU, RED), Event("swaps_props", PIP, LULU, BALL)]),
    )
    assert hats(scene) == [("blue", "said"), ("red", "said")]
    assert props(scene) == [("flag", "said"), ("ball", "said")]


def test_a_hat_and_a_thing_are_changed_for_others_and_put_away():
    scenes = told(
        (Appearance(PIP, 0, prop=BALL, hat=RED),),
        ((PIP,), [Event("puts_on", PIP, value=BLUE), Event("takes_up", PIP, value=FLAG)]),
        ((PIP,), [Event("takes_off", PIP, value=BLUE), Event("puts_down", PIP, value=FLAG)]),
        ((PIP,), []),
    )
    assert [(hats(scene)[0][0], props(scene)[0][0]) for scene in scenes] == [
        ("blue", "flag"),
        ("none", "none"),
        ("none", "none"),
    ]
    assert hats(scenes[2]) == [("none", "carried")]


def test_a_place_is_travelled_to_and_returned_to_by_every_way():
    scenes = told(
        BARE,
        ((PIP,), [Event("is_home", value=BEACH)]),
        ((PIP,), [Event("travels", value=CITY)]),
        ((PIP,), []),
        ((LULU,), [Event("travels", value=MOON)]),
        ((LULU,), [Event("returns_to_last", value=CITY)]),
        ((LULU,), []),
        ((LULU,), [Event("returns", value=MOON)]),
        ((LULU,), [Event("returns_home", value=BEACH)]),
    )
    assert [(SETTINGS[scene.setting], KNOWN[scene.setting_known]) for scene in scenes] == [
        ("beach", "said"),
        ("city", "said"),
        ("city", "carried"),
        ("moon", "said"),
        ("city", "returned"),
        ("city", "carried"),
        ("moon", "said"),
        ("beach", "returned"),
    ]


def test_a_guests_look_is_seen_or_described_and_then_carried():
    seen = told((Appearance(ZUB, 0),), ((ZUB,), []), ((PIP, ZUB), []))
    assert [KNOWN[scene.of(ZUB).look_known] for scene in seen] == ["source", "source"]
    described = told(BARE, ((PIP, ZUB), [Event("looks", ZUB)]), ((ZUB,), []))
    assert [KNOWN[scene.of(ZUB).look_known] for scene in described] == ["said", "carried"]
    assert KNOWN[described[0].of(PIP).look_known] == "unsaid"


def test_the_caption_wins_over_the_source_from_its_frame_on():
    scenes = told(
        (Appearance(PIP, 0, hat=RED, prop=BALL),),
        ((PIP,), [Event("wears", PIP, value=BLUE), Event("is_in", value=CITY), Event("is_time", value=2)]),
        ((PIP,), [Event("holds", PIP, value=0)]),
        ((PIP,), []),
    )
    assert [(hats(s)[0], SETTINGS[s.setting], TINTS[s.light]) for s in scenes] == [
        (("blue", "said"), "city", "night"),
        (("blue", "carried"), "city", "night"),
        (("blue", "carried"), "city", "night"),
    ]
    assert [props(scene)[0] for scene in scenes] == [("ball", "source"), ("none", "said"), ("none", "carried")]
