"""What an automatic pool is called and what stands on it: golden, because people select by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.decisions.auto_pool import (
    FULL_NAME,
    NAME,
    Size,
    belongs,
    owner_of,
    pool_affinity,
    pool_annotations,
    pool_labels,
    pool_names,
)
from actors.resources.application import Application
from actors.resources.names import is_label_value, is_subdomain, label_value

WEB = Application("apps", "v1", "Deployment", "shop", "Test-App", "0f5ab5d8-9ac4-4b3e-8bf1-b1a361c7e9df")
LONG = Application("apps", "v1", "StatefulSet", "shop", "a" * 200 + ".b", "b1a361c7e9df")


def test_the_name_is_spiderpool_s() -> None:
    names = list(pool_names(4, WEB, "eth0", "floor-1"))

    assert names[:2] == ["auto4-test-app-eth0-b1a36", "auto4-test-app-eth0-b1a361c7e9df"]
    assert len(set(names)) == 3


def test_labels_annotations_and_affinity_are_spiderpool_s() -> None:
    assert dict(pool_labels(WEB, "eth0", reclaim=False)) == {
        "ipam.spidernet.io/owner-application-gv": "apps_v1",
        "ipam.spidernet.io/owner-application-kind": "Deployment",
        "ipam.spidernet.io/owner-application-namespace": "shop",
        "ipam.spidernet.io/owner-application-name": "Test-App",
        "ipam.spidernet.io/owner-application-uid": "0f5ab5d8-9ac4-4b3e-8bf1-b1a361c7e9df",
        "ipam.spidernet.io/interface": "eth0",
        "ipam.spidernet.io/ippool-reclaim": "false",
    }
    assert pool_annotations(WEB, Size(1, True)) == (("ipam.spidernet.io/ippool-ip-number", "+1"),)
    assert pool_annotations(WEB, Size(5, False)) == (("ipam.spidernet.io/ippool-ip-number", "5"),)
    assert pool_affinity(WEB) == (
        ("ipam.spidernet.io/app-api-group", "apps"),
        ("ipam.spidernet.io/app-api-version", "v1"),
        ("ipam.spidernet.io/app-kind", "Deployment"),
        ("ipam.spidernet.io/app-namespace", "shop"),
        ("ipam.spidernet.io/app-name", "Test-App"),
    )


@pytest.mark.parametrize(
    ("size", "replicas", "wanted"),
    [(Size(1, True), 2, 3), (Size(0, True), 2, 2), (Size(5, False), 2, 5), (Size(0, False), 2, 0)],
)
def test_how_many_addresses(size: Size, replicas: int, wanted: int) -> None:
    assert size.wanted(replicas) == wanted


def test_a_name_of_more_than_63_characters_has_its_beginning_and_a_digest_in_the_label() -> None:
    labels = dict(pool_labels(LONG, "eth0", reclaim=True))
    beside = dict(pool_annotations(LONG, Size(1, True)))
    other = Application("apps", "v1", "StatefulSet", "shop", "a" * 200 + ".c", "b1a361c7e9df")

    assert len(labels[NAME]) == 63
    assert labels[NAME].startswith("a" * 50)
    assert labels[NAME] != dict(pool_labels(other, "eth0", reclaim=True))[NAME]
    assert beside[FULL_NAME] == LONG.name
    assert owner_of(labels, beside[FULL_NAME]) == LONG
    assert owner_of(labels, other.name) is None
    assert FULL_NAME not in dict(pool_annotations(WEB, Size(1, True)))
    assert owner_of(dict(pool_labels(WEB, "eth0", reclaim=True))) == WEB


def test_whose_pool_it_is() -> None:
    mine = dict(pool_labels(WEB, "eth0", reclaim=False))
    again = Application("apps", "v1", "Deployment", "shop", "Test-App", "another-uid")

    assert belongs(mine, WEB)
    assert belongs(mine, again), "made again, it takes over what was kept"
    assert belongs(mine, WEB, "eth0")
    assert not belongs(mine, WEB, "net1")
    for other in (
        Application("apps", "v1", "StatefulSet", "shop", "Test-App", WEB.uid),
        Application("apps.kruise.io", "v1", "Deployment", "shop", "Test-App", "x"),
        Application("apps", "v1", "Deployment", "other", "Test-App", WEB.uid),
        Application("apps", "v1", "Deployment", "shop", "test-app", WEB.uid),
    ):
        assert not belongs(mine, other), other
    newer = Application("apps", "v2", "Deployment", "shop", "Test-App", WEB.uid)
    assert belongs(mine, newer), "the API's version is not the application"


texts = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/%"), min_size=1, max_size=253
)


@given(texts, texts, st.sampled_from(["eth0", "NET_1", "-x.", "a" * 15, "..a"]))
def test_whatever_it_is_called_names_and_labels_are_valid_and_its_own(
    one: str, two: str, interface: str
) -> None:
    first, second = (
        Application("apps", "v1", "Deployment", "shop", name, "0-abcdef012345") for name in (one, two)
    )

    for name in pool_names(6, first, interface, "floor"):
        assert is_subdomain(name), name
    *_, last = pool_names(6, first, interface, "floor")
    *_, other = pool_names(6, second, interface, "floor")
    assert (last == other) == (one == two)
    assert is_label_value(label_value(one))
    assert (label_value(one) == label_value(two)) == (one == two)
