"""Zips of runs as an attacker would craft them, and what one would put into them."""

import hashlib
import io
import json
import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def contents(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.is_file() and p.read_bytes() for p in sorted(folder.rglob("*"))}


def read(path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_sums(files: dict[str, bytes], **changes) -> dict[str, bytes]:
    """The files with a manifest that fits them, so that nothing but their content can be refused."""
    files = {name: data for name, data in files.items() if name != "manifest.json"}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    manifest = {"format": "glassbox run", "version": 1, "name": "one", "sha256": sums} | changes
    return files | {"manifest.json": json.dumps(manifest).encode()}


def write(path, files, compression=zipfile.ZIP_STORED, change=lambda info: None) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = compression
            change(info)
            archive.writestr(info, data)


def replaced_names(data: bytes, old: bytes, new: bytes) -> bytes:
    """In the local and in the central header of that entry; marked as UTF-8."""
    for signature, length_at, name_at, flags_at in ((b"PK\3\4", 26, 30, 6), (b"PK\1\2", 28, 46, 8)):
        start = data.find(signature)
        while start >= 0:
            (length,) = struct.unpack_from("<H", data, start + length_at)
            if data[start + name_at : start + name_at + length] == old:
                flags = struct.pack("<H", 0x800)
                data = data[: start + flags_at] + flags + data[start + flags_at + 2 :]
                data = data[: start + name_at] + new + data[start + name_at + length :]
            start = data.find(signature, start + 4)
    return data


class Trap:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def pickled() -> bytes:
    return pickle.dumps(Trap())


def torch_file() -> bytes:
    buffer = io.BytesIO()
    torch.save({"embedding.weight": torch.zeros(257, 16), "trap": Trap()}, buffer)
    return buffer.getvalue()


def numpy_file() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def bomb_png(side: int) -> bytes:
    """A small PNG that says it is a square of so many pixels a side."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(99)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")
