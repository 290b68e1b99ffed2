"""The inputs that fuzzing begins with: files under `corpus/<target>/`, each one text in UTF-8 (half a surrogate pair as it
stands). What is found to be answered in a new way is added there by `run.py`."""

from __future__ import annotations

import hashlib
from pathlib import Path

ROOT = Path(__file__).parent / "corpus"


def corpus_of(target: str, root: Path = ROOT) -> list[str]:
    """The texts of a target, in the order of their files' names."""
    files = sorted((root / target).iterdir())
    return [file.read_bytes().decode(errors="surrogatepass") for file in files]


def add(target: str, text: str, root: Path = ROOT, *, kind: str = "found") -> Path:
    """Keep a text."""
    data = text.encode(errors="surrogatepass")
    path = root / target / f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path
