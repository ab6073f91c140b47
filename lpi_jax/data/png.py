"""PNG files whose pixels are sound but whose metadata Pillow refuses: the same image without them.

Pillow reads no text, XMP or colour profile that unpacks to more than a megabyte, and takes the whole image for
damaged then. None of them is needed here.
"""

import struct

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_METADATA = (b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"tIME", b"pHYs", b"sPLT", b"hIST")
_LENGTH_AND_KIND, _CHECKSUM = 8, 4  # bytes around the data of a chunk


def without_metadata(file: bytes) -> bytes | None:
    """The same image without text, colour profile and the like; None if `file` is no PNG or has none of them.

    Args:
      file: a whole file, which may be damaged: from where its chunks make no sense, all of it stays.
    """
    if not file.startswith(SIGNATURE):
        return None
    kept, start = [SIGNATURE], len(SIGNATURE)
    while len(file) - start >= _LENGTH_AND_KIND:
        length, kind = struct.unpack_from(">I4s", file, start)
        end = start + _LENGTH_AND_KIND + length + _CHECKSUM
        if end > len(file):
            break
        if kind not in _METADATA:
            kept.append(file[start:end])
        start = end
    kept.append(file[start:])
    bare = b"".join(kept)
    return bare if len(bare) < len(file) else None
