"""The files of an image's layers, and the tar archives that carry them.

What must always hold: the same files give the same bytes. Entries are sorted, belong to root, and have one time; nothing
of the machine that builds gets in.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Entry:
    """A regular file (`content`), a symbolic link (`target`), or a directory (neither)."""

    mode: int
    content: bytes | None = None
    target: str = ""


Tree = dict[str, Entry]
"""Paths without a slash at the front, to what is there."""


def directory(mode: int = 0o755) -> Entry:
    return Entry(mode)


def file(content: bytes, mode: int = 0o644) -> Entry:
    return Entry(mode, content)


def link(target: str) -> Entry:
    return Entry(0o777, None, target)


def with_parents(tree: Mapping[str, Entry], below: Iterable[Mapping[str, Entry]] = ()) -> Tree:
    """The tree and those of its directories that neither it nor the layers below name."""
    whole = dict(tree)
    there = [tree, *below]
    for path in tree:
        parts = path.split("/")
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth])
            if not any(parent in layer for layer in there):
                whole[parent] = directory()
    return whole


def size(tree: Mapping[str, Entry]) -> int:
    """Bytes of its files, as they are on disk."""
    return sum(len(entry.content) for entry in tree.values() if entry.content is not None)


@dataclass(frozen=True, slots=True)
class Layer:
    """A tree as a registry keeps it: `diff_id` names the archive, `digest` what it is compressed to."""

    diff_id: str
    digest: str
    blob: bytes
    unpacked: int


def layer(tree: Mapping[str, Entry], epoch: int, cache: Path) -> Layer:
    """Pack a tree, or take it from `cache`; every entry has the time `epoch`, in seconds since 1970."""
    kept = cache / "layers" / f"{_digest(tree, epoch)}.tar.gz"
    if kept.is_file():
        blob = kept.read_bytes()
        content = gzip.decompress(blob)
    else:
        content = _packed(tree, epoch)
        # No name and no time in the header; more effort than this saves 1 % and costs twice the time.
        blob = gzip.compress(content, compresslevel=5, mtime=0)
        kept.parent.mkdir(parents=True, exist_ok=True)
        unfinished = kept.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(blob)
        unfinished.replace(kept)
    return Layer(sha256(content), sha256(blob), blob, size(tree))


def _packed(tree: Mapping[str, Entry], epoch: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in sorted(tree):
            entry = tree[path]
            member = tarfile.TarInfo(path)
            member.mode, member.mtime = entry.mode, epoch
            if entry.target:
                member.type, member.linkname = tarfile.SYMTYPE, entry.target
            elif entry.content is None:
                member.type = tarfile.DIRTYPE
            else:
                member.size = len(entry.content)
            archive.addfile(member, io.BytesIO(entry.content or b""))
    return packed.getvalue()


def _digest(tree: Mapping[str, Entry], epoch: int) -> str:
    digest = hashlib.sha256(str(epoch).encode())
    for path in sorted(tree):
        entry = tree[path]
        length = -1 if entry.content is None else len(entry.content)
        digest.update(f"{path}\0{entry.mode}\0{entry.target}\0{length}\0".encode())
        digest.update(entry.content or b"")
    return digest.hexdigest()[:24]


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
