"""What `kubectl apply -k deploy/` applies, with components."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools import kubernetes
from tests.tools.gomodule import ROOT, ProgramMissing


def kustomized(directory: Path, *components: str) -> list[dict[str, Any]]:
    """Its objects; `directory` is where a copy is made. Skips without kubectl."""
    try:
        kubectl = kubernetes.kubectl()
    except ProgramMissing as missing:
        pytest.skip(str(missing))
    ignored = shutil.ignore_patterns("chart", "image")
    copy = shutil.copytree(ROOT / "deploy", directory / "deploy", ignore=ignored)
    with (copy / "kustomization.yaml").open("a") as file:
        file.write(f"components: [{', '.join(components)}]\n")
    done = subprocess.run([kubectl, "kustomize", str(copy)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(done.stdout))
