"""What is known of a subnet's addresses is the same whether it was told change by change or all at once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.allocation.messages import AddressChange
from actors.resources.blocks.quarantine import Quarantine
from actors.resources.blocks.record import Record
from actors.resources.intervals import IntervalSet
from actors.subnets.use_index import UseIndex

NOW = 100.0


def record(pool: str) -> Record:
    return Record(pool, "shop/web-0", "u", "c", "eth0", "n1", "", "2025-01-31T12:00:00Z")


CHANGES = st.builds(
    lambda value, what: {
        "none": AddressChange(value, None),
        "released": AddressChange(value, None, 5.0),
        "aside": AddressChange(value, None, 6.0, Quarantine("conflict", 200.0)),
        "aside no more": AddressChange(value, None, 6.0, Quarantine("conflict", 50.0)),
        "unjudged": AddressChange(value, None, unjudged="bad"),
        "blue": AddressChange(value, record("blue")),
        "red": AddressChange(value, record("red")),
    }[what],
    st.integers(0, 8),
    st.sampled_from(["none", "released", "aside", "aside no more", "unjudged", "blue", "red"]),
)


@given(st.lists(CHANGES, max_size=40))
def test_change_by_change_is_as_all_at_once(changes: list[AddressChange]) -> None:
    one, last = UseIndex(), {change.value: change for change in changes}
    for change in changes:
        one.learn([change], whole=False)
    anew = UseIndex()
    anew.learn([AddressChange(3, record("old"))], whole=False)
    anew.learn(last.values(), whole=True)

    assert one.at(NOW) == anew.at(NOW)
    free = {value for value, change in last.items() if change.is_free}
    aside = {value for value in free if (why := last[value].quarantine) is not None and why.holds(NOW)}
    used = (last.keys() - free) | aside
    assert one.at(NOW).known.used == IntervalSet((value, value) for value in used)
    assert one.at(NOW).of("blue") == IntervalSet(
        (value, value)
        for value, change in last.items()
        if change.record is not None and change.record.pool == "blue"
    )
