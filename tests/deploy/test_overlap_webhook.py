"""A real API server asks the controllers' webhook before it stores a pool: of many alike one is stored."""

from __future__ import annotations

import base64
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors.cluster.leadership import Leadership
from actors.cluster.lease import Timing
from actors.errors import InvalidObject
from actors.store.kubernetes.store import KubernetesStore
from cni.admission.webhook import ANSWER_TIMEOUT, PATH, WebhookOptions
from cni.process.controller import Controller
from tests.support.checker import eventually
from tests.support.cluster import ClusterStore
from tests.support.leaders import in_process
from tests.support.rig import pool
from tests.support.webhook_authority import NAME, WebhookAuthority, webhook_authority
from tests.tools.apiserver import ApiServer, free_ports

CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


@pytest.fixture
def authority(tmp_path: Path) -> WebhookAuthority:
    return webhook_authority(tmp_path, "127.0.0.1", "127.0.0.2")


@contextmanager
def controllers(
    store: KubernetesStore, authority: WebhookAuthority, *hosts: str
) -> Iterator[tuple[int, list[Controller]]]:
    """A controller on each address, the first of them the leader; the port of their webhooks."""
    (port,) = free_ports(1)
    with ExitStack() as stack:
        running = []
        for host in hosts:
            webhook = WebhookOptions(lambda: authority.server, lambda: authority.client, NAME, host, port)
            leadership = Leadership(timing=Timing(retry=0.3), port=0)
            options = replace(in_process(webhook=webhook), address=host, listen=host, leadership=leadership)
            made = Controller(store, options)
            stack.callback(made.stop)
            made.start()
            running.append(made)
            eventually(partial(_leads, running[0]))
        yield port, running


def _leads(controller: Controller) -> None:
    assert controller.leads()


@contextmanager
def configured(api_server: ApiServer, authority: WebhookAuthority, host: str, port: int) -> Iterator[None]:
    """The API server asks the webhook from here on, with no more power over writes than it has in earnest."""
    rule = {
        "apiGroups": ["spiderpool.spidernet.io"],
        "apiVersions": ["v2beta1"],
        "operations": ["CREATE", "UPDATE"],
        "resources": ["spiderippools", "spidersubnets"],
    }
    webhook = {
        "name": "overlaps.orbweaver.io",
        "admissionReviewVersions": ["v1"],
        "sideEffects": "NoneOnDryRun",
        "failurePolicy": "Ignore",
        "timeoutSeconds": 2,
        "rules": [rule],
        "clientConfig": {
            "url": f"https://{host}:{port}{PATH}",
            "caBundle": base64.b64encode(authority.bundle.encode()).decode(),
        },
    }
    api_server.call("POST", CONFIGURATIONS, {"metadata": {"name": "orbweaver"}, "webhooks": [webhook]})
    try:
        yield
    finally:
        api_server.call("DELETE", f"{CONFIGURATIONS}/orbweaver")


def dry_run(api_server: ApiServer, obj: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    code, answer = api_server.ask("POST", f"/apis/{obj['apiVersion']}/spiderippools?dryRun=All", obj)
    return code, answer


def await_webhook(api_server: ApiServer, store: KubernetesStore) -> None:
    """API servers take up to a second to notice a webhook."""
    store.create(pool("sign", "10.99.0.0/16", "10.99.0.1"))

    def refused() -> None:
        code, answer = dry_run(api_server, pool("sign-2", "10.99.0.0/16", "10.99.0.1"))
        assert code == 422, answer
        assert "overlaps with SpiderIPPool sign in 10.99.0.1" in answer["message"]

    eventually(refused)


def created(store: KubernetesStore, obj: dict[str, Any]) -> str:
    try:
        store.create(obj, timeout=30)
    except InvalidObject as error:
        return error.message
    return ""


def test_of_a_hundred_pools_alike_at_once_one_is_stored(
    api_server: ApiServer, store: ClusterStore, authority: WebhookAuthority
) -> None:
    with (
        controllers(store, authority, "127.0.0.1") as (port, _),
        configured(api_server, authority, "127.0.0.1", port),
    ):
        await_webhook(api_server, store)
        for attempt in range(10):
            subnet = f"10.{attempt}.0"
            said, slowest = _at_once(api_server, [pool(f"alike-{attempt}-{number:02}", f"{subnet}.0/16",
                                                       f"{subnet}.50-{subnet}.79") for number in range(100)])  # fmt: skip
            if (
                slowest < ANSWER_TIMEOUT
            ):  # else the machine stood still, and what is not judged in time is let in
                break
        stored = [one["metadata"]["name"] for one in store.list("SpiderIPPool").items]
        (winner,) = [name for name in stored if name.startswith(f"alike-{attempt}-")]
        assert said.pop(winner) == ""
        assert all(
            f"overlaps with SpiderIPPool {winner} in {subnet}.50-{subnet}.79" in why for why in said.values()
        )
        assert len(said) == 99
        # Edits that add nothing of others are let in, and what overlaps nothing.
        found = store.get("SpiderIPPool", winner)
        store.update({**found, "spec": {**found["spec"], "disable": True}})
        assert created(store, pool("apart", f"{subnet}.0/16", f"{subnet}.80")) == ""


def _at_once(api_server: ApiServer, pools: list[dict[str, Any]]) -> tuple[dict[str, str], float]:
    """What each was answered, by name, and how long the slowest answer took."""
    clients = [KubernetesStore(api_server.access()) for _ in range(20)]

    def make(number: int) -> tuple[str, float]:
        began = time.monotonic()
        return created(clients[number % len(clients)], pools[number]), time.monotonic() - began

    with ThreadPoolExecutor(len(clients)) as executor:
        answers = list(executor.map(make, range(len(pools))))
    for client in clients:
        client.close()
    names = [one["metadata"]["name"] for one in pools]
    return {name: why for name, (why, _) in zip(names, answers, strict=True)}, max(
        took for _, took in answers
    )


def test_a_controller_that_stands_by_asks_the_leader(
    api_server: ApiServer, store: ClusterStore, authority: WebhookAuthority
) -> None:
    with (
        controllers(store, authority, "127.0.0.1", "127.0.0.2") as (port, (_, standby)),
        configured(api_server, authority, "127.0.0.2", port),
    ):
        await_webhook(api_server, store)
        assert created(store, pool("one", "10.6.0.0/16", "10.6.0.1")) == ""
        numbers = itertools.count()

        def refused() -> None:  # unless the machine stood still: what is not judged in time is let in
            assert "overlaps with" in created(store, pool(f"two-{next(numbers)}", "10.6.0.0/16", "10.6.0.1"))

        eventually(refused)
        assert not standby.leads()


def test_without_a_leader_a_pool_is_let_in_and_the_overlap_is_told(
    api_server: ApiServer, store: ClusterStore, authority: WebhookAuthority
) -> None:
    with controllers(store, authority, "127.0.0.1") as (port, (leader,)):
        with configured(api_server, authority, "127.0.0.1", port):
            await_webhook(api_server, store)
            leader._caught_up = False
            assert created(store, pool("one", "10.6.0.0/16", "10.6.0.1")) == ""
            assert created(store, pool("two", "10.6.0.0/16", "10.6.0.1")) == ""
            leader._caught_up = True

        def told() -> None:
            assert store.get("SpiderIPPool", "two").get("status", {}).get("overlaps") == ["one"]

        eventually(told)
    with configured(api_server, authority, "127.0.0.1", port):  # where nobody listens any more
        assert created(store, pool("three", "10.6.0.0/16", "10.6.0.1")) == ""
