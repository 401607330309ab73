"""Names of the characters that a story set knows in its frames, and the terms of F1 for reading them."""

from jaxtyping import Shaped
from torch import Tensor

from storydalle.stories.set_stories import SetStories
from storydalle.stories.story import Stories
from storydalle.stories.toon import CHARACTERS, ToonSV


def f1_terms(
    found: Shaped[Tensor, "..."], read: Shaped[Tensor, "..."], true: Shaped[Tensor, "..."]
) -> tuple[Shaped[Tensor, "..."], Shaped[Tensor, "..."]]:
    """Numerator and denominator of F1 = 2 tp / (2 tp + fp + fn), to be summed before they are divided.

    ``found`` counts characters that are read and true (tp), ``read`` those that are read (tp + fp), ``true`` those that
    are true (tp + fn).
    """
    return 2 * found, read + true


def character_names(stories: Stories) -> tuple[str, ...]:
    """Names of the columns of the stories' label "characters"; raises ValueError if there are none."""
    names: tuple[str, ...] = ()
    if isinstance(stories, ToonSV):
        names = CHARACTERS
    elif isinstance(stories, SetStories):
        names = tuple(stories.story_set.characters)
    if not names or not labelled(stories):
        raise ValueError(
            f"{told_name(stories)} does not say which characters are in its frames, so no classifier can learn them: "
            "choose data that does, such as toon, pororo or flintstones"
        )
    return names


def told_name(stories: Stories) -> str:
    return stories.story_set.name if isinstance(stories, SetStories) else type(stories).__name__


def labelled(stories: Stories) -> list[int]:
    """The indices of stories with known characters; a set may lack them for some."""
    if isinstance(stories, SetStories):
        return [i for i, record in enumerate(stories.records) if record.characters is not None]
    return list(range(len(stories))) if "characters" in stories.outline(0).labels else []
