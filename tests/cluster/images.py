"""Container images made without an engine: one layer with a static busybox in it, as `docker save` would write them.

What must always hold: every image is of programs of this machine; nothing is fetched.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from pathlib import Path

PAUSE = "docker.io/orbweaver-tests/pause:1"
BUSYBOX = "docker.io/orbweaver-tests/busybox:1"
PUBLISHED = "docker.io/library/busybox:stable"
"""As manifests for everybody name it."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FOREVER = str(2**31 - 1)


def write_images(path: Path) -> None:
    """Write the images into one archive that `ctr images import` takes."""
    layer = _busybox_layer()
    digest = hashlib.sha256(layer).hexdigest()
    entries = []
    with tarfile.open(path, "w") as archive:
        _add(archive, f"{digest}.tar", layer)
        # The runtime ends a pod's pause container with SIGKILL, so one that sleeps will do.
        for name, command in (
            (PAUSE, ["/bin/sleep", _FOREVER]),
            (BUSYBOX, ["/bin/sh"]),
            (PUBLISHED, ["/bin/sh"]),
        ):
            config = json.dumps(
                {
                    "architecture": _ARCHITECTURES[platform.machine()],
                    "os": "linux",
                    "config": {"Cmd": command, "Env": ["PATH=/bin"]},
                    "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
                }
            ).encode()
            file = f"{hashlib.sha256(config).hexdigest()}.json"
            _add(archive, file, config)
            entries.append({"Config": file, "RepoTags": [name], "Layers": [f"{digest}.tar"]})
        _add(archive, "manifest.json", json.dumps(entries).encode())


def _busybox_layer() -> bytes:
    program = shutil.which("busybox")
    assert program is not None
    applets = subprocess.check_output([program, "--list"], text=True).split()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as layer:
        for folder in ("bin", "etc", "tmp", "proc", "sys", "dev", "root"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            layer.addfile(entry)
        _add(layer, "bin/busybox", Path(program).read_bytes(), 0o755)
        _add(layer, "etc/passwd", b"root:x:0:0:root:/:/bin/sh\n")
        for applet in applets:
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
                layer.addfile(entry)
    return data.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
