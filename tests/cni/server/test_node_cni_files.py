"""The node's CNI directory is looked at within bounds."""

from __future__ import annotations

from pathlib import Path

from cni.server.node_cni_files import MOST_FILES, look_at_node_cni
from tests.actors.decisions.test_node_cni import CALICO, MULTUS


def test_the_kind_is_read_from_the_directory(tmp_path: Path) -> None:
    assert look_at_node_cni(tmp_path / "none") == ""
    (tmp_path / "calico-kubeconfig").write_bytes(b"\xff\xfe")
    for name, text in (MULTUS, CALICO):
        (tmp_path / name).write_text(text)

    assert look_at_node_cni(tmp_path) == "calico"


def test_a_file_without_end_and_files_without_number_cost_little(tmp_path: Path) -> None:
    (tmp_path / "10-large.conf").write_text('{"name": "' + "x" * 10_000_000)
    assert look_at_node_cni(tmp_path) == ""
    for number in range(3 * MOST_FILES):
        (tmp_path / f"00-multus-{number:03}.conf").write_text("{}")
    assert look_at_node_cni(tmp_path) == ""
