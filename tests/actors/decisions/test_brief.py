"""What a CNI error and an Event say of a refusal: never too much, and never without the pod and the remedy."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from actors.decisions.brief import LIMIT, Reason, brief, in_brief, told
from actors.decisions.filters import Refusal
from actors.errors import AddressTaken, NoAddress, OrbweaverError, PodRefused, PoolUsedUp, from_wire

REMEDY = "Add addresses to spec.ips of one of these pools, or name another pool."
LONG = f"no pool can give pod {'n' * 63}/{'p' * 253} an address"


def used_up(
    pool: str, in_use: int = 60, reserved: int = 3, quarantined: int = 1, unusable: int = 0
) -> PoolUsedUp:
    error = PoolUsedUp(f"pool {pool} has no free address", details=("10.6.0.1 is set aside: 02:..:99",) * 8)
    error.pool, error.in_use, error.reserved = pool, in_use, reserved
    error.quarantined, error.unusable = quarantined, unusable
    return error


def reasons(*pools: str) -> tuple[Reason, ...]:
    return tuple(Reason.of_error(used_up(pool)) for pool in pools)


def test_a_pool_without_addresses_is_told_by_its_counts():
    text = brief("no pool can give pod prod/web an address", [("eth0 IPv4", reasons("blue"))], REMEDY)

    assert text == (
        "no pool can give pod prod/web an address: eth0 IPv4: pool blue 60 in use, 3 reserved, 1 in quarantine. "
        + REMEDY
    )


def test_addresses_in_blocks_that_cannot_be_used_are_counted_apart():
    reason = Reason.of_error(used_up("blue", unusable=64))

    assert reason.short.endswith("1 in quarantine, 64 under damaged blocks or records")


def test_where_there_is_room_a_rule_says_what_would_change_it():
    refusal = Refusal("green", "node affinity", "zone In [a] does not match node n1 (labels zone=b)")

    text = brief("no pool", [("eth0 IPv4", (Reason.of_refusal(refusal),))], "")

    assert "zone In [a] does not match node n1" in text


def test_what_does_not_fit_is_counted():
    pools = [f"pool-{number:03}" for number in range(100)]
    parts = [(f"net{number} IPv4", reasons(*pools)) for number in range(20)]

    text = brief(LONG, parts, REMEDY)

    assert len(text) <= LIMIT
    assert text.startswith(LONG)
    assert REMEDY in text
    assert "net0 IPv4: pool pool-000 60 in use" in text
    assert "99 more pools" in text
    assert "19 more interfaces or families" in text
    assert text.endswith("`orbweaver explain` has the rest.")


NAMES = st.text(st.characters(codec="utf-8"), max_size=300)
REASONS = st.lists(
    st.builds(Reason.of_error, st.builds(used_up, NAMES, *[st.integers(0, 2**128)] * 4))
    | st.builds(Reason.of_error, st.builds(AddressTaken, NAMES))
    | st.builds(Reason.of_refusal, st.builds(Refusal, NAMES, NAMES, NAMES)),
    max_size=12,
).map(tuple)


@given(
    st.text(max_size=317).map(lambda pod: f"no pool can give pod {pod} an address"),
    st.lists(st.tuples(st.text(max_size=20), REASONS), max_size=12),
)
@example(LONG, [("eth0 IPv4", reasons("x" * 253, "y" * 253)), ("eth0 IPv6", reasons("z" * 253))])
def test_whatever_is_refused_the_text_is_short_and_has_pod_and_remedy(
    head: str, parts: list[tuple[str, tuple[Reason, ...]]]
):
    text = brief(head, parts, REMEDY)

    assert len(text) <= LIMIT
    assert text.startswith(head)
    assert REMEDY in text


@given(
    st.builds(
        OrbweaverError, st.text(max_size=2000), details=st.lists(st.text(max_size=400), max_size=50).map(tuple),
        brief=st.text(max_size=1500),
    )
)  # fmt: skip
def test_no_error_is_told_in_more_than_the_limit(error: OrbweaverError):
    message, details = told(error)

    assert len(message) + len(details) + 2 <= LIMIT + 2
    assert len(in_brief(error)) <= LIMIT


def test_an_error_that_fits_is_told_whole_and_one_that_does_not_says_how_much_is_left():
    short = PodRefused("pod prod/web has ended", details=("one", "two"))
    long = PodRefused("pod prod/web has ended", details=tuple("x" * 100 for _ in range(50)))

    assert told(short) == ("pod prod/web has ended", "one\ntwo")
    assert told(long)[0] == "pod prod/web has ended"
    assert told(long)[1].splitlines()[-1] == "45 more lines"


def test_a_message_that_is_too_long_keeps_whom_it_is_about_and_what_to_do():
    text = f"pod prod/web: the API server refuses {'x' * 3000}; run `kubectl apply -f deploy/crds`"

    message, details = told(OrbweaverError(text, details=("more",)))

    assert len(message) == LIMIT
    assert message.startswith("pod prod/web: the API server refuses")
    assert message.endswith("; run `kubectl apply -f deploy/crds`")
    assert details == ""


def test_counts_and_the_brief_cross_to_another_process():
    error = used_up("blue", 5, 6, 7, 8)
    error.brief = "in short"

    back = from_wire(error.to_wire())

    assert isinstance(back, PoolUsedUp)
    assert Reason.of_error(back) == Reason.of_error(error)
    assert back.brief == "in short"
    hostile = from_wire({**error.to_wire(), "in_use": "many", "pool": 5, "reserved": True})
    assert isinstance(hostile, PoolUsedUp)
    assert (hostile.in_use, hostile.pool, hostile.reserved) == (0, "", 0)
    assert isinstance(from_wire(NoAddress("none").to_wire()), NoAddress)
