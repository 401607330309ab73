"""Check the global heaps of HDF5 files, which hold texts and pictures of any length, before HDF5 reads them.

HDF5 goes through the objects of a heap by their sizes. At free space of size 0, which a damaged file can have, it loops
for ever inside the library, where no exception and no timer reaches (HDF5 file format specification 3.0, section
III.E).
"""

import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

DESCRIPTOR = struct.Struct("<IQI")  # of one row: its length, the address of its heap, its object's number
HEAP = struct.Struct("<4sB3xQ")  # signature, version, size of the whole heap
OBJECT = struct.Struct("<HH4xQ")  # number (0: free space), references, size without this header
FREE_SPACE = 0


def check_heaps(path: Path, dataset: Any, rows: range) -> None:
    """Raise OSError, as HDF5 does for other damage, if HDF5 would loop for ever in a heap of ``rows`` of ``dataset``.

    Only contiguous data sets, as AR-LDM's scripts write them, are checked: others have no single place in the file.
    """
    start = dataset.id.get_offset()
    if start is None:
        return
    base = dataset.file.userblock_size  # addresses count from behind it
    with path.open("rb") as file:
        file.seek(start + rows.start * DESCRIPTOR.size)
        described = file.read(len(rows) * DESCRIPTOR.size)
        whole = described[: len(described) // DESCRIPTOR.size * DESCRIPTOR.size]
        for address in sorted({address for _, address, _ in DESCRIPTOR.iter_unpack(whole) if address}):
            if base + address < path.stat().st_size:  # HDF5 itself refuses what is not in the file
                file.seek(base + address)
                _check_heap(file)


def _check_heap(file: BinaryIO) -> None:
    header = file.read(HEAP.size)
    if len(header) < HEAP.size or not header.startswith(b"GCOL"):
        return  # refused by HDF5
    end = file.tell() - HEAP.size + HEAP.unpack(header)[-1]
    while file.tell() + OBJECT.size <= end and len(described := file.read(OBJECT.size)) == OBJECT.size:
        number, _, size = OBJECT.unpack(described)
        if number == FREE_SPACE and size < OBJECT.size:
            raise OSError(f"a heap of HDF5's has free space of {size} bytes")
        step = size - OBJECT.size if number == FREE_SPACE else -(-size // 8) * 8  # over the content, which HDF5 reads
        if step > end - file.tell():
            return
        file.seek(step, os.SEEK_CUR)
