"""What every serving process of ours does at its start."""

from __future__ import annotations

from pathlib import Path

from tests.support.agent_process import AgentProcess


def test_a_process_may_open_as_many_files_as_it_is_allowed(tmp_path: Path):
    """The usual soft limit of 1,024 would refuse new agents while a thousand strangers are connected."""
    low = ("sh", "-c", 'ulimit -S -n 256; ulimit -H -n 2048; exec "$@"', "sh")
    with AgentProcess(tmp_path, wrapper=low) as agent:
        limits = Path(f"/proc/{agent.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
    assert line.split()[3:5] == ["2048", "2048"]
