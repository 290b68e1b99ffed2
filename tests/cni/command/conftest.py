"""A command line on a store of its own, and records as an agent would have written them."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from actors.resources.addresses import parse_address
from actors.resources.blocks.block import Block, base_of, block_name
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Record
from actors.store.sqlite.store import SQLiteStore
from cni.command.main import main


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """`orbweaver` in this process, on the real SQLite file at `data`."""

    def __init__(self, directory: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.directory = directory
        self.data = directory / "orbweaver.db"
        self._capture = capture

    def __call__(self, *arguments: str) -> Outcome:
        self._capture.readouterr()
        try:
            status = main([*arguments, "--data", str(self.data)])
        except SystemExit as exit_:
            status = int(exit_.code or 0)
        captured = self._capture.readouterr()
        return Outcome(status, captured.out, captured.err)

    def file(self, text: str, name: str = "objects.yaml") -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def apply(self, text: str) -> Outcome:
        return self("apply", "-f", self.file(text))

    def store(self) -> SQLiteStore:
        return SQLiteStore(self.data)

    def record(self, address: str, pool: str, pod: str = "default/web-a", **fields: Any) -> None:
        """Write a record into its block; without a container it is one that is kept."""
        family, value = parse_address(address)
        told = {"uid": "", "container": "c1", "interface": "eth0", "node": "n1", "owner": ""} | fields
        self._change(family, value).records[value] = Record(
            pool=pool, pod=pod, since="2025-01-31T12:00:00Z", **told
        )
        self._save()

    def released(self, address: str, at: float) -> None:
        family, value = parse_address(address)
        block = self._change(family, value)
        block.records.pop(value, None)
        block.released[value] = at
        self._save()

    def quarantine(self, address: str, why: str) -> None:
        """Set an address aside for an hour."""
        family, value = parse_address(address)
        block = self._change(family, value)
        block.released[value] = time.time()
        block.quarantines[value] = Quarantine(why, time.time() + 3600)
        self._save()

    def damage(self, name: str) -> None:
        """Make a block's records unreadable."""
        store = self.store()
        block = store.get("SpiderIPBlock", name)
        store.update({**block, "spec": {**block["spec"], "records": "{"}})
        store.close()

    def spoil(self, address: str) -> None:
        """Make what is recorded for one address a record that cannot be judged."""
        family, value = parse_address(address)
        store = self.store()
        found = store.get("SpiderIPBlock", block_name(family, value))
        head, *entries = found["spec"]["records"].split(" ")
        mark = f"{value - base_of(value)}:"
        spoiled = [entry.replace(":0:", ":99:", 1) if entry.startswith(mark) else entry for entry in entries]
        store.update({**found, "spec": {**found["spec"], "records": " ".join([head, *spoiled])}})
        store.close()

    def _change(self, family: int, value: int) -> Block:
        self._block = Block(family, base_of(value))
        store = self.store()
        for obj in store.list("SpiderIPBlock").items:
            if obj["metadata"]["name"] == self._block.name:
                self._block = Block.from_object(obj)
        store.close()
        return self._block

    def _save(self) -> None:
        store = self.store()
        (store.update if self._block.version else store.create)(self._block.to_object())
        store.close()


@pytest.fixture
def orbweaver(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    return CommandLine(tmp_path, capsys)


def pool(name: str, ips: str = "10.6.0.10-10.6.0.19", **spec: Any) -> str:
    fields = {"subnet": "10.6.0.0/16", "ips": [ips], **spec}
    return (
        "---\n"
        + json.dumps(
            {
                "apiVersion": "spiderpool.spidernet.io/v2beta1",
                "kind": "SpiderIPPool",
                "metadata": {"name": name},
                "spec": {key: value for key, value in fields.items() if value is not None},
            }
        )
        + "\n"
    )


@pytest.fixture
def make_pool() -> Any:
    return pool
