"""Who takes over a recorded address."""

from typing import Any

from actors.decisions.inherit import Inheritance, inherit, may_inherit, owning_statefulset, still_wanted
from actors.decisions.plan import Slot
from actors.decisions.settings import Settings
from actors.resources.addresses import parse_address
from actors.resources.blocks.record import Record
from actors.resources.ippool import IPPool
from actors.resources.metadata import Owner
from actors.resources.pod import Pod
from actors.resources.statefulset import StatefulSet

WEB_0 = Pod("shop", "web-0", "u2", owner=Owner("apps/v1", "StatefulSet", "web", "s"))


def record(**fields: Any) -> Record:
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
    kept = record(owner=WEB_0.controller)

    assert owning_statefulset(kept) == "web"
    assert owning_statefulset(record(owner="")) is None
    assert owning_statefulset(record(owner="StatefulSet.apps.kruise.io/web")) is None
    assert owning_statefulset(record(owner="StatefulSet/x/web")) is None, "such a kind was forged"
    assert owning_statefulset(record(owner="StatefulSet/")) is None


def test_wanted_while_the_ordinal_is():
    web = StatefulSet("shop", "web", replicas=1)

    assert still_wanted(record(), web, Settings())
    assert not still_wanted(record(pod="shop/web-1"), web, Settings())
    assert not still_wanted(record(), None, Settings())
    assert not still_wanted(record(), web, Settings(enable_statefulset=False))
    assert not still_wanted(record(), StatefulSet("shop", "web", replicas=1, terminating=True), Settings())


def test_a_scaled_down_ordinal_is_wanted_where_the_settings_say_so():
    web = StatefulSet("shop", "web", replicas=1)
    keeping = Settings(keep_scaled_down=True)

    assert still_wanted(record(pod="shop/web-7"), web, keeping)
    assert not still_wanted(record(pod="shop/web-x"), web, keeping)
    assert not still_wanted(record(pod="shop/web-7"), None, keeping)


# -- which pool gives the address again ----------------------------------------------------------------------


def pools(**ranges: str) -> dict[str, IPPool]:
    """Pools by name; a name that ends with `_off` is disabled."""
    return {
        name: IPPool.from_object(
            {
                "kind": "SpiderIPPool",
                "metadata": {"name": name},
                "spec": {"subnet": "10.6.0.0/16", "ips": [text], "disable": name.endswith("_off")},
            }
        )
        for name, text in ranges.items()
    }


def slot(*candidates: str, disabled: tuple[str, ...] = (), exact: int | None = None) -> Slot:
    return Slot("eth0", 4, "a test", candidates, exact=exact, disabled=disabled)


ADDRESS = parse_address("10.6.0.9")[1]
KEPT = record(uid="", container="", pool="old")


def decide(of: Slot, known: dict[str, IPPool], *recorded: Record, pod: Pod = WEB_0) -> Inheritance:
    return inherit(of, [(ADDRESS + at, one) for at, one in enumerate(recorded)], pod, "c9", known, Settings())


def test_a_renamed_pool_gives_the_address_again():
    found = decide(slot("new"), pools(new="10.6.0.1-10.6.0.20"), KEPT)

    assert found == Inheritance((ADDRESS, KEPT), False, ("new",))


def test_of_a_split_pool_the_part_that_has_the_address():
    known = pools(low="10.6.0.1-10.6.0.8", high="10.6.0.9-10.6.0.20")

    assert decide(slot("low", "high"), known, KEPT).pools == ("high",)


def test_the_pool_that_it_came_from_goes_first():
    known = pools(wide="10.6.0.1-10.6.0.20", old="10.6.0.1-10.6.0.20")

    assert decide(slot("wide", "old"), known, KEPT).pools == ("old", "wide")


def test_a_disabled_pool_leaves_a_pod_what_it_has():
    known = pools(old_off="10.6.0.1-10.6.0.20", other="10.6.1.1-10.6.1.20")

    assert decide(slot("other", disabled=("old_off",)), known, KEPT).pools == ("old_off",)


def test_an_address_that_no_pool_of_the_slot_has_goes_back():
    found = decide(slot("other"), pools(other="10.6.1.1-10.6.1.20", old="10.6.0.1-10.6.0.20"), KEPT)

    assert found == Inheritance(given_back=((ADDRESS, KEPT),))


def test_another_address_that_is_asked_for_sends_the_kept_one_back():
    found = decide(slot("old", exact=ADDRESS + 5), pools(old="10.6.0.1-10.6.0.20"), KEPT)

    assert found == Inheritance(given_back=((ADDRESS, KEPT),))


def test_a_repeated_add_confirms_what_is_recorded():
    mine = record(container="c9")

    assert decide(slot(), {}, mine) == Inheritance((ADDRESS, mine), True, ("p",))


# -- virtual machines ----------------------------------------------------------------------------------------

SOURCE = Pod(
    "shop", "virt-launcher-vm-a", "u1", owner=Owner("kubevirt.io/v1", "VirtualMachineInstance", "vm", "v")
)
TARGET = Pod(
    "shop", "virt-launcher-vm-b", "u2", owner=Owner("kubevirt.io/v1", "VirtualMachineInstance", "vm", "v")
)
RUNNING = record(pod="shop/virt-launcher-vm-a", machine="vm", owner=SOURCE.controller)


def test_the_pod_that_a_machine_moves_to_takes_up_its_address():
    found = decide(slot("old"), pools(old="10.6.0.1-10.6.0.20"), RUNNING, pod=TARGET)

    assert found == Inheritance((ADDRESS, RUNNING), False, ("old",))


def test_what_a_machine_uses_where_it_comes_from_is_not_given_back_for_it():
    found = decide(slot("other"), pools(other="10.6.1.1-10.6.1.20"), RUNNING, pod=TARGET)

    assert found == Inheritance()


def test_what_a_machine_uses_goes_before_what_is_kept_for_it():
    kept = RUNNING.retained()
    known = pools(old="10.6.0.1-10.6.0.20")

    found = decide(slot("old"), known, kept, RUNNING, pod=TARGET)

    assert found == Inheritance((ADDRESS + 1, RUNNING), False, ("old",), ((ADDRESS, kept),))


def test_no_machine_inherits_from_a_pod_of_its_name_or_from_another_machine():
    known = pools(old="10.6.0.1-10.6.0.20")
    other = record(pod="shop/virt-launcher-x", machine="x", owner="VirtualMachineInstance.kubevirt.io/x")

    assert decide(slot("old"), known, record(pod="shop/vm", owner=""), other, pod=TARGET) == Inheritance()


def test_without_the_switch_a_machine_is_a_pod_like_any_other():
    assert not may_inherit(RUNNING, TARGET, Settings(enable_kubevirt=False))
