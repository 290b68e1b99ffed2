"""The store on a real API server, under the contract, and what is its own."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from actors.errors import Conflict, InvalidObject, NotFound, StoreUnavailable
from actors.store.caches.informer import Informer
from actors.store.kubernetes.access import Access, TokenFile, access_to
from actors.store.kubernetes.store import KubernetesStore
from actors.store.lifecycle import MAX_OBJECT_BYTES, encoded
from tests.actors.store.contract_suite import (
    Follower,
    StoreContract,
    endpoint,
    follow,
    fresh,
    pool,
    with_meta,
)
from tests.support.cable import Cable
from tests.support.dripping import Dripping
from tests.support.proxy import Fault, FaultProxy, How, once, wait_until
from tests.tools.apiserver import ADMIN_TOKEN, ApiServer

__all__ = ["follow"]

GROUP = "spiderpool.spidernet.io"
UNHEEDED = 9.0
"""Seconds: who gives up before that has heeded its timeout, and did not take the ten seconds that are usual."""


@pytest.fixture
def store(api_server: ApiServer) -> Iterator[KubernetesStore]:
    opened = KubernetesStore(api_server.access())
    yield opened
    opened.close()


class TestContract(StoreContract):
    pass


@pytest.fixture
def proxy(api_server: ApiServer) -> Iterator[FaultProxy]:
    opened = FaultProxy(api_server)
    yield opened
    opened.close()


@pytest.fixture
def faulty(proxy: FaultProxy) -> Iterator[KubernetesStore]:
    """A store whose requests go through the proxy."""
    opened = KubernetesStore(proxy.access())
    yield opened
    opened.close()


class TestContractThroughProxy(StoreContract):
    """The proxy without faults changes nothing, so what fails below fails for its faults."""

    @pytest.fixture
    def store(self, faulty: KubernetesStore) -> KubernetesStore:
        return faulty


# -- connections --------------------------------------------------------------------------------------------


def test_a_connection_is_used_again(api_server: ApiServer) -> None:
    with Cable(api_server.port) as listener:
        store = KubernetesStore(api_server.access(port=listener.port))
        for _ in range(20):
            store.list("SpiderIPPool")

        assert listener.accepted == 1
        store.close()


def test_at_most_so_many_connections_and_the_rest_waits(proxy: FaultProxy) -> None:
    store = KubernetesStore(proxy.access(), connections=2)
    proxy.plan = lambda _: Fault(How.DELAY, seconds=0.2)
    threads = [threading.Thread(target=store.list, args=("Node",), daemon=True) for _ in range(6)]
    began = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert time.monotonic() - began >= 0.6
    with pytest.raises(StoreUnavailable) as caught:
        busy(store, proxy, threads=2).list("Node", timeout=0.2)
    assert "connections were busy" in str(caught.value)
    store.close()


def busy(store: KubernetesStore, proxy: FaultProxy, threads: int) -> KubernetesStore:
    """The store, with that many requests under way."""
    before = len(proxy.requests)
    proxy.plan = lambda _: Fault(How.HANG)

    def ask() -> None:
        with contextlib.suppress(StoreUnavailable):  # the test closes the store while they are under way
            store.list("Node")

    for _ in range(threads):
        threading.Thread(target=ask, daemon=True).start()
    wait_until(lambda: len(proxy.requests) >= before + threads)
    return store


@pytest.mark.parametrize("verb", ["create", "update", "delete", "get"])
def test_a_connection_that_was_closed_while_idle_costs_nothing(
    proxy: FaultProxy, faulty: KubernetesStore, verb: str
) -> None:
    made = faulty.create(pool(fresh("idle")))
    name = made["metadata"]["name"]
    proxy.cut_idle()
    # The FIN has arrived: what comes in the same instant is a lost reply, and told as one.
    wait_until(lambda: all(connection.stale for connection in faulty._client._idle))

    match verb:
        case "create":
            assert faulty.create(pool(fresh("idle")))
        case "update":
            assert faulty.update(with_meta(made, labels={"a": "b"}))
        case "delete":
            faulty.delete("SpiderIPPool", name)
        case "get":
            assert faulty.get("SpiderIPPool", name)["metadata"]["uid"] == made["metadata"]["uid"]


@pytest.fixture
def opened() -> Iterator[Callable[[Access], KubernetesStore]]:
    """Opens stores that are closed after the test."""
    stores: list[KubernetesStore] = []

    def open_one(access: Access) -> KubernetesStore:
        stores.append(KubernetesStore(access))
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def test_nobody_there_is_not_written(opened: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        store = opened(access_to(f"http://127.0.0.1:{taken.getsockname()[1]}"))
        with pytest.raises(StoreUnavailable, match="refused") as caught:
            store.create(pool(fresh("nobody")))

    assert not caught.value.maybe_written


def test_a_peer_that_accepts_and_never_answers_is_given_up_in_time(opened: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        store = opened(access_to(url, verify=False))
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            store.create(pool(fresh("silent")), timeout=0.5)

    assert not caught.value.maybe_written  # not even TLS was agreed on
    assert 0.4 < time.monotonic() - began < UNHEEDED


def test_a_peer_that_answers_a_byte_at_a_time_is_given_up_in_time(opened: Any) -> None:
    with Dripping() as dripping:
        store = opened(access_to(f"http://127.0.0.1:{dripping.port}"))
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer in time") as caught:
            store.create(pool(fresh("drip")), timeout=2.0)  # time enough to ask

    assert caught.value.maybe_written
    assert 0.4 < time.monotonic() - began < UNHEEDED


def test_something_else_at_that_address_is_said(opened: Any) -> None:
    with Dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", pause=0) as other:
        store = opened(access_to(f"http://127.0.0.1:{other.port}"))
        with pytest.raises(StoreUnavailable, match="something else"):
            store.get("SpiderIPPool", "a")


def test_a_certificate_of_somebody_else_is_refused(api_server: ApiServer, tmp_path: Path) -> None:
    store = KubernetesStore(access_to(api_server.url))

    with pytest.raises(StoreUnavailable, match="CERTIFICATE_VERIFY_FAILED") as caught:
        store.list("SpiderIPPool")

    assert not caught.value.maybe_written


# -- lost replies and busy servers --------------------------------------------------------------------------


def write(store: KubernetesStore, verb: str, made: dict[str, Any], timeout: float = 10.0) -> None:
    name = made["metadata"]["name"]
    match verb:
        case "create":
            store.create(pool(f"{name}-new"), timeout=timeout)
        case "update":
            store.update(with_meta(made, labels={"a": "b"}), timeout=timeout)
        case "update_status":
            store.update_status({**made, "status": {"totalIPCount": 7}}, timeout=timeout)
        case "delete":
            store.delete("SpiderIPPool", name, uid=made["metadata"]["uid"], timeout=timeout)


def took_place(store: KubernetesStore, verb: str, made: dict[str, Any]) -> bool:
    name = made["metadata"]["name"]
    names = [one["metadata"]["name"] for one in store.list("SpiderIPPool").items]
    match verb:
        case "create":
            return f"{name}-new" in names
        case "update":
            return "labels" in store.get("SpiderIPPool", name)["metadata"]
        case "update_status":
            return "status" in store.get("SpiderIPPool", name)
        case _:
            return name not in names


METHODS = {"create": "POST", "update": "PUT", "update_status": "PUT", "delete": "DELETE"}


@pytest.mark.parametrize("verb", METHODS)
@pytest.mark.parametrize(
    "how, code, maybe, written",
    [
        (How.CUT_BEFORE, 0, True, False),
        (How.CUT_AFTER, 0, True, True),
        (How.ANSWER, 500, True, False),
        (How.ANSWER_AFTER, 500, True, True),
        (How.ANSWER_AFTER, 504, True, True),
        (How.ANSWER, 503, True, False),
        (How.ANSWER, 429, False, False),
    ],
    ids=lambda value: value.name if isinstance(value, How) else str(value),
)
def test_a_write_that_fails_says_whether_it_may_have_taken_place(
    proxy: FaultProxy,
    faulty: KubernetesStore,
    store: KubernetesStore,
    verb: str,
    how: How,
    code: int,
    maybe: bool,
    written: bool,
) -> None:
    made = store.create(pool(fresh("lost")))
    faulty.list("Node")  # so that the connection is one that was used before
    proxy.plan = once(how, METHODS[verb], code=code, reason="Test")
    before = len(proxy.requests)

    with pytest.raises(StoreUnavailable) as caught:
        write(faulty, verb, made)

    assert caught.value.maybe_written is maybe
    assert took_place(store, verb, made) is written
    assert len(proxy.requests) == before + 1  # a write is never sent twice


@pytest.mark.parametrize("verb", METHODS)
def test_a_write_that_gets_no_answer_in_time_may_have_taken_place(
    proxy: FaultProxy, faulty: KubernetesStore, store: KubernetesStore, verb: str
) -> None:
    made = store.create(pool(fresh("slow")))
    proxy.plan = once(How.DELAY, METHODS[verb], seconds=60)

    with pytest.raises(StoreUnavailable, match="no answer in time") as caught:
        write(faulty, verb, made, timeout=2.0)  # time enough to ask

    assert caught.value.maybe_written
    assert not took_place(store, verb, made)
    proxy.pass_on()
    wait_until(lambda: took_place(store, verb, made))


def test_a_conflict_from_the_server_is_a_conflict(proxy: FaultProxy, faulty: KubernetesStore) -> None:
    made = faulty.create(pool(fresh("conflict")))
    proxy.plan = once(How.ANSWER, "PUT", code=409, reason="Conflict")

    with pytest.raises(Conflict, match=made["metadata"]["name"]):
        faulty.update(with_meta(made, labels={"a": "b"}))


def test_a_read_is_asked_again_on_another_connection(proxy: FaultProxy, faulty: KubernetesStore) -> None:
    made = faulty.create(pool(fresh("again")))
    proxy.plan = once(How.CUT_BEFORE, "GET")

    assert faulty.get("SpiderIPPool", made["metadata"]["name"]) == made


def test_a_read_waits_as_long_as_the_busy_server_asks(proxy: FaultProxy, faulty: KubernetesStore) -> None:
    made = faulty.create(pool(fresh("busy")))
    proxy.plan = once(How.ANSWER, "GET", code=429, reason="TooManyRequests", retry_after=1)
    began = time.monotonic()

    assert faulty.get("SpiderIPPool", made["metadata"]["name"]) == made
    assert time.monotonic() - began >= 1.0


def test_a_read_does_not_wait_past_its_time(proxy: FaultProxy, faulty: KubernetesStore) -> None:
    proxy.plan = lambda _: Fault(How.ANSWER, code=429, reason="TooManyRequests", retry_after=200)
    began = time.monotonic()

    with pytest.raises(StoreUnavailable, match="too much to do"):
        faulty.list("SpiderIPPool", timeout=100)
    assert time.monotonic() - began < 50, "it knew at once that its time would not do"


# -- lists and watches --------------------------------------------------------------------------------------


def test_a_list_in_pages_is_whole_and_of_one_moment(api_server: ApiServer, store: KubernetesStore) -> None:
    namespace = "kube-public"
    names = {store.create(endpoint(fresh("page"), namespace))["metadata"]["name"] for _ in range(25)}
    paged = KubernetesStore(api_server.access(), page=7)

    def nothing_written() -> bool:
        """The API server writes something of its own now and then, which is a version more."""
        listing = paged.list("SpiderEndpoint", namespace)
        assert names <= {item["metadata"]["name"] for item in listing.items}
        return listing.version == store.list("SpiderEndpoint", namespace).version

    wait_until(nothing_written)
    paged.close()


def test_built_in_kinds_are_listed_with_their_kind(store: KubernetesStore) -> None:
    found = store.list("Namespace").items

    assert {"default", "kube-system"} <= {item["metadata"]["name"] for item in found}
    assert {(item["apiVersion"], item["kind"]) for item in found} == {("v1", "Namespace")}
    assert not any("managedFields" in item["metadata"] for item in found)


def pod(name: str, node: str) -> dict[str, Any]:
    spec = {"nodeName": node, "containers": [{"name": "c", "image": "none"}]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def test_a_selector_restricts_lists_and_watches_but_not_get(api_server: ApiServer) -> None:
    store = KubernetesStore(api_server.access(), selectors={"Pod": "spec.nodeName=here"})
    informer = Informer(store, "Pod", transform=lambda obj: obj["metadata"]["name"])
    informer.start()
    assert informer.wait_synced(60)
    names = {node: fresh("pod") for node in ("here", "there")}
    for node, name in names.items():
        store.create(pod(name, node))

    wait_until(lambda: names["here"] in informer.items())
    assert names["there"] not in informer.items()
    assert names["there"] not in [item["metadata"]["name"] for item in store.list("Pod").items]
    assert store.get("Pod", names["there"], "default")["spec"]["nodeName"] == "there"
    informer.stop()
    store.close()


def test_a_watch_goes_on_when_the_server_ends_it_in_good_order(api_server: ApiServer) -> None:
    store = KubernetesStore(api_server.access(), watch_lasting=2)
    follower = Follower(store, "SpiderIPPool", store.list("SpiderIPPool").version)
    names = []
    deadline = time.monotonic() + 5.5
    while time.monotonic() < deadline:
        names.append(store.create(pool(fresh("long")))["metadata"]["name"])
        time.sleep(0.1)

    follower.until(lambda: len(follower.of(*names)) >= len(names))
    assert [event.object["metadata"]["name"] for event in follower.of(*names)] == names
    follower.watch.close()
    assert follower.ended()
    store.close()


def test_a_watch_that_is_cut_says_so_and_goes_on_from_its_version(
    proxy: FaultProxy, faulty: KubernetesStore
) -> None:
    informer = Informer(faulty, "SpiderIPPool", transform=lambda obj: obj["metadata"]["name"])
    told: list[str] = []
    informer.subscribe(lambda key: told.append(key.name))
    informer.start()
    assert informer.wait_synced(60)
    names = []
    for _ in range(5):
        names.append(faulty.create(pool(fresh("cut")))["metadata"]["name"])
        wait_until(lambda: proxy.cut_watches() > 0)

    wait_until(lambda: set(names) <= set(informer.items()))
    lists = [one for one in proxy.requests if one.method == "GET" and "limit=" in one.path]
    assert [name for name in told if name in names] == names
    assert len(lists) == 1  # it went on by watching, not by listing anew
    informer.stop()


def test_a_silent_server_is_noticed(api_server: ApiServer) -> None:
    store = KubernetesStore(api_server.access(), silence=1.0)
    version = store.list("SpiderIPPool").version
    follower = Follower(store, "SpiderIPPool", version)

    assert follower.ended()
    assert isinstance(follower.error, StoreUnavailable)
    store.close()


def test_close_ends_running_watches(api_server: ApiServer) -> None:
    store = KubernetesStore(api_server.access())
    follower = Follower(store, "SpiderIPPool", store.list("SpiderIPPool").version)
    store.create(pool(fresh("close")))
    follower.until(lambda: bool(follower.events))

    store.close()

    assert follower.ended()
    with pytest.raises(StoreUnavailable, match="closed"):
        store.get("SpiderIPPool", "a")


# -- rights and resources -----------------------------------------------------------------------------------

READ_POOLS = {
    "apiGroups": ["spiderpool.spidernet.io"],
    "resources": ["spiderippools"],
    "verbs": ["get", "list"],
}


def test_a_user_without_rights_is_told_the_rule_that_is_missing(api_server: ApiServer) -> None:
    name = fresh("limited")
    store = KubernetesStore(api_server.access(api_server.service_account(name, READ_POOLS)))

    store.list("SpiderIPPool")
    with pytest.raises(StoreUnavailable) as caught:
        store.create(pool(fresh("refused")))
    assert f"user system:serviceaccount:default:{name} may not create spiderippools" in str(caught.value)
    assert '"apiGroups": ["spiderpool.spidernet.io"]' in str(caught.value)
    assert '"verbs": ["create"]' in str(caught.value)
    assert not caught.value.maybe_written
    with pytest.raises(StoreUnavailable, match="may not list pods"):
        store.list("Pod")
    with pytest.raises(StoreUnavailable, match="may not watch spiderippools"):
        list(store.watch("SpiderIPPool", "0"))
    with pytest.raises(StoreUnavailable, match="may not get pods in namespace default"):
        store.get("Pod", "a", "default")
    store.close()


def test_a_token_that_is_not_valid_is_said(api_server: ApiServer) -> None:
    store = KubernetesStore(api_server.access("nobody's"))

    with pytest.raises(StoreUnavailable, match="does not accept our token") as caught:
        store.list("SpiderIPPool")
    assert "nobody's" not in str(caught.value)
    store.close()


def test_a_token_that_was_replaced_is_read_again(api_server: ApiServer, tmp_path: Path) -> None:
    """The file held an expired token; the refusal makes the store read it again, and nothing fails."""
    file = tmp_path / "token"
    file.write_text("expired")
    access = replace(api_server.access(), authorize=TokenFile(file))
    store = KubernetesStore(access)
    with pytest.raises(StoreUnavailable):
        store.list("Node")
    file.write_text(f"{ADMIN_TOKEN}\n")

    assert store.create(pool(fresh("renewed")))
    store.close()


def test_a_kind_whose_crd_is_missing_is_not_an_object_that_is_missing(bare_api_server: ApiServer) -> None:
    other = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/spiderendpoints.{GROUP}"
    definition = bare_api_server.call("GET", other)
    store = KubernetesStore(bare_api_server.access())
    bare_api_server.call("DELETE", other)
    try:
        wait_until(lambda: bare_api_server.ask("GET", other)[0] == 404)
        wait_until(lambda: bare_api_server.ask("GET", f"/apis/{GROUP}/v2beta1/spiderendpoints")[0] == 404)
        for attempt in (
            lambda: store.get("SpiderEndpoint", "a", "default"),
            lambda: store.list("SpiderEndpoint"),
            lambda: store.create(endpoint(fresh("none"), "default")),
            lambda: list(store.watch("SpiderEndpoint", "1")),
        ):
            with pytest.raises(StoreUnavailable, match=r"no resource spiderendpoints.*deploy/crds") as caught:
                attempt()
            assert not caught.value.maybe_written
    finally:
        definition["metadata"] = {"name": definition["metadata"]["name"]}
        bare_api_server.apply({key: definition[key] for key in ("apiVersion", "kind", "metadata", "spec")})
        store.close()


def test_an_object_in_a_namespace_that_does_not_exist_is_refused_by_name(store: KubernetesStore) -> None:
    with pytest.raises(NotFound, match='namespaces "nowhere"'):
        store.create(endpoint(fresh("a"), "nowhere"))


def test_a_field_that_the_crd_does_not_have_is_refused_not_dropped(store: KubernetesStore) -> None:
    made = store.create(pool(fresh("strict")))

    with pytest.raises(InvalidObject, match=r"status\.newer"):
        store.update_status({**made, "status": {"newer": "x"}})


def test_an_object_of_megabytes_is_refused_with_its_size(store: KubernetesStore) -> None:
    made = store.create(pool(fresh("large")))
    room = MAX_OBJECT_BYTES - len(encoded({**made, "status": {"allocatedIPs": ""}}))

    with pytest.raises(InvalidObject, match="large"):  # the server adds fields of its own
        store.update_status({**made, "status": {"allocatedIPs": "x" * room}})
    with pytest.raises(InvalidObject, match="1572864 bytes"):
        store.update_status({**made, "status": {"allocatedIPs": "x" * 1_600_000}})
    half = store.update_status({**made, "status": {"allocatedIPs": "x" * 1_000_000}})
    assert len(store.get("SpiderIPPool", half["metadata"]["name"])["status"]["allocatedIPs"]) == 1_000_000


# -- the API server goes and comes back ---------------------------------------------------------------------


def wait_for_more(growing: list[str], many: int) -> None:
    enough = len(growing) + many
    wait_until(lambda: len(growing) >= enough)


def test_nothing_is_lost_when_the_api_server_is_killed_and_restarted(api_server: ApiServer) -> None:
    """Every acknowledged write is there, and one that failed either took place or is said to be uncertain."""
    store = KubernetesStore(api_server.access())
    informer = Informer(store, "SpiderIPPool", transform=lambda obj: obj["metadata"]["name"])
    informer.start()
    assert informer.wait_synced(60)
    acknowledged: list[str] = []
    certainly_not: list[str] = []
    going = threading.Event()

    def create() -> None:
        while not going.is_set():
            name = fresh("killed")
            try:
                store.create(pool(name), timeout=2)
                acknowledged.append(name)
            except StoreUnavailable as error:
                if not error.maybe_written:
                    certainly_not.append(name)
                going.wait(0.01)

    threads = [threading.Thread(target=create, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2):
            wait_for_more(acknowledged, 30)
            api_server.kill()
            wait_for_more(certainly_not, 5)
            api_server.start()
    finally:
        going.set()
        for thread in threads:
            thread.join()
        api_server.start()

    there = {item["metadata"]["name"] for item in store.list("SpiderIPPool").items}
    assert set(acknowledged) <= there
    assert not there & set(certainly_not)
    wait_until(lambda: set(informer.items()) == there)
    informer.stop()
    store.close()


def test_a_server_that_stands_still_costs_no_more_than_the_timeout(api_server: ApiServer) -> None:
    store = KubernetesStore(api_server.access())
    made = store.create(pool(fresh("still")))
    api_server.pause()
    try:
        began = time.monotonic()
        with pytest.raises(StoreUnavailable) as caught:
            store.update(with_meta(made, labels={"a": "b"}), timeout=2.0)  # time enough to ask
        assert time.monotonic() - began < UNHEEDED
        assert caught.value.maybe_written
    finally:
        api_server.resume()
    assert store.get("SpiderIPPool", made["metadata"]["name"])["metadata"]["uid"] == made["metadata"]["uid"]
    store.close()
