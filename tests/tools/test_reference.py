"""The programs that other tests rely on are the ones they are taken for."""

import subprocess

import pytest

from tests.tools import reference


def test_the_plugins_speak_cni(cni_bin):
    for name in reference.PLUGINS:
        done = subprocess.run(
            [cni_bin / name],
            env={"CNI_COMMAND": "VERSION"},
            input=b'{"cniVersion":"1.0.0"}',
            capture_output=True,
            check=True,
        )

        assert b'"1.0.0"' in done.stdout


def test_cnitool_is_the_client_of_that_name(cnitool):
    done = subprocess.run([cnitool, "--help"], capture_output=True, check=False)

    assert b"CNI" in done.stdout + done.stderr


def test_a_chosen_directory_without_the_plugins_is_not_silently_replaced(monkeypatch, tmp_path):
    monkeypatch.setenv("CNI_BIN", str(tmp_path))

    with pytest.raises(reference.ProgramMissing, match=f"CNI_BIN={tmp_path}"):
        reference.cni_bin()


def test_what_cannot_be_built_leaves_nothing_behind(monkeypatch, tmp_path):
    monkeypatch.setenv("ORBWEAVER_CACHE", str(tmp_path))
    monkeypatch.setenv("ORBWEAVER_TOOLS", str(tmp_path / "tools"))

    with pytest.raises(reference.ProgramMissing, match="No such file"):
        reference.build("/nonexistent/go")

    assert not reference.built().exists()
    assert list((tmp_path / "tools").iterdir()) == []
