"""Open model folders of this package without reading their numbers: the network, and the places of its tensors."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from storydalle.files.reading import read_object
from storydalle.files.weights import WithoutNumbers, described_by, files_of
from storydalle.models.pretrained import one_line
from storydalle.models.story_dalle.model import StoryDALLE
from storydalle.models.zoo import CONFIG_NAME, WEIGHTS_NAME
from storydalle.released.conversion import Source, shapes_of
from storydalle.released.layouts import LayoutError, Shape, listed
from storydalle.released.stored_weights import stored_weights
from storydalle.released.torch_files import ForeignFile
from storydalle.tokens.caption_tokenizer import TextTokenizer
from storydalle.tokens.image_tokenizer import ImageTokenizer
from storydalle.tokens.vqgan import VQGAN


class OurModel(NamedTuple):
    """The folder of a StoryDALLE with open files: the model without numbers, and the places of its tensors."""

    network: StoryDALLE
    tensors: dict[str, Source]

    @property
    def captions(self) -> TextTokenizer:
        return self.network.caption_tokenizer

    @property
    def codes_of(self) -> str | None:
        return self.network.model.backbone.codes_of


@contextmanager
def our_model(folder: Path) -> Iterator[OurModel]:
    """The model of a folder, with its own or a shared tokenizer; every tensor must exist and have its shape."""
    with of_folder(folder):
        network, files = StoryDALLE.without_numbers(folder)
    with our_tensors(*files) as tensors:
        yield OurModel(network, checked(tensors, shapes_of(network), folder))


@contextmanager
def our_vqgan(folder: Path) -> Iterator[tuple[VQGAN, dict[str, Source]]]:
    """A VQGAN in its own folder, without numbers, and the places of its tensors; LayoutError for another kind."""
    config = folder / CONFIG_NAME
    with of_folder(folder), described_by(config, "is no image tokenizer", folder / WEIGHTS_NAME), WithoutNumbers():
        tokenizer = ImageTokenizer.from_config(read_object(config))
    if not isinstance(tokenizer, VQGAN):
        raise LayoutError(f"the layout taming-vqgan has no place for an image tokenizer of kind {tokenizer.kind}")
    with our_tensors((folder / WEIGHTS_NAME, "")) as tensors:
        yield tokenizer, checked(tensors, shapes_of(tokenizer), folder)


@contextmanager
def of_folder(folder: Path) -> Iterator[None]:
    """Turn errors into a LayoutError: the folder holds no model of the requested kind."""
    try:
        yield
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise ForeignFile(f"{folder} is no folder of ours for this format: {one_line(error)}") from error


@contextmanager
def our_tensors(*wholes: tuple[Path, str]) -> Iterator[dict[str, Source]]:
    """All tensors of these files, or of their parts, whose names have the file's prefix; none is read yet."""
    with ExitStack() as stack:
        found: dict[str, Source] = {}
        for whole, prefix in wholes:
            try:
                paths = files_of(whole)
            except OSError as error:
                raise ForeignFile(str(error)) from error
            for path in paths:
                stored = stack.enter_context(stored_weights(path))
                for name, shape in stored.shapes.items():
                    if name.startswith(prefix):
                        found[name] = Source(stored.dtypes[name], shape, partial(stored.read, name))
        yield found


def checked(tensors: dict[str, Source], ours: Mapping[str, Shape], folder: Path) -> dict[str, Source]:
    """The tensors, if they fit the folder's config; LayoutError, naming those that do not."""
    told = [f"missing: {listed(gone)}"] if (gone := [name for name in ours if name not in tensors]) else []
    told += [f"unknown: {listed(more)}"] if (more := [name for name in tensors if name not in ours]) else []
    wrong = [
        f"{name} has the shape {source.shape} where {ours[name]} belongs"
        for name, source in tensors.items()
        if name in ours and source.shape != ours[name]
    ]
    told += [f"of another shape: {listed(wrong)}"] if wrong else []
    if told:
        raise LayoutError(f"the weights of {folder} are not those of its {CONFIG_NAME}; {'; '.join(told)}")
    return tensors
