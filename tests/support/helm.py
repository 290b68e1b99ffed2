"""Helm for tests: the real library, asked through a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from tests.tools.gomodule import ROOT

CHART = ROOT / "deploy" / "chart"
NAMESPACE = "orbweaver-system"


class Refused(Exception):
    """Helm would not; the text is what it said."""


class Helm:
    """`prefix`: a command that starts it elsewhere, such as in another network namespace."""

    def __init__(self, prefix: Sequence[str] = (), log: Path | None = None) -> None:
        command = [*prefix, sys.executable, "-P", str(Path(__file__).with_name("helm_process.py"))]
        self._log = (log or Path("/dev/null")).open("ab")
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()
        self._log.close()

    def ask(self, operation: str, **arguments: Any) -> Any:
        """What the library answers. Raises Refused."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"operation": operation, "arguments": arguments}) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        if "refused" in said:
            raise Refused(said["refused"])
        return said["result"]

    def texts(self, values: dict[str, Any] | None = None, namespace: str = NAMESPACE) -> dict[str, str]:
        """Each template's rendering. Raises Refused."""
        rendered: dict[str, str] = self.ask(
            "render", chart=str(CHART), values=values or {}, name="orbweaver", namespace=namespace
        )
        return {path.partition("/templates/")[2]: text for path, text in rendered.items()}

    def objects(
        self, values: dict[str, Any] | None = None, namespace: str = NAMESPACE
    ) -> list[dict[str, Any]]:
        """All objects of a rendering but the hooks. Raises Refused."""
        return [
            obj
            for path, text in self.texts(values, namespace).items()
            if path.endswith(".yaml")
            for obj in yaml.safe_load_all(text)
            if obj and "helm.sh/hook" not in obj["metadata"].get("annotations", {})
        ]
