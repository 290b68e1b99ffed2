"""Builds the container image of a wheel, for amd64 and arm64, with no container engine and no root.

    ./try image                     both architectures, into .cache/image
    ./try image --lock              name today's packages in the two locks
    ./try image --newest-base       with Debian's packages of today, where the mirror has the locked ones no more

What must always hold: two builds of the same files and locks give the same digests, on whatever machine. The layers'
compressed bytes depend on zlib as well, the `diff_id`s and everything in them do not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from deploy.image import debian, oci, sbom, wheels
from deploy.image.compiled import Compiler
from deploy.image.entries import Layer, Tree, file, layer, with_parents

ARCHITECTURES = ("amd64", "arm64")
_ELF_MACHINES = {"amd64": (62).to_bytes(2, "little"), "arm64": (183).to_bytes(2, "little")}
_PROGRAM = b"""#!/usr/bin/python3 -P
import sys

from cni.command.main import main

sys.exit(main())
"""
CONFIG = {
    "User": "65532:65532",
    "Entrypoint": ["orbweaver"],
    "Cmd": ["--help"],
    "WorkingDir": "/",
    "Env": [
        "PATH=/usr/local/bin:/usr/bin",
        "LANG=C.UTF-8",
        # The image has the compiled files, and its root may be read-only.
        "PYTHONDONTWRITEBYTECODE=1",
    ],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="./try image", description="Build the container image.")
    parser.add_argument(
        "--arch", action="append", choices=ARCHITECTURES, help="one architecture; both without it"
    )
    parser.add_argument("--output", type=Path, help="directory for the image and its bills of materials")
    parser.add_argument("--name", help="the image's name; orbweaver:VERSION without it")
    parser.add_argument(
        "--lock", action="store_true", help="name today's packages in the locks, and build nothing"
    )
    parser.add_argument(
        "--newest-base", action="store_true", help="where the mirror has the locked base no more"
    )
    parser.add_argument("--wheel", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--cache", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    try:
        if options.lock:
            write_locks(options.cache)
            return 0
        outcome = build(
            options.wheel,
            options.output,
            options.cache,
            architectures=options.arch or ARCHITECTURES,
            name=options.name,
            newest_base=options.newest_base,
        )
    except (debian.PackageGone, wheels.WheelsMissing) as failed:
        print(f"image: {failed}", file=sys.stderr)
        return 1
    print(json.dumps(outcome, indent=2))
    return 0


def write_locks(cache: Path) -> None:
    """Write both locks anew. Raises PackageGone and WheelsMissing."""
    text = wheels.lock(ARCHITECTURES)
    debian.write_lock([package for name in ARCHITECTURES for package in debian.Archive(cache, name).newest()])
    wheels.LOCK.write_text(text)


def build(
    wheel: Path,
    output: Path,
    cache: Path,
    *,
    architectures: Sequence[str] = ARCHITECTURES,
    name: str | None = None,
    newest_base: bool = False,
) -> dict[str, object]:
    """Build; returns what was made. Raises PackageGone and WheelsMissing.

    With `newest_base` a package that the mirror has no more makes the whole base today's.
    """
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH", "0"))
    own = wheels.read(wheel)
    name = name or f"{own.name}:{own.version}"
    output.mkdir(parents=True, exist_ok=True)
    images: dict[str, object] = {}
    bases = _Bases(cache, newest_base)
    compiler = Compiler(cache, lambda architecture: bases.of(architecture)[1])
    manifests = []
    for architecture in architectures:
        packages, base = bases.of(architecture)
        fetched = wheels.fetch(architecture, cache)
        dependencies: Tree = {}
        for dependency in fetched:
            dependencies |= wheels.unpacked(dependency)
        text = sbom.bill(own, architecture, packages, fetched)
        program = wheels.unpacked(own) | {
            "usr/local/bin/orbweaver": file(_PROGRAM, 0o755),
            "usr/share/doc/orbweaver/sbom.cdx.json": file(text.encode()),
        }
        foreign = of_other_machines(architecture, base, dependencies)
        if foreign:
            raise wheels.WheelsMissing(f"not for {architecture}: {', '.join(foreign)}")
        base = with_parents(base | compiler.compiled(base))
        dependencies = with_parents(dependencies | compiler.compiled(dependencies), [base])
        program = with_parents(program | compiler.compiled(program), [base, dependencies])
        layers = [layer(tree, epoch, cache) for tree in (base, dependencies, program)]
        created = datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        manifests.append(oci.manifest(architecture, layers, CONFIG | {"Labels": _labels(own)}, created))
        bill = output / f"{own.name}-{own.version}-{architecture}.cdx.json"
        bill.write_text(text)
        images[architecture] = {
            "digest": manifests[-1].descriptor["digest"],
            "unpacked base": _megabytes(layers[:1]),
            "unpacked beyond its base": _megabytes(layers[1:]),
            "compressed": f"{sum(len(part.blob) for part in layers) / 1e6:.1f} MB",
            "bill of materials": str(bill),
        }
    archive = output / f"{own.name}-{own.version}.tar"
    digest = oci.write(archive, name, manifests, epoch)
    return {"name": name, "digest": digest, "archive": str(archive), **images}


def of_other_machines(architecture: str, *trees: Tree) -> list[str]:
    """The programs and libraries that another kind of machine would run, by the number in their ELF header."""
    number = _ELF_MACHINES[architecture]
    return [
        path
        for tree in trees
        for path, entry in tree.items()
        if entry.content and entry.content[:4] == b"\x7fELF" and entry.content[18:20] != number
    ]


class _Bases:
    """Each architecture's base, read once."""

    def __init__(self, cache: Path, newest: bool) -> None:
        self._cache = cache
        self._newest = newest
        self._read: dict[str, tuple[list[debian.Package], Tree]] = {}

    def of(self, architecture: str) -> tuple[list[debian.Package], Tree]:
        """Its packages and its tree. Raises PackageGone."""
        if architecture not in self._read:
            self._read[architecture] = self._make(architecture)
        return self._read[architecture]

    def _make(self, architecture: str) -> tuple[list[debian.Package], Tree]:
        archive = debian.Archive(self._cache, architecture)
        packages = [package for package in debian.read_lock() if package.architecture == architecture]
        try:
            debs = [(package, archive.fetch(package)) for package in packages]
        except debian.PackageGone as gone:
            if not self._newest:
                raise
            print(
                f"image: {gone}\nimage: taking today's packages in place of the locked ones", file=sys.stderr
            )
            packages = archive.newest()
            debs = [(package, archive.fetch(package)) for package in packages]
        return packages, debian.base(debs)


def _labels(own: wheels.Wheel) -> dict[str, str]:
    return {
        "org.opencontainers.image.title": own.name,
        "org.opencontainers.image.version": own.version,
        "org.opencontainers.image.licenses": own.licence,
    }


def _megabytes(layers: Sequence[Layer]) -> str:
    return f"{sum(part.unpacked for part in layers) / 1e6:.1f} MB"


if __name__ == "__main__":
    sys.exit(main())
