"""Archives of weights: unpack the wanted files by name, and nothing else; pack folders."""

import shutil
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from storydalle.files.weights import NoRoom
from storydalle.files.whole import replaced_when_whole
from storydalle.released.torch_files import ForeignFile

LARGEST_RATIO = 100  # of what weights unpack to, to the size of their archive
LARGEST_NAME = 2**20  # bytes of a long name and of other remarks on a file, which tarfile reads at once


class _Member(tarfile.TarInfo):
    """A file of an archive, or a header about the next one."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.size > LARGEST_NAME:
            raise tarfile.ReadError(f"a remark of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc]


def unpack(archive: Path, names: Sequence[str], folder: Path, optional: Sequence[str] = ()) -> None:
    """Write the files with these names, anywhere in a ``.tar`` or ``.tar.gz``, into a folder, in one pass.

    ``optional`` files are written if they exist. Nothing else of the archive is written: no paths, which could contain
    dots, and no links. Raises ForeignFile if the archive is damaged, if a file is missing, is there twice or is a link,
    and if the files are larger than packed weights of that size can be; NoRoom if the disk is too small.
    """
    size, unpacked = archive.stat().st_size, 0
    try:
        with tarfile.open(archive, "r|*", tarinfo=_Member) as tar:
            for member in tar:
                unpacked += member.size  # what is passed over is unpacked too
                if unpacked > LARGEST_RATIO * size:
                    raise ForeignFile(f"{archive} of {size} bytes claims to hold {unpacked} and more: it is refused")
                name = PurePosixPath(member.name).name
                if name not in (*names, *optional):
                    continue
                if not member.isfile() or (folder / name).exists():
                    raise ForeignFile(f"{archive} holds {name} as a link, or twice")
                if member.size > shutil.disk_usage(folder).free:
                    raise NoRoom(f"{name} has {member.size / 1e9:.1f} GB, for which {folder} has no space")
                content = tar.extractfile(member)
                assert content is not None
                with (folder / name).open("wb") as file:
                    shutil.copyfileobj(content, file, 1 << 20)
    except (tarfile.TarError, EOFError, ValueError) as error:
        if isinstance(error, ForeignFile):
            raise
        raise ForeignFile(f"{archive} is truncated, damaged or no archive ({error}): copy it again") from error
    if missing := [name for name in names if not (folder / name).is_file()]:
        raise ForeignFile(f"{archive} holds no {missing[0]}")


def pack(folder: Path, archive: Path, root: str) -> None:
    """Pack the files of a folder into a ``.tar.gz``, below ``root``; it gets its name when it is complete."""
    # Weights hardly shrink: the fastest compression costs a percent of the size and saves most of the time.
    with replaced_when_whole(archive) as file, tarfile.open(fileobj=file, mode="w:gz", compresslevel=1) as tar:
        tar.add(folder, root)
