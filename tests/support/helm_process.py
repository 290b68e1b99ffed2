"""The real Helm library in a process of its own, which answers a line of JSON with a line of JSON.

It is a Go program in a shared library: in the tests' own process it would add threads that no fork expects.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import helm_python


def answer(operation: str, arguments: dict[str, Any]) -> Any:
    """Carry out one operation of the library."""
    chart = arguments.pop("chart", None)
    if operation == "render":
        return helm_python.Chart.load(chart).render(**arguments)
    if operation == "lint":
        return helm_python.lint(chart, strict=True)
    config = helm_python.Config(
        kubeconfig_path=arguments.pop("kubeconfig"), namespace=arguments.pop("namespace")
    )
    name = arguments.pop("name")
    if operation in {"install", "upgrade"}:
        return getattr(config, operation)(chart, name, **arguments)
    return getattr(config, operation)(name, **arguments)


def main() -> None:
    # The library writes to the standard output now and then; the answers have a descriptor of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            said = {"result": answer(request["operation"], request["arguments"])}
        except helm_python.HelmError as error:
            said = {"refused": str(error)}
        answers.write(json.dumps(said) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
