"""`helm` for commands of pages: the words of the real program, carried out by the real library.

$HELM_VALUES names a file of values that are laid over those of the command, and $KUBECONFIG the cluster.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import helm_python


def main() -> int:
    parser = argparse.ArgumentParser(prog="helm")
    parser.add_argument("operation", choices=["install", "upgrade", "test", "uninstall"])
    parser.add_argument("name")
    parser.add_argument("chart", nargs="?")
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--set", action="append", default=[])
    for flag in ("--install", "--create-namespace", "--wait", "--logs", "--reuse-values"):
        parser.add_argument(flag, action="store_true")
    options = parser.parse_args()
    config = helm_python.Config(kubeconfig_path=os.environ["KUBECONFIG"], namespace=options.namespace)
    try:
        match options.operation:
            case "test":
                print(config.test(options.name, logs=options.logs, timeout=600)["logs"])
            case "uninstall":
                config.uninstall(options.name)
            case _:
                values: dict[str, Any] = {}
                for setting in options.set:
                    put(values, *setting.split("=", 1))
                lay(values, json.loads(Path(os.environ["HELM_VALUES"]).read_text()))
                there = {release["name"] for release in config.list()}
                if options.name in there:
                    config.upgrade(
                        options.chart,
                        options.name,
                        values,
                        timeout=600,
                        wait="watcher",
                        reuse_values=options.reuse_values,
                    )
                else:
                    config.install(options.chart, options.name, values, timeout=600, wait="watcher")
    except helm_python.HelmError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def put(values: dict[str, Any], path: str, text: str) -> None:
    """One --set."""
    *above, last = path.split(".")
    for key in above:
        values = values.setdefault(key, {})
    listed = text.removeprefix("{").removesuffix("}").split(",")
    values[last] = {"true": True, "false": False}.get(text, listed if text.startswith("{") else text)


def lay(values: dict[str, Any], over: dict[str, Any]) -> None:
    """The second over the first."""
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            lay(values[key], value)
        else:
            values[key] = value


if __name__ == "__main__":
    sys.exit(main())
