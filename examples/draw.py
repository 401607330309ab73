"""Draw one story in a loop over seeds, then a second story that goes on where the first one ended.

python examples/draw.py
"""

from pathlib import Path

from PIL import Image

from storydalle import StoryDALLE
from storydalle.reporting.strips import Strip, strip_image

HERE = Path(__file__).parent


def draw(out: Path = Path("drawn"), num_seeds: int = 3) -> None:
    """Write ``seed-<number>.png`` and ``next.png``, each a strip, into the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    model = StoryDALLE.from_pretrained("story_dalle")
    captions = (HERE / "story.txt").read_text(encoding="utf-8").splitlines()
    source = Image.open(HERE / "frame.png")
    for seed in range(num_seeds):
        drawn = model.generate(captions, source=source, seed=seed, num_candidates=2)
        strip_image(Strip(captions, drawn.frames, source)).save(out / f"seed-{seed}.png")

    last = drawn.frames[-1]  # a picture like any other, so it can open the next story
    more = ["Mabu and Pip sit down.", "Pip falls asleep."]
    drawn = model.generate(more, source=last)
    strip_image(Strip(more, drawn.frames, last)).save(out / "next.png")


if __name__ == "__main__":
    draw()
