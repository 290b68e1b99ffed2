"""The container image: what is in it, that its programs run, and that two builds are one."""

from __future__ import annotations

import email
import gzip
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.tools import image
from tests.tools.gomodule import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LIMIT = 120e6
"""Bytes that Orbweaver and its packages may take beyond the base."""


@dataclass(frozen=True)
class Image:
    """An archive that was read: the digest that names it, its configuration, and its layers from the base upward."""

    digest: str
    config: Mapping[str, Any]
    layers: tuple[tarfile.TarFile, ...]

    def members(self) -> dict[str, tarfile.TarInfo]:
        return {member.name: member for layer in self.layers for member in layer}

    def read(self, path: str) -> bytes:
        (layer,) = (layer for layer in self.layers if path in layer.getnames())
        content = layer.extractfile(path)
        assert content is not None
        return content.read()


def read(path: Path) -> Image:
    with tarfile.open(path) as archive:

        def blob(digest: str) -> bytes:
            content = archive.extractfile(f"blobs/{digest.replace(':', '/')}")
            assert content is not None
            return content.read()

        index = archive.extractfile("index.json")
        assert index is not None
        (top,) = json.load(index)["manifests"]
        (one,) = json.loads(blob(top["digest"]))["manifests"]
        manifest = json.loads(blob(one["digest"]))
        layers = tuple(
            tarfile.TarFile(fileobj=io.BytesIO(gzip.decompress(blob(layer["digest"]))))
            for layer in manifest["layers"]
        )
        return Image(top["digest"], json.loads(blob(manifest["config"]["digest"])), layers)


@pytest.fixture(scope="module")
def built(image_archive: Path) -> Image:
    return read(image_archive)


@pytest.fixture(scope="module")
def unpacked(built: Image, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's file system."""
    if os.geteuid() != 0:
        pytest.skip("running programs in the image's file system needs root")
    root = tmp_path_factory.mktemp("root")
    for layer in built.layers:
        # As `filter="fully_trusted"`, which Python 3.11 takes from 3.11.4 on only.
        layer.extraction_filter = lambda member, path: member
        layer.extractall(root)
    root.chmod(0o755)
    return root


def run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A program of the image, as the user that it names."""
    environment = {"PATH": "/usr/local/bin:/usr/bin"}
    inside = [shutil.which("chroot") or "/usr/sbin/chroot", "--userspec=65532:65532", str(root), *command]
    return subprocess.run(inside, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_it_runs_as_nobody_in_particular_and_has_no_shell(built: Image) -> None:
    members = built.members()

    assert built.config["config"]["User"] == "65532:65532"
    assert built.config["config"]["Entrypoint"] == ["orbweaver"]
    assert [name for name in members if name.startswith(("usr/bin/", "usr/sbin/"))] == [
        "usr/bin/python3",
        "usr/bin/python3.11",
        "usr/sbin/chroot",
    ]
    assert [name for name, one in members.items() if one.isfile() and one.mode & 0o6022] == []
    assert {(one.uid, one.gid, one.mtime) for one in members.values()} == {(0, 0, 0)}


def test_it_is_no_larger_beyond_its_base_than_it_may_be(built: Image) -> None:
    sizes = [sum(member.size for member in layer) for layer in built.layers]

    assert sum(sizes[1:]) < LIMIT, sizes


def test_the_bill_of_materials_lists_all_that_is_there(built: Image) -> None:
    bill = json.loads(built.read("usr/share/doc/orbweaver/sbom.cdx.json"))
    listed = {(one["name"], one["version"]) for one in bill["components"]}
    there = {"METADATA": set[tuple[str, str]](), "status.d": set[tuple[str, str]]()}
    for name in built.members():
        if name.endswith(".dist-info/METADATA"):
            fields = email.message_from_bytes(built.read(name))
            there["METADATA"].add((fields["Name"], fields["Version"]))
        elif name.startswith("var/lib/dpkg/status.d/"):
            fields = email.message_from_bytes(built.read(name))
            there["status.d"].add((fields["Package"], fields["Version"]))

    assert all(len(found) > 10 for found in there.values())
    assert listed == set.union(*there.values())
    assert all(one["hashes"][0]["content"] for one in bill["components"])


def test_every_module_and_every_library_that_it_needs_is_there(unpacked: Path) -> None:
    """Each compiled module is loaded, with the libraries that it names, by the user of the image."""
    code = """
import importlib, pathlib, sys
failed = []
for top in ("/usr/lib/python3.11/lib-dynload", "/usr/local/lib/python3.11/dist-packages"):
    for path in sorted(pathlib.Path(top).rglob("*.so")):
        name = ".".join(path.relative_to(top).parts).split(".cpython-")[0].split(".abi3")[0].removesuffix(".so")
        try:
            importlib.import_module(name)
        except ImportError as error:
            failed.append(f"{name}: {error}")
import cni.command.agent, cni.command.controller, cni.process.agent, cni.process.controller
sys.exit("\\n".join(failed) or 0)
"""
    done = run(unpacked, "/usr/bin/python3", "-P", "-c", code)

    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_is_compiled_at_its_start(unpacked: Path) -> None:
    """On a read-only root that would cost seconds of CPU at each."""
    done = run(unpacked, "/usr/bin/python3", "-v", "-P", "/usr/local/bin/orbweaver", "version")

    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("orbweaver ")
    loaded = [
        line for line in done.stderr.splitlines() if "code object from" in line and "dist-packages" in line
    ]
    assert len(loaded) > 10
    assert [line for line in loaded if ".pyc" not in line] == []


def test_a_second_build_gives_the_same_digest(built: Image, tmp_path: Path) -> None:
    """Nothing but what was fetched is kept from the first."""
    for name in ("debs", "wheels"):
        shutil.copytree(image.cache() / name, tmp_path / "kept" / name)
    options = ("--output", str(tmp_path / "again"), "--arch", image.architecture(), "--newest-base")
    done = image.build(*options, kept=tmp_path / "kept")

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == built.digest


def test_the_locks_have_all_that_the_project_needs() -> None:
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {re.split(r"[<>=~! \[]", one)[0].lower() for one in dependencies}
    text = (image.BUILDER / "requirements.lock").read_text()
    locked = set(re.findall(r"^([a-z0-9_.-]+)==", text, re.MULTILINE))

    assert wanted <= locked, "a dependency is not in the image; `./try image --lock` writes the locks anew"
