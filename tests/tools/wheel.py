"""The wheel of the working tree: what it is made of, and where `./try` says it is."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.tools.gomodule import ROOT, ProgramMissing, cache, shared

# When one of these changes the wheel is built anew; pages are not in it.
SOURCES = ("actors", "cni", "metrics", "pyproject.toml", "hatch_build.py", "LICENSE")


def version() -> str:
    """The version of the working tree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def fingerprint(root: Path = ROOT) -> str:
    """A digest of everything that goes into the wheel of a working tree."""
    digest = hashlib.sha256()
    for name in SOURCES:
        top = root / name
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            inside = path.relative_to(root)
            made = "__pycache__" in inside.parts or inside.parts[:3] == ("cni", "shim", "bin")
            if made or path.suffix == ".md" or not path.is_file():
                continue
            digest.update(f"{inside}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def wheel() -> Path:
    """The wheel that `./try` built, in $ORBWEAVER_WHEEL; without that, one is built, by one process at a time. Raises
    ProgramMissing."""
    chosen = os.environ.get("ORBWEAVER_WHEEL")
    if chosen:
        return Path(chosen)
    directory = shared() / "image" / "wheels-of-clones" / fingerprint()
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _found_or_built(directory)


def _found_or_built(directory: Path) -> Path:
    if not any(directory.glob("*.whl")):
        zig = str(cache() / "zig")
        command = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "wheel",
            "--quiet",
            "--no-deps",
        ]
        done = subprocess.run(
            [*command, "--wheel-dir", str(directory), str(ROOT)],
            env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": zig, "ZIG_LOCAL_CACHE_DIR": zig},
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
        if done.returncode != 0:
            raise ProgramMissing(f"the wheel cannot be built: {done.stderr[-1000:]}")
    return next(directory.glob("*.whl"))
