"""What the blocks in the store record, for commands that ask without an agent.

What must always hold: a block that cannot be read is named, never passed over: whoever decides on what is
recorded has to know that something is missing.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass

from actors.errors import InvalidObject
from actors.resources.blocks.allocation import Allocation
from actors.resources.blocks.block import Block
from actors.store.contract import Store


@dataclass(frozen=True, slots=True)
class BlockInventory:
    """All blocks at one moment; `damaged` says of those that cannot be read why, by name."""

    blocks: tuple[Block, ...]
    damaged: dict[str, str]

    @classmethod
    def read(cls, store: Store) -> BlockInventory:
        """Raises `StoreUnavailable`."""
        blocks: list[Block] = []
        damaged: dict[str, str] = {}
        for obj in store.list("SpiderIPBlock").items:
            try:
                blocks.append(Block.from_object(obj))
            except InvalidObject as error:
                damaged[obj["metadata"]["name"]] = str(error)
        return cls(tuple(blocks), damaged)

    def held(self) -> Iterator[Allocation]:
        """Every record, in order of the blocks' names."""
        for block in self.blocks:
            for value in sorted(block.records):
                yield Allocation(block.family, value, block.records[value])

    def of_pool(self, pool: str) -> tuple[Allocation, ...]:
        """What is recorded out of a pool."""
        return tuple(held for held in self.held() if held.record.pool == pool)

    def of_pod(self, pod: str) -> tuple[Allocation, ...]:
        """What is recorded for `namespace/name`."""
        return self.of_pods({pod})

    def of_pods(self, names: Container[str]) -> tuple[Allocation, ...]:
        """What is recorded for pods or virtual machines of these names, `namespace/name`."""
        return tuple(
            held
            for held in self.held()
            if held.record.holder in names or any(pod in names for pod in held.record.pods)
        )
