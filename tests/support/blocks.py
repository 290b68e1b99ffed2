"""What SpiderIPBlocks record, as tests compare it: each address with the fields of its record that are not empty."""

from __future__ import annotations

from collections.abc import Iterable

from actors.resources.addresses import format_address
from actors.resources.blocks.block import Block
from actors.store.contract import Object


def recorded(blocks: Iterable[Object]) -> dict[str, dict[str, str]]:
    """Of all blocks together. Raises `InvalidObject` for one that is damaged."""
    records = {}
    for obj in blocks:
        block = Block.from_object(obj)
        for value, record in block.records.items():
            records[format_address(block.family, value)] = record.to_json()
    return records
