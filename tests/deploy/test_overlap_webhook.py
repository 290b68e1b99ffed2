"""A real API server asks the controllers' webhook before it stores a pool: of many alike one is stored."""

from __future__ import annotations

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
import yaml

from actors.cluster.leadership import Leadership
from actors.cluster.lease import Timing
from actors.errors import InvalidObject
from actors.store.kubernetes.store import KubernetesStore
from cni.admission.webhook import ANSWER_TIMEOUT, PATH
from cni.process.controller import Controller
from tests.support.checker import eventually
from tests.support.cluster import ClusterStore
from tests.support.leaders import in_process
from tests.support.rig import pool
from tests.support.subnet_rig import subnet
from tests.tools.apiserver import ApiServer, free_ports

WEBHOOK = Path(__file__).resolve().parents[2] / "deploy" / "webhook" / "webhook.yaml"
CONFIGURATIONS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"


@contextmanager
def controllers(store: KubernetesStore, *hosts: str, **more: Any) -> Iterator[tuple[int, list[Controller]]]:
    """A controller on each address, the first of them the leader; the port of their webhooks."""
    (port,) = free_ports(1)
    with ExitStack() as stack:
        running = []
        for host in hosts:
            leadership = Leadership(timing=Timing(retry=0.3), port=0)
            usual = in_process(webhook_port=port, **more)
            made = Controller(store, replace(usual, address=host, listen=host, leadership=leadership))
            stack.callback(made.stop)
            made.start()
            running.append(made)
            eventually(partial(_leads, running[0]))
        yield port, running


def _leads(controller: Controller) -> None:
    assert controller.leads()


def configuration(client: dict[str, Any]) -> dict[str, Any]:
    """That of deploy/, which leads elsewhere."""
    kind = "ValidatingWebhookConfiguration"
    (found,) = [obj for obj in yaml.safe_load_all(WEBHOOK.read_text()) if obj["kind"] == kind]
    (webhook,) = found["webhooks"]
    return {**found, "webhooks": [{**webhook, "clientConfig": client}]}


@contextmanager
def configured(api_server: ApiServer, host: str, port: int, leader: Controller) -> Iterator[None]:
    """The API server asks the webhook from here on, by the configuration of deploy/; its certificates do not name a Service,
    as there is none here."""
    api_server.call("POST", CONFIGURATIONS, configuration({"url": f"https://{host}:{port}{PATH}"}))
    assert leader.webhook_certificates is not None
    leader.webhook_certificates.wake()  # else it finds it within a minute
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


@pytest.mark.parametrize("kind", ["SpiderIPPool", "SpiderSubnet"])
def test_of_a_hundred_alike_at_once_one_is_stored(
    api_server: ApiServer, store: ClusterStore, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    make = pool if kind == "SpiderIPPool" else subnet_alike
    with (
        controllers(store, "127.0.0.1") as (port, (leader,)),
        configured(api_server, "127.0.0.1", port, leader),
    ):
        await_webhook(api_server, store)
        # What is not judged in time is let in. Where the machine stood still, fewer come at once.
        for attempt, count in enumerate((100, 100, 50, 50, 20, 20, 10, 10, 5, 5)):
            prefix = f"10.{attempt}.0"
            caplog.clear()
            said, slowest = _at_once(
                api_server,
                [
                    make(f"alike-{attempt}-{number:02}", f"{prefix}.0/16", f"{prefix}.50-{prefix}.79")
                    for number in range(count)
                ],
            )
            if slowest < ANSWER_TIMEOUT and "an object was let in unjudged" not in caplog.messages:
                break
        else:
            pytest.skip("the machine is too slow for five questions at once")
        stored = [one["metadata"]["name"] for one in store.list(kind).items]
        (winner,) = [name for name in stored if name.startswith(f"alike-{attempt}-")]
        assert said.pop(winner) == ""
        assert all(
            f"overlaps with {kind} {winner} in {prefix}.50-{prefix}.79" in why for why in said.values()
        )
        assert len(said) == count - 1
        # Edits that add nothing of others are let in, and what overlaps nothing.

        def edited() -> None:  # by the leader, too
            found = store.get(kind, winner)
            store.update({**found, "spec": {**found["spec"], "excludeIPs": [f"{prefix}.79"]}})

        eventually(edited)
        assert created(store, make("apart", f"{prefix}.0/16", f"{prefix}.80")) == ""


def subnet_alike(name: str, cidr: str, *ips: str) -> dict[str, Any]:
    return subnet(name, *ips, cidr=cidr)


def test_a_pool_outside_its_subnet_is_refused_by_the_api_server(
    api_server: ApiServer, store: ClusterStore
) -> None:
    with (
        controllers(store, "127.0.0.1") as (port, (leader,)),
        configured(api_server, "127.0.0.1", port, leader),
    ):
        await_webhook(api_server, store)
        assert created(store, subnet("rack", "10.6.0.1-10.6.0.9")) == ""
        numbers = itertools.count()

        def refused() -> None:
            name = f"beyond-{next(numbers)}"
            said = created(store, pool(name, "10.6.0.0/16", "10.6.0.10"))
            if (
                not said
            ):  # the machine stood still: what is not judged in time is let in, and the next would overlap
                store.delete("SpiderIPPool", name)
            assert (
                "spec.ips has 10.6.0.10, which SpiderSubnet rack of the same CIDR 10.6.0.0/16 does not have"
                in said
            )

        eventually(refused)
        assert created(store, pool("inside", "10.6.0.0/16", "10.6.0.9")) == ""


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


def test_a_controller_that_stands_by_asks_the_leader(api_server: ApiServer, store: ClusterStore) -> None:
    with (
        controllers(store, "127.0.0.1", "127.0.0.2") as (port, (leader, standby)),
        configured(api_server, "127.0.0.2", port, leader),
    ):
        await_webhook(api_server, store)
        assert created(store, pool("one", "10.6.0.0/16", "10.6.0.1")) == ""
        numbers = itertools.count()

        def refused() -> None:  # unless the machine stood still: what is not judged in time is let in
            assert "overlaps with" in created(store, pool(f"two-{next(numbers)}", "10.6.0.0/16", "10.6.0.1"))

        eventually(refused)
        assert not standby.leads()


def test_without_a_leader_a_pool_is_let_in_and_the_overlap_is_told(
    api_server: ApiServer, store: ClusterStore
) -> None:
    with controllers(store, "127.0.0.1") as (port, (leader,)):
        with configured(api_server, "127.0.0.1", port, leader):
            await_webhook(api_server, store)
            leader._caught_up = False
            assert created(store, pool("one", "10.6.0.0/16", "10.6.0.1")) == ""
            assert created(store, pool("two", "10.6.0.0/16", "10.6.0.1")) == ""
            leader._caught_up = True

        def told() -> None:
            assert store.get("SpiderIPPool", "two").get("status", {}).get("overlaps") == ["one"]

        eventually(told)
    with configured(api_server, "127.0.0.1", port, leader):  # where nobody listens any more
        assert created(store, pool("three", "10.6.0.0/16", "10.6.0.1")) == ""
