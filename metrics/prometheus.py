"""Prometheus metrics of one process. Where Spiderpool has a metric of the same meaning, it has the same name here.

What must always hold: label values come from small fixed sets (operation, stage, reason class, actor kind) or are
pool names; never a pod, a container or an address.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from metrics.distribution import Distribution

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)
_INTERNAL = ("OrbweaverError", "PeerLost", "ProtocolError")


@dataclass(frozen=True, slots=True)
class PoolUsage:
    """One pool at the moment of a scrape: addresses it may give out, those recorded, and those in blocks that cannot be
    read."""

    pool: str
    total: int
    used: int
    lost: int = 0


class SubnetNumbers(Protocol):
    """One subnet at the moment of a scrape: addresses that pools can be made of and those that they have, how many pools, and
    whether one of them needs more than is left."""

    @property
    def subnet(self) -> str: ...

    @property
    def total(self) -> int: ...

    @property
    def allocated(self) -> int: ...

    @property
    def pools(self) -> int: ...

    @property
    def exhausted(self) -> bool: ...


class Metrics:
    """Implements the observers of allocations and of the runtime; `expose` answers a scrape."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._stage = _Histogram(
            "orbweaver_stage_duration_seconds",
            "Time from the arrival of a request to the end of a stage: queued, decided, committed, probed, total (release: "
            "queued, total)",
            ["operation", "stage"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._requests = Counter(
            "orbweaver_requests",
            "Requests answered, by result and reason",
            ["operation", "result", "reason"],
            registry=registry,
        )
        self._batch = _Histogram(
            "orbweaver_commit_batch_size",
            "Claims and releases that one block write carried",
            buckets=_BATCH,
            registry=registry,
        )
        self._commit = _Histogram(
            "orbweaver_commit_duration_seconds",
            "Time of one block write",
            buckets=_SECONDS,
            registry=registry,
        )
        self._awaited = _Histogram(
            "orbweaver_allocation_wait_seconds",
            "Time that an ADD waited for an address on its way back, by what came of it: granted, refused, withdrawn, failed",
            ["outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._reclaimed = Counter(
            "orbweaver_reclaimed", "Addresses taken back without a DEL", ["reason"], registry=registry
        )
        self._collected = Counter(
            "spiderpool_ip_gc_counts", "Addresses taken back without a DEL", registry=registry
        )
        self._not_collected = Counter(
            "spiderpool_ip_gc_failure_counts",
            "Addresses that could not be taken back and will be tried again",
            registry=registry,
        )
        self._waited = _Histogram(
            "orbweaver_mailbox_wait_seconds",
            "Time of a message in the mailbox",
            ["actor"],
            buckets=_SECONDS,
            registry=registry,
        )
        self._actor_events = Counter(
            "orbweaver_actor_events",
            "Messages dropped after their deadline, refused by a full mailbox or repeated after two crashes; crashes, "
            "activations, passivations",
            ["actor", "event"],
            registry=registry,
        )
        # Few labels there are, and the library checks them each time.
        self._answered = functools.cache(self._requests.labels)
        self._events = functools.cache(self._actor_events.labels)
        self._spiderpool = {
            operation: _SpiderpoolNames(operation, registry) for operation in ("allocation", "release")
        }

    def tell_version(self, version: str) -> None:
        """Report which version this process is."""
        info = Gauge(
            "orbweaver_build_info", "The version of this process", ["version"], registry=self._registry
        )
        info.labels(version).set(1)

    def watch_mailboxes(self, depths: Callable[[], dict[str, int]]) -> None:
        """Report the depth of mailboxes, summed by kind of actor, at each scrape."""
        self._registry.register(_Gauges(lambda: [_depths(depths())]))

    def watch_pools(self, usage: Callable[[], Iterable[PoolUsage]]) -> None:
        """Report every pool's addresses at each scrape."""
        self._registry.register(_Gauges(lambda: _pools(list(usage()))))

    def watch_subnets(self, usage: Callable[[], Iterable[SubnetNumbers]]) -> None:
        """Report every subnet's addresses at each scrape."""
        self._registry.register(_Gauges(lambda: _subnets(list(usage()))))

    def watch_flag(self, name: str, about: str, read: Callable[[], bool]) -> None:
        """Report a gauge that is 1 or 0 at each scrape."""
        self._registry.register(_Gauges(lambda: [GaugeMetricFamily(name, about, value=read())]))

    def expose(self, *, open_metrics: bool = False) -> tuple[bytes, str]:
        """The body and content type of a scrape, as Prometheus' text or in the format OpenMetrics."""
        encoder, content_type = choose_encoder("application/openmetrics-text" if open_metrics else "")
        return encoder(self._registry), content_type

    # AllocationObserver

    def stage(self, operation: str, stage: str, seconds: float) -> None:
        self._stage.of(operation, stage).observe(seconds)
        if stage == "total" and operation in self._spiderpool:
            self._spiderpool[operation].duration.of().observe(seconds)

    def finished(self, operation: str, result: str, reason: str) -> None:
        self._answered(operation, result, reason).inc()
        if operation in self._spiderpool:
            self._spiderpool[operation].finished(reason)

    def committed(self, batch: int, seconds: float) -> None:
        self._batch.of().observe(batch)
        self._commit.of().observe(seconds)

    def conflicted(self, operation: str) -> None:
        self._spiderpool[operation].conflicts.inc()

    def waited(self, outcome: str, seconds: float) -> None:
        self._awaited.of(outcome).observe(seconds)

    def reclaimed(self, reason: str) -> None:
        self._reclaimed.labels(reason).inc()
        self._collected.inc()

    def reclaim_failed(self) -> None:
        self._not_collected.inc()

    # RuntimeObserver

    def handled(self, kind: str, method: str, waited: float, took: float, depth: int) -> None:
        self._waited.of(kind).observe(waited)
        operation = {"add": "allocation", "release": "release"}.get(method)
        if kind == "endpoint" and operation is not None:
            self._stage.of(operation, "queued").observe(waited)
            self._spiderpool[operation].queued.of().observe(waited)

    def dropped(self, kind: str, method: str) -> None:
        self._events(kind, "dropped").inc()

    def overloaded(self, kind: str, method: str) -> None:
        self._events(kind, "overloaded").inc()

    def crashed(self, kind: str, error: BaseException) -> None:
        self._events(kind, "crashed").inc()

    def repeated(self, kind: str, method: str) -> None:
        self._events(kind, "repeated").inc()

    def activated(self, kind: str, took: float) -> None:
        self._events(kind, "activated").inc()

    def passivated(self, kind: str) -> None:
        self._events(kind, "passivated").inc()


class _SpiderpoolNames:
    """The metrics that Spiderpool's dashboards read; `limit` is its word for the time in the queue."""

    def __init__(self, operation: str, registry: CollectorRegistry) -> None:
        name = f"spiderpool_ipam_{operation}"
        self.received = Counter(f"{name}_counts", f"{operation.title()} requests", registry=registry)
        self.failed = Counter(
            f"{name}_failure_counts", f"{operation.title()} requests that failed", registry=registry
        )
        self.internal = Counter(
            f"{name}_err_internal_counts", "Failures for internal reasons", registry=registry
        )
        self.duration = _Histogram(
            f"{name}_duration_seconds", f"Time of a whole {operation}", buckets=_SECONDS, registry=registry
        )
        self.queued = _Histogram(
            f"{name}_limit_duration_seconds",
            f"Time of a {operation} in the queue",
            buckets=_SECONDS,
            registry=registry,
        )
        self.conflicts = Counter(
            f"{name}_update_ippool_conflict_counts",
            "Writes of a block that lost their compare-and-swap and were made again",
            registry=registry,
        )
        self.no_pool: Counter | None = None
        self.used_out: Counter | None = None
        if operation == "allocation":
            self.no_pool = Counter(
                f"{name}_err_no_available_pool_counts",
                "Failures because no pool may serve the pod, or the one address asked for",
                registry=registry,
            )
            self.used_out = Counter(
                f"{name}_err_ip_used_out_counts",
                "Failures because the pools that may serve the pod have no address left",
                registry=registry,
            )

    def finished(self, reason: str) -> None:
        """Count one request; `reason` is the error's class, empty for success."""
        self.received.inc()
        if reason:
            self.failed.inc()
        if reason in _INTERNAL:
            self.internal.inc()
        if reason in ("NoAddress", "AddressTaken") and self.no_pool is not None:
            self.no_pool.inc()
        if reason == "PoolsExhausted" and self.used_out is not None:
            self.used_out.inc()


class _Histogram(Collector):
    """Distributions by labels, of which there are few. One without labels is there from the beginning."""

    def __init__(
        self,
        name: str,
        about: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name = name
        self._about = about
        self._labels = labels
        self._buckets = buckets
        self._distributions: dict[tuple[str, ...], Distribution] = {}
        self.of: Callable[..., Distribution] = functools.cache(self._distribution)
        """The one of these values of the labels, of each message of each actor: the cache costs no call of ours."""
        if not labels:
            self.of()
        registry.register(self)

    def _distribution(self, *values: str) -> Distribution:
        return self._distributions.setdefault(values, Distribution(self._buckets))

    def describe(self) -> Iterable[Metric]:
        return (self._family(),)

    def collect(self) -> Iterator[Metric]:
        family = self._family()
        for values, distribution in sorted(self._distributions.copy().items()):
            counted = distribution.counted()
            buckets = [
                ("+Inf" if bound == float("inf") else str(float(bound)), count)
                for bound, count in counted.up_to
            ]
            family.add_metric(values, buckets, counted.total)
        yield family

    def _family(self) -> HistogramMetricFamily:
        return HistogramMetricFamily(self._name, self._about, labels=self._labels)


class _Gauges(Collector):
    """Gauges whose values are read when they are scraped."""

    def __init__(self, read: Callable[[], Iterable[Metric]]) -> None:
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return ()  # nothing is read before the first scrape

    def collect(self) -> Iterator[Metric]:
        yield from self._read()


def _depths(depths: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(
        "orbweaver_mailbox_depth", "Messages waiting, by kind of actor", labels=["actor"]
    )
    for kind, depth in sorted(depths.items()):
        family.add_metric([kind], depth)
    return family


def _pools(usage: list[PoolUsage]) -> list[GaugeMetricFamily]:
    count = GaugeMetricFamily("spiderpool_total_ippool_counts", "SpiderIPPools", value=len(usage))
    total = GaugeMetricFamily(
        "spiderpool_debug_ippool_total_ip_counts", "Addresses that a pool may give out", labels=["ippool"]
    )
    free = GaugeMetricFamily(
        "spiderpool_debug_ippool_available_ip_counts",
        "Addresses of a pool that are neither in use nor in a damaged block",
        labels=["ippool"],
    )
    used = GaugeMetricFamily(
        "orbweaver_ippool_used_ip_counts", "Addresses recorded out of a pool", labels=["ippool"]
    )
    for pool_usage in usage:
        total.add_metric([pool_usage.pool], pool_usage.total)
        free.add_metric([pool_usage.pool], max(0, pool_usage.total - pool_usage.used - pool_usage.lost))
        used.add_metric([pool_usage.pool], pool_usage.used)
    return [count, total, free, used]


def _subnets(usage: list[SubnetNumbers]) -> list[GaugeMetricFamily]:
    count = GaugeMetricFamily("spiderpool_total_subnet_counts", "SpiderSubnets", value=len(usage))
    pools, total, left, exhausted = (
        GaugeMetricFamily(name, about, labels=["SpiderSubnet"])
        for name, about in (
            ("spiderpool_debug_subnet_ippool_counts", "Pools of a subnet"),
            ("spiderpool_debug_subnet_total_ip_counts", "Addresses that a subnet's pools can be made of"),
            ("spiderpool_debug_subnet_available_ip_counts", "Addresses of a subnet that no pool has"),
            ("orbweaver_subnet_exhausted", "Whether a pool needs more addresses than its subnet has left"),
        )
    )
    for subnet in usage:
        pools.add_metric([subnet.subnet], subnet.pools)
        total.add_metric([subnet.subnet], subnet.total)
        left.add_metric([subnet.subnet], max(0, subnet.total - subnet.allocated))
        exhausted.add_metric([subnet.subnet], subnet.exhausted)
    return [count, pools, total, left, exhausted]
