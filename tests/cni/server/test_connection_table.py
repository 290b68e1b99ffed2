"""Who must make room for whom."""

from __future__ import annotations

from cni.server.connection_table import LARGE_TOGETHER, ConnectionTable


def table(*connections: str, most: int = 2) -> ConnectionTable[str]:
    connection_table: ConnectionTable[str] = ConnectionTable(most)
    for connection in connections:
        connection_table.arrived(connection)
    return connection_table


def test_nobody_goes_while_there_is_room():
    assert table("a", "b").displaced_by("b") is None


def test_who_has_been_sending_for_longest_goes():
    assert table("a", "b", "c").displaced_by("c") == "a"


def test_whose_request_is_complete_stays():
    connections = table("a", "b", "c")
    connections.read("a")

    assert connections.displaced_by("c") == "b"


def test_the_last_one_goes_where_all_others_are_served():
    connections = table("a", "b", "c")
    connections.read("a")
    connections.read("b")

    assert connections.displaced_by("c") == "c"


def test_who_left_takes_no_place():
    connections = table("a", "b", "c")
    connections.left("a")

    assert connections.displaced_by("c") is None
    assert len(connections) == 2


def test_only_so_many_are_read_that_are_large():
    names = [f"large-{number}" for number in range(LARGE_TOGETHER)]
    connections = table(*names, "one more", most=100)

    assert all(connections.may_be_large(name) for name in names)
    assert not connections.may_be_large("one more")
    assert connections.may_be_large(names[0]), "it has its place already"
    connections.read(names[0])
    assert connections.may_be_large("one more")
