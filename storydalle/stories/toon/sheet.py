"""Contact sheets: stories as rows of frames, with captions and labels beneath."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from storydalle.stories.story import Story
from storydalle.stories.toon.world import (
    ACTIONS,
    CAST_KNOWN,
    HAT_KNOWN,
    HATS,
    NAMED,
    PROPS,
    SETTING_KNOWN,
    SETTINGS,
    TINTS,
    FrameFacts,
    StoryFacts,
)

MARGIN = 12
PAPER, TEXT, FAINT = (255, 252, 246), (40, 36, 48), (130, 122, 136)


def draw_sheet(stories: Sequence[Story], facts: Sequence[StoryFacts]) -> Image.Image:
    """A row for each story: source and targets, captions in dark and labels in grey beneath them."""
    resolution = stories[0].source.shape[0]
    side = resolution * max(1, round(192 / resolution))
    rows = [_draw_row(story, fact, side) for story, fact in zip(stories, facts, strict=True)]
    sheet = Image.new("RGB", (rows[0].width + MARGIN, MARGIN + sum(row.height for row in rows)), PAPER)
    top = MARGIN
    for row in rows:
        sheet.paste(row, (MARGIN, top))
        top += row.height
    return sheet


def _draw_row(story: Story, facts: StoryFacts, side: int) -> Image.Image:
    font, small = ImageFont.load_default(13), ImageFont.load_default(11)
    texts = [textwrap.wrap(text, side // 7) for text in (f"source of {story.id}", *story.captions)]
    labels = [textwrap.wrap(label_words(facts, frame), side // 7 + 4) for frame in facts.frames]
    text_height = max(17 * len(text) + 14 * len(label) for text, label in zip(texts, labels, strict=True))
    row = Image.new("RGB", ((side + MARGIN) * len(texts), side + text_height + 2 * MARGIN), PAPER)
    draw = ImageDraw.Draw(row)
    for column, picture in enumerate((story.source, *story.frames)):
        left = column * (side + MARGIN)
        row.paste(Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST), (left, 0))
        draw.multiline_text((left, side + 3), "\n".join(texts[column]), TEXT, font)
        draw.multiline_text((left, side + 8 + 17 * len(texts[column])), "\n".join(labels[column]), FAINT, small)
    return row


def label_words(facts: StoryFacts, frame: FrameFacts) -> str:
    """The labels of a frame in short words."""
    names = [(*NAMED, facts.guest.name if facts.guest else "guest")[character] for character in frame.cast]
    setting, cast = SETTINGS[frame.setting], " ".join(names)
    if frame is not facts.source:
        cast += f" ({CAST_KNOWN[frame.cast_known]})"
        setting += f" ({SETTING_KNOWN[frame.setting_known]})"
    words = [cast, ACTIONS[frame.action], setting, TINTS[facts.tint]]
    if frame.prop:
        words.append(PROPS[frame.prop])
    for character, hat in enumerate(frame.hats):
        if hat:
            words.append(f"{NAMED[character]} {HATS[hat]} hat ({HAT_KNOWN[frame.hats_known[character]]})")
    return " | ".join(words)
