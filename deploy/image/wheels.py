"""The image's Python packages: wheels that `requirements.lock` names by their hashes, unpacked as pip would.

What must always hold: nothing is built and no code of a package runs here, so one machine makes the layers of all
architectures; where the wheels come from is pip's own configuration.
"""

from __future__ import annotations

import email
import hashlib
import json
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.image.entries import Tree, file

ROOT = Path(__file__).resolve().parents[2]
LOCK = Path(__file__).with_name("requirements.lock")
PACKAGES = "usr/local/lib/python3.11/dist-packages"
PYTHON = "3.11"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
# glibc of the base is 2.36.
_PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")


class WheelsMissing(Exception):
    """Wheels that pip cannot fetch; the text has the end of what it said."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One package as its own metadata tells."""

    name: str
    version: str
    licence: str
    sha256: str
    path: Path


def fetch(architecture: str, cache: Path) -> list[Wheel]:
    """Every wheel of the lock, for one architecture. Raises WheelsMissing."""
    lock = LOCK.read_bytes()
    directory = cache / "wheels" / f"{architecture}-{hashlib.sha256(lock).hexdigest()[:12]}"
    done = directory / "complete"
    if not done.is_file():
        _pip(
            *("download", "--quiet", "--no-deps", "--require-hashes", "--requirement", str(LOCK)),
            *("--dest", str(directory), *_target(architecture)),
        )
        done.touch()
    return sorted((read(path) for path in directory.glob("*.whl")), key=lambda wheel: wheel.name.lower())


def read(path: Path) -> Wheel:
    """A wheel file."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (member for member in archive.namelist() if member.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
    licence = metadata["License-Expression"] or metadata["License"] or ""
    return Wheel(
        metadata["Name"],
        metadata["Version"],
        licence.splitlines()[0] if licence.strip() else "",
        hashlib.sha256(path.read_bytes()).hexdigest(),
        path,
    )


def unpacked(wheel: Wheel) -> Tree:
    """Its files, where the image's Python looks for packages. Programs of packages are left out."""
    tree: Tree = {}
    with zipfile.ZipFile(wheel.path) as archive:
        for member in archive.infolist():
            place = _placed(member.filename)
            if place and not member.is_dir():
                executable = member.external_attr >> 16 & 0o111
                tree[f"{PACKAGES}/{place}"] = file(archive.read(member), 0o755 if executable else 0o644)
    return tree


def _placed(name: str) -> str:
    """Where a file of a wheel goes below the packages' directory; empty when it is left out."""
    first, _, rest = name.partition("/")
    if not first.endswith(".data"):
        return name
    kind, _, inside = rest.partition("/")
    return inside if kind in {"purelib", "platlib"} else ""


def lock(architectures: Sequence[str]) -> str:
    """The text of a new lock: what pip takes today for `pyproject.toml`, the same versions for all architectures."""
    hashes: dict[tuple[str, str], set[str]] = {}
    for architecture in architectures:
        for name, version, digest in _resolved(architecture):
            hashes.setdefault((name.lower().replace("_", "-"), version), set()).add(digest)
    lines = ["# Written by `./try image --lock`: what the image has of Python packages, for both machines.\n"]
    for (name, version), digests in sorted(hashes.items()):
        lines.append(
            " \\\n".join([f"{name}=={version}", *(f"    --hash={digest}" for digest in sorted(digests))])
            + "\n"
        )
    names = [name for name, _ in hashes]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise WheelsMissing(f"no version of {', '.join(sorted(twice))} has wheels for every architecture")
    return "".join(lines)


def required() -> list[str]:
    """The dependencies as the project names them."""
    dependencies: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return dependencies


def _resolved(architecture: str) -> Iterator[tuple[str, str, str]]:
    report = _pip(
        *("install", "--quiet", "--dry-run", "--ignore-installed", "--report", "-"),
        *("--target", str(ROOT / "none"), *_target(architecture), *required()),
    )
    for report_entry in json.loads(report)["install"]:
        (digest,) = report_entry["download_info"]["archive_info"]["hashes"].items()
        yield report_entry["metadata"]["name"], report_entry["metadata"]["version"], ":".join(digest)


def _target(architecture: str) -> list[str]:
    machine = _MACHINES[architecture]
    platforms = [word for name in _PLATFORMS for word in ("--platform", f"{name}_{machine}")]
    return ["--only-binary", ":all:", "--implementation", "cp", "--python-version", PYTHON, *platforms]


def _pip(*arguments: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode != 0:
        raise WheelsMissing("pip cannot fetch the wheels:\n" + "\n".join(done.stderr.splitlines()[-5:]))
    return done.stdout
