"""Who takes over a recorded address."""

from actors.decisions.inherit import keeping_owner, may_inherit, owning_statefulset, still_wanted
from actors.decisions.settings import Settings
from actors.resources.metadata import Owner
from actors.resources.pod import Pod
from actors.resources.record import Record
from actors.resources.statefulset import StatefulSet

WEB_0 = Pod("shop", "web-0", "u2", owner=Owner("apps/v1", "StatefulSet", "web", "s"))


def record(**fields: str) -> Record:
    known = {"pool": "p", "pod": "shop/web-0", "uid": "u1", "container": "c1", "interface": "eth0"}
    return Record(**{**known, "node": "n", "owner": "StatefulSet/web", "since": "t", **fields})


def test_a_statefulset_s_pod_inherits_from_its_earlier_incarnation():
    assert may_inherit(record(), WEB_0, Settings())


def test_not_when_statefulsets_are_switched_off():
    assert not may_inherit(record(), WEB_0, Settings(enable_statefulset=False))


def test_not_from_another_pod_of_the_statefulset():
    assert not may_inherit(record(pod="shop/web-1"), WEB_0, Settings())


def test_not_from_a_statefulset_of_another_name():
    assert not may_inherit(record(owner="StatefulSet/db"), WEB_0, Settings())


def test_any_pod_inherits_from_its_own_earlier_sandbox():
    assert may_inherit(record(uid="u7", owner="", pod="shop/x"), Pod("shop", "x", "u7"), Settings())
    assert not may_inherit(record(uid="u7", owner="", pod="shop/x"), Pod("shop", "x", "u8"), Settings())


def test_a_pod_without_uid_inherits_nothing():
    assert not may_inherit(record(uid="", owner="", pod="shop/x"), Pod("shop", "x"), Settings())


def test_the_owner_is_written_as_it_is_read():
    kept = record(owner=keeping_owner(WEB_0, Settings()))

    assert owning_statefulset(kept) == "web"
    assert owning_statefulset(record(owner="")) is None


def test_wanted_while_the_ordinal_is():
    web = StatefulSet("shop", "web", replicas=1)

    assert still_wanted(record(), web)
    assert not still_wanted(record(pod="shop/web-1"), web)
    assert not still_wanted(record(), None)
    assert not still_wanted(record(), StatefulSet("shop", "web", replicas=1, terminating=True))
