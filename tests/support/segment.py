"""The wire as a list of addresses and who has them, for an agent whose pods have no network namespaces."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from actors.decisions.detection import Detection, Inquiry, ProbeResult
from actors.decisions.settings import Settings
from actors.errors import OrbweaverError
from actors.runtime import ObjectRef
from tests.support.rig import Rig, rig

MAC = "02:00:00:00:00:99"
ON = Settings(detection=Detection(conflicts=True))


class Segment:
    """Who has which address; `asked` is what was probed. `error` fails every inquiry."""

    def __init__(self, *used: str) -> None:
        self.used = set(used)
        self.dead: set[str] = set()
        self.asked: list[str] = []
        self.error: OrbweaverError | None = None

    def probe(self, inquiry: Inquiry, within: float | None = None) -> ObjectRef[tuple[ProbeResult, ...]]:
        ref: ObjectRef[tuple[ProbeResult, ...]] = ObjectRef()
        if self.error is not None:
            ref.fail(self.error)
            return ref
        self.asked += [probe.address for probe in inquiry.probes]
        results = []
        for probe in inquiry.probes:
            holder = MAC if probe.conflict and probe.address in self.used else ""
            results.append(ProbeResult(holder, silent=not holder and probe.gateway in self.dead))
        ref.complete(tuple(results))
        return ref


@contextmanager
def on(directory: Path, segment: Segment, *objects: dict[str, Any], **options: Any) -> Iterator[Rig]:
    with rig(directory, *objects, settings=options.pop("settings", ON), **options) as made_rig:
        real, made_rig.agent.prober = made_rig.agent.prober, segment  # type: ignore[assignment]
        try:
            yield made_rig
        finally:
            made_rig.agent.prober = real
