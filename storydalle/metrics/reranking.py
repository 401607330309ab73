"""Choose among a frame's candidates."""

from storydalle.metrics.networks.clip import open_image_text_network
from storydalle.metrics.text_image import rerank
from storydalle.mistakes import told_in_one_line
from storydalle.models.drawing import Reranker
from storydalle.models.kinds import CLIP
from storydalle.models.zoo import zoo_folder
from storydalle.stories.images import from_images


def open_reranker() -> Reranker:
    """A reranker with the shipped image-text network: the frame nearest to its caption comes first."""
    with told_in_one_line("reranker=clip cannot be opened", ValueError, OSError):
        network = open_image_text_network(zoo_folder() / CLIP)
    return lambda images, caption: rerank(network, [caption], from_images(images, images[0].width)[:, None])
