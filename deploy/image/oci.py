"""An image as the OCI image specification has it, in one archive that container runtimes import."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.image.entries import Layer, sha256

_OCI = "application/vnd.oci.image"


@dataclass(frozen=True, slots=True)
class Manifest:
    """One architecture's image: its descriptor, and every blob below it by digest."""

    descriptor: Mapping[str, Any]
    blobs: Mapping[str, bytes]


def manifest(architecture: str, layers: Sequence[Layer], config: Mapping[str, Any], created: str) -> Manifest:
    """Put layers and a configuration together."""
    image = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": created,
            "config": config,
            "rootfs": {"type": "layers", "diff_ids": [part.diff_id for part in layers]},
        }
    )
    content = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor("config.v1+json", image),
            "layers": [_descriptor("layer.v1.tar+gzip", part.blob) for part in layers],
        }
    )
    descriptor = _descriptor("manifest.v1+json", content)
    descriptor["platform"] = {"architecture": architecture, "os": "linux"}
    blobs = {part.digest: part.blob for part in layers} | {sha256(image): image, sha256(content): content}
    return Manifest(descriptor, blobs)


def write(path: Path, name: str, manifests: Sequence[Manifest], epoch: int) -> str:
    """Write the archive of an image for all its architectures; returns the digest that names it.

    `name`: as pods name it, "orbweaver:0.2.0". The file appears whole or not at all.
    """
    index = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.index.v1+json",
            "manifests": [image_manifest.descriptor for image_manifest in manifests],
        }
    )
    top = _descriptor("index.v1+json", index)
    top["annotations"] = {
        "io.containerd.image.name": _qualified(name),
        "org.opencontainers.image.ref.name": name,
    }
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [top]}),
    }
    blobs = {sha256(index): index}
    for image_manifest in manifests:
        blobs |= image_manifest.blobs
    files |= {f"blobs/{digest.replace(':', '/')}": blob for digest, blob in blobs.items()}
    unfinished = path.with_suffix(".new")
    with tarfile.open(unfinished, "w") as archive:
        for file_name in sorted(files):
            member = tarfile.TarInfo(file_name)
            member.size, member.mtime, member.mode = len(files[file_name]), epoch, 0o644
            archive.addfile(member, io.BytesIO(files[file_name]))
    unfinished.replace(path)
    return sha256(index)


def _descriptor(kind: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": f"{_OCI}.{kind}", "digest": sha256(content), "size": len(content)}


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _qualified(name: str) -> str:
    """As containerd keeps it: a name without a registry is one of Docker's library."""
    first, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    return name if "." in first or ":" in first or first == "localhost" else f"docker.io/{name}"
