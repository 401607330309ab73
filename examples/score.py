"""Score a folder of drawn pictures, FOLDER/<story id>/<number>.png, beside ToonSV's true frames.

python examples/score.py FOLDER
"""

import sys
from pathlib import Path

from PIL import Image

from storydalle.metrics.frame_distances import PictureScores
from storydalle.metrics.networks.label_reader import LabelReader
from storydalle.metrics.seen import Networks, Seen
from storydalle.metrics.toon import ToonScores
from storydalle.models.zoo import zoo_folder
from storydalle.stories.images import from_images
from storydalle.stories.story import batch_of
from storydalle.stories.toon import ToonSV


def score(folder: Path, num_stories: int = 500) -> dict[str, float]:
    """All scores of the pictures: what a network reads in them, and how far they are from the true frames."""
    networks = Networks(labels=LabelReader.from_pretrained(zoo_folder() / "label_reader"))
    labels, pictures = ToonScores(), PictureScores()
    for story in ToonSV("test", num_stories, resolution=128):
        true = batch_of([story])
        files = sorted((folder / story.id).glob("*.png"))
        drawn = from_images([Image.open(file) for file in files], 128)[None]  # (b, f, c, h, w) in [-1, 1]
        labels.update(Seen(drawn, networks).labels, true.labels, true.mask, true.ids)
        pictures.update(drawn, true.frames, true.source, true.mask, true.ids)
    return labels.compute() | pictures.compute()


if __name__ == "__main__":
    for name, value in score(Path(sys.argv[1])).items():
        print(f"{name:28s} {value:.3f}")
