"""`./try`: a command that there is not, and apt's locks."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

_TRY = Path(__file__).parents[2] / "try"


@pytest.mark.parametrize(
    "arguments, said", [(["bogus"], "there is no command 'bogus'"), ([], "which command?")]
)
def test_a_command_that_there_is_not_is_named(arguments: list[str], said: str):
    done = subprocess.run(
        [sys.executable, str(_TRY), *arguments], capture_output=True, text=True, check=False, timeout=300
    )

    assert done.returncode == 2
    assert "usage: ./try" in done.stderr
    assert done.stderr.splitlines()[-1] == f"try: {said}"


APT = """
import importlib.machinery, importlib.util, sys
sys.path.insert(0, sys.argv[2])
loader = importlib.machinery.SourceFileLoader("orbweaver_try", sys.argv[1])
module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
loader.exec_module(module)
module.LOCK_WAIT, module.LOCK_AGAIN = int(sys.argv[3]), 0.05
try:
    module.apt("Refresh", "update", "-q")
except module.Failed as failed:
    sys.exit(f"failed: {failed}")
"""


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="there is no apt-get here")
@pytest.mark.parametrize("patience", [600, 0], ids=["until it is free", "not for ever"])
def test_the_lock_of_another_program_is_waited_for(tmp_path: Path, patience: int):
    """As a system that updates itself holds it. The lists are the test's own, of no package source."""
    lists = tmp_path / "lists"
    (lists / "partial").mkdir(parents=True)
    config = tmp_path / "apt.conf"
    config.write_text(
        f'Dir::State::Lists "{lists}"; Dir::Cache "{tmp_path}/cache"; Dir::Log "{tmp_path}";\n'
        'Dir::Etc::SourceList "/dev/null"; Dir::Etc::SourceParts "/dev/null";\n'
    )
    command = [sys.executable, "-B", "-c", APT, str(_TRY), str(_TRY.parent), str(patience)]
    env = {**os.environ, "APT_CONFIG": str(config), "ORBWEAVER_CACHE": str(tmp_path / "kept")}
    with (lists / "lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            said = ""
            for line in process.stderr:
                said += line
                if "Waiting for another program" in line:
                    fcntl.lockf(lock, fcntl.LOCK_UN)

    assert f"Could not get lock {lists}/lock" in said
    assert (process.returncode == 0) is (patience > 0), said
    assert ("Waiting for another program, 600 s at most" in said) is (patience > 0)
