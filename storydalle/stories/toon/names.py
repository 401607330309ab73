"""Names of the characters: nine fixed ones, and invented names of two syllables for guests."""

import numpy as np

NAMED = ("pip", "lulu", "bruno", "kiko", "mimi", "rufus", "nilo", "tilly", "ella")
_SECOND_ONSETS = tuple("bdfgklmnprtvz")
_CLUSTERS = ("bl", "br", "dr", "fl", "gl", "gr", "kl", "kr", "pl", "pr", "tr", "vr", "zl", "zw")
_FIRST_VOWELS, _SECOND_VOWELS = "aeiou", "aiou"
_FIRST_ONSETS = _SECOND_ONSETS + _CLUSTERS
# Two-syllable words and common names that the syllables could make.
_WORDS = """
bali bambi bana bobo bola bolo bono boro bozo brava bravo bula dada dado data demo dido dina dino diva dodo dogma dona
dopa dora drago drama duma fado fifa fila flora foto fugu gaga gala gama gobi gogo gola gonad grata gravi gravo gripo
guru judo kaka kali kara kata keto kilo kiwi klima koda kola kudu lama lava lego lena lido lima limo lina lira logo
loki lola loto mala mali mama mana mani maori mara maxi mega memo menu meta midi mini moda moka mono moto muda nana
nati nazi nina nora nova nudi pagoda papa para pedo peri peru pipi plaza polo popo prada prado prima promo puma pupu
puta puti puto radi ragu rani rema reno roti rudi tabu tana tapa taro tiki tina tofu toga togo tona tori troll tuba
tufa tuna tutu veda vela veto vino vita viva zara zero zulu
"""
_TAKEN = frozenset(NAMED) | frozenset(_WORDS.split())


def possible_names() -> list[str]:
    """All names that ``sample_name`` can make, in lower case, sorted."""
    firsts = [onset + vowel for onset in _FIRST_ONSETS for vowel in _FIRST_VOWELS]
    seconds = [onset + vowel for onset in _SECOND_ONSETS for vowel in _SECOND_VOWELS]
    return sorted({first + second for first in firsts for second in seconds} - _TAKEN)


def sample_name(rng: np.random.Generator) -> str:
    """An invented, capitalised name that can be pronounced and is not a known word."""
    while True:
        first = _FIRST_ONSETS[int(rng.integers(len(_FIRST_ONSETS)))] + _FIRST_VOWELS[int(rng.integers(5))]
        second = _SECOND_ONSETS[int(rng.integers(len(_SECOND_ONSETS)))] + _SECOND_VOWELS[int(rng.integers(4))]
        if first + second not in _TAKEN:
            return (first + second).capitalize()
