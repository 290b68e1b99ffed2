"""Compiled Python for the image, so that a process on a read-only root does not compile all anew at each start.

What must always hold: compiled by the image's own Python, whatever the machine has; a tree's files always in one process and
one order, because what Python writes depends on which strings it has seen.
"""

from __future__ import annotations

import hashlib
import io
import os
import platform
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from deploy.image.entries import Entry, Tree, file

NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}
# A pod reads its service account by itself; this client is for people's kubeconfigs, and a third of all files.
_NEVER_LOADED = re.compile("/dist-packages/kubernetes/")
_LOADERS = {"amd64": "ld-linux-x86-64.so.2", "arm64": "ld-linux-aarch64.so.1"}
# A file that does not compile is one of a package's templates; it stays as it is. The hash in the file is not checked
# at run time: the image's files do not change.
_COMPILE = """
import os, py_compile, sys
for line in sys.stdin:
    path = line.rstrip("\\n")
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(path, path + "c", "/" + path, invalidation_mode=mode, quiet=2)
"""


class Compiler:
    """Compiles with the Python of the base for this machine, which `base` makes when it is needed; keeps results in `cache`."""

    def __init__(self, cache: Path, base: Callable[[str], Tree]) -> None:
        self._cache = cache / "compiled"
        self._base = base
        self._native = NATIVE[platform.machine()]

    def compiled(self, tree: Mapping[str, Entry]) -> Tree:
        """The compiled files of a tree's Python files."""
        sources = {
            path: entry.content
            for path, entry in sorted(tree.items())
            if path.endswith(".py") and entry.content is not None and not _NEVER_LOADED.search(path)
        }
        if not sources:
            return {}
        base = self._base(self._native)
        kept = self._cache / f"{_digest(sources | _python(base))}.tar"
        if not kept.is_file():
            self._compile(base, sources, kept)
        with tarfile.open(kept) as archive:
            members = [(member.name, archive.extractfile(member)) for member in archive]
            return {name: file(content.read()) for name, content in members if content is not None}

    def _compile(self, base: Tree, sources: Mapping[str, bytes], kept: Path) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root, work = Path(folder, "root"), Path(folder, "work")
            _write(base, root)
            _write({path: file(content) for path, content in sources.items()}, work)
            libraries = next(root.glob("usr/lib/*-linux-gnu"))
            loader = next(root.glob(f"usr/lib*/{_LOADERS[self._native]}"), None)
            loader = loader if loader and not loader.is_symlink() else libraries / _LOADERS[self._native]
            subprocess.run(
                [loader, "--library-path", libraries, root / "usr/bin/python3.11", "-S", "-c", _COMPILE],
                input="".join(f"{path}\n" for path in sources),
                cwd=work,
                env={"PYTHONHOME": str(root / "usr"), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
                text=True,
                check=True,
                timeout=600,
            )
            self._cache.mkdir(parents=True, exist_ok=True)
            unfinished = kept.with_suffix(f".{os.getpid()}")
            with tarfile.open(unfinished, "w") as archive:
                for path in sources:
                    compiled = work / f"{path}c"
                    if compiled.is_file():
                        content = compiled.read_bytes()
                        member = tarfile.TarInfo(_compiled_name(path))
                        member.size = len(content)
                        archive.addfile(member, io.BytesIO(content))
            unfinished.replace(kept)


def _compiled_name(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.cpython-311.pyc"


def _python(base: Tree) -> dict[str, bytes]:
    """What compiles."""
    return {"python": base["usr/bin/python3.11"].content or b""}


def _digest(files: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256(_COMPILE.encode())
    for path, content in files.items():
        digest.update(f"{path}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()[:24]


def _write(tree: Mapping[str, Entry], root: Path) -> None:
    for path, entry in sorted(tree.items()):
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if entry.content is not None:
            place.write_bytes(entry.content)
            place.chmod(entry.mode | 0o200)
        elif entry.target:
            place.symlink_to(entry.target)
        else:
            place.mkdir(exist_ok=True)
