"""The one rule for an interface's name, and that those who read one apply it."""

from __future__ import annotations

import pytest

from actors.decisions.annotations import POD_DEFAULT_ROUTE_NIC, read_default_route_nic
from actors.errors import PodRefused
from actors.resources.interface_name import is_interface_name
from actors.resources.pod import Pod

GOOD = ["eth0", "a", "net-1.100", "fifteen-bytes-x", "näme", "@%!"]
BAD = [
    "", ".", "..", "sixteen-bytes-xx", "a/b", "a:b", "a b", "a\tb", "a\nb", "a\x00b", "a\x1b[1m", "a\x7f",
    "fünfzehn-bytes-x",  # 16 characters are fewer than its bytes
    "ääääääää",  # 8 characters, 16 bytes
    "a\u00a0b", "a\u2028b",
    "na\u00e0",  # its last byte is white space to the kernel
    "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_name_that_the_kernel_takes_is_let_through(name: str) -> None:
    assert is_interface_name(name)


@pytest.mark.parametrize("name", BAD, ids=ascii)
def test_what_the_kernel_refuses_or_nobody_could_read_is_refused(name: str) -> None:
    assert not is_interface_name(name)


@pytest.mark.parametrize("name", [*GOOD, *BAD], ids=ascii)
def test_an_annotation_accepts_what_an_add_accepts(name: str) -> None:
    if name.strip() != name or not name:
        pytest.skip("an annotation's blanks are trimmed, and empty means that there is none")
    pod = Pod("default", "web", annotations={POD_DEFAULT_ROUTE_NIC: name})
    if is_interface_name(name):
        assert read_default_route_nic(pod) == name
    else:
        with pytest.raises(PodRefused, match="is not the name of an interface"):
            read_default_route_nic(pod)
