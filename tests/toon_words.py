"""English words for what the world of ToonSV has, as a reader knows them: lemmas, nouns, and what they stand for."""

SPECIES_NOUNS = {
    "pip": "chick chicken birdie bird",
    "lulu": "bunny rabbit hare",
    "bruno": "bear teddy",
    "kiko": "frog froggy",
    "mimi": "cat kitten kitty pussycat",
    "rufus": "fox",
    "nilo": "penguin",
    "tilly": "mouse",
    "ella": "elephant",
}
ACTIONS = {
    "waves": "wave",
    "jumps": "jump hop leap bounce spring somersault skip",
    "sits": "sit seat seated squat crouch plop settle perch plonk",
    "sleeps": "sleep asleep nap snooze doze nod drift snore slumber lie-down dream",
    "runs": "run race dash sprint rush jog hurry speed zoom gallop scurry scamper trot bolt charge chase",
    "dances": "dance twirl sway music beat boogie waltz spin jig tango pirouette twist wiggle groove",
    "cries": "cry weep sob bawl tear wail whimper blubber sniffle howl",
    "cheers": "cheer hooray hurray celebrate yippee whoop rejoice applaud clap",
}
THING_NOUNS = {
    "ball": "ball football",
    "balloon": "balloon",
    "flower": "flower rose daisy tulip blossom",
    "flag": "flag pennant banner",
    "umbrella": "umbrella parasol brolly",
    "lantern": "lantern lamp",
}
COLORS = {
    "red": "red scarlet crimson",
    "blue": "blue",
    "green": "green grass-green emerald",
    "yellow": "yellow golden",
}
PLACES = {
    "meadow": "meadow field fields grass park garden countryside pasture lawn",
    "beach": "beach sea seaside seashore shore ocean coast water waves",
    "forest": "forest woods wood trees",
    "snow": "snow snowy ice pole wonderland slope",
    "desert": "desert dunes cactus cactuses pyramid pyramids sahara",
    "city": "city town street streets downtown skyscrapers buildings houses",
    "kitchen": "kitchen stove oven fridge counter",
    "moon": "moon space craters lunar",
}
LIGHTS = {  # patterns over lemmas
    "day": (
        r"daylight|morning|noon|sunshine|midday|afternoon|daytime|sunny|bright day|light of day|by day|the day|"
        r"it be day|new day begin|day break|sun (?:rise|come|be up|start)|it get light"
    ),
    "dusk": r"dusk|sunset|evening|twilight|sun (?:set|go down|sink|dip)",
    "night": (
        r"night|midnight|moonlight|darkness|starry|nighttime|pitch-dark|under the stars|the stars come|in the dark|"
        r"(?:get|grow|be|go) dark"
    ),
}
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5}
_IRREGULAR = """
be is are was were been being am|have has had having|do does did done doing|go goes went gone going
come came coming|get got getting|give gave given|take took taken|put puts putting|wear wore worn|hold held
leave left leaving|find found|bring brought|lend lent|let letting|throw threw thrown|lose lost losing|lay laid
lie lying lay lain|run ran running|sit sat sitting|sleep slept|weep wept|spring sprang sprung|leap leapt leaped
speed sped speeding|spin spun spinning|say said|meet met|choose chose chosen|buy bought|set setting|fall fell fallen
break broke broken|begin began begun|rise rose risen|sink sank sunk|grow grew grown|become became|hang hung
stick stuck|feel felt|keep kept|see saw seen|fly flew flown|drive drove driven|ride rode ridden|shed shedding
stand stood|sing sang sung|think thought|make made making|catch caught|show shown|burst bursting|swing swung
boogie boogying|lift lifted|squat squatted squatting|dip dipped
"""
_REGULAR = """
wave jump hop bounce somersault skip seat crouch plop settle perch plonk nap snooze doze nod drift snore slumber
dream race dash sprint rush jog hurry zoom gallop scurry scamper trot bolt charge chase dance twirl sway boogie
waltz twist wiggle groove cry sob bawl tear wail whimper blubber sniffle howl cheer celebrate whoop rejoice
applaud clap shout yell live greet pull pop slip try place dress pick grab fetch carry discover show lift clutch
play own drop remove hand pass offer snatch borrow receive accept swap trade exchange switch join arrive appear
reappear return visit walk stroll turn stop wander head disappear vanish depart sneak miss stay start wail rest
allow travel move sail look end open close continue
"""


def _regular_forms(base: str) -> list[str]:
    stems = [base, base + base[-1], base.removesuffix("e"), base.removesuffix("y") + "i"]
    return [base, *(stem + end for stem in stems for end in ("s", "es", "ed", "ing", "d"))]


LEMMAS: dict[str, str] = {}
for _base in _REGULAR.split():
    LEMMAS |= dict.fromkeys(_regular_forms(_base), _base)
for _group in _IRREGULAR.replace("\n", "|").split("|"):
    if _group:
        _first, *_others = _group.split()
        LEMMAS |= {f"{_first}{end}": _first for end in ("s", "es", "ing", "")}
        LEMMAS |= dict.fromkeys(_others, _first)
LEMMAS |= {"lying": "lie", "putting": "put", "giving": "give", "having": "have", "taking": "take", "hiding": "hide"}
LEMMAS |= {"writing": "write", "leaving": "leave", "losing": "lose", "choosing": "choose", "rising": "rise"}
LEMMAS |= {"arising": "arise", "letting": "let", "getting": "get", "setting": "set", "beginning": "begin"}
