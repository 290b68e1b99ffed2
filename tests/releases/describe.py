"""What a version says on the wire and how it reads and writes blocks and notes of networks, told by that version itself.

It runs with the packages of either version, so it uses nothing but what both have. Each line is a question, a list whose
first item is its name, and is answered by a line.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from actors.allocation.registration import SERVED
from actors.cluster.peer_rules import RULES
from actors.resources.blocks.block import Block
from actors.runtime import wire
from cni.networks.attachment_cache import AttachmentCache

MISSING = dataclasses.MISSING


def describe() -> dict[str, Any]:
    """Protocol versions, values, and the messages that agents send to the leader."""
    for name in ("agent", "controller"):  # so that all values are registered
        importlib.import_module(f"cni.process.{name}")
    return {
        "versions": [wire.LOWEST_VERSION, wire.HIGHEST_VERSION],
        "values": {name: _fields(shape.cls) for name, shape in wire._shapes.items()},
        "enums": {name: sorted(str(member.value) for member in cls) for name, cls in wire._enums.items()},
        "messages": {f"{kind}/{method}": _parameters(_message(kind, method)) for kind, method in RULES},
        "answers": {
            f"{kind}/{method}": str(inspect.signature(_message(kind, method)).return_annotation)
            for kind, method in RULES
        },
    }


def _message(kind: str, method: str) -> Any:
    served: Mapping[str, Any] = SERVED
    return served[kind].messages[method]


def _fields(cls: type) -> dict[str, dict[str, Any]]:
    return {
        field.name: {
            "type": str(field.type),
            "optional": field.default is not MISSING or field.default_factory is not MISSING,
        }
        for field in dataclasses.fields(cls)
        if field.init
    }


def _parameters(function: Any) -> list[dict[str, Any]]:
    return [
        {"type": str(parameter.annotation), "optional": parameter.default is not inspect.Parameter.empty}
        for parameter in list(inspect.signature(function).parameters.values())[1:]
    ]


def understood(obj: dict[str, Any]) -> dict[str, Any]:
    """What this version reads in a SpiderIPBlock, and the object that it writes of it."""
    block = Block.from_object(obj)
    return {
        "records": {str(value): record.to_json() for value, record in block.records.items()},
        "released": {str(value): moment for value, moment in block.released.items()},
        "suspect": {str(value): suspect.to_json() for value, suspect in block.suspect.items()},
        "quarantines": {str(value): one.to_json() for value, one in block.quarantines.items()},
        "unjudged": {str(value): one.entry for value, one in block.unjudged.items()},
        "object": block.to_object(),
    }


def noted(directory: str) -> list[str]:
    """The containers whose networks this version finds noted in a directory; it writes each note again."""
    cache = AttachmentCache(Path(directory))
    notes = sorted(cache.all(), key=lambda note: note.container)
    for note in notes:
        cache.write(note)
    return [note.container for note in notes]


QUESTIONS: dict[str, Callable[..., Any]] = {"describe": describe, "understood": understood, "noted": noted}

if __name__ == "__main__":
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        print(json.dumps(QUESTIONS[name](*arguments)), flush=True)
