"""Build hook: compiles the programs in C for every supported machine and puts them into the wheel.

What must always hold: the wheel carries static programs for x86_64 and for aarch64 whatever machine built
it, so one py3-none-any wheel serves a cluster of both. `zig cc` from the `ziglang` package is the compiler
because it cross-compiles against musl on any machine with nothing but pip.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MACHINES = ("x86_64", "aarch64")
PROGRAMS = {"orbweaver-shim": "shim.c", "orbweaver-in-root": "in_root.c"}
# The program starts for each pod, and every page of it is mapped anew: what it does not need stays out.
FLAGS = (
    *("-std=gnu11", "-Wall", "-Wextra", "-Werror"),
    *("-Oz", "-flto", "-fno-inline-functions", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fno-unwind-tables"),
    *("-static", "-s", "-Wl,-z,norelro"),
)


class ShimBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs before the files of a wheel are collected; a source distribution carries only the C source."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the programs of `cni/shim/` into `cni/shim/bin/` and add the results to the wheel."""
        if self.target_name != "wheel":
            return
        shim = Path(self.root, "cni", "shim")
        (shim / "bin").mkdir(exist_ok=True)
        # At once, because the first time for a machine also compiles its C library, for most of a minute.
        with ThreadPoolExecutor() as threads:
            for done in [threads.submit(compile_programs, shim, machine) for machine in MACHINES]:
                done.result()
        build_data["artifacts"].append("/cni/shim/bin/orbweaver-*")


def compile_programs(shim: Path, machine: str) -> None:
    """Compile the programs in the folder `shim` for `machine`-linux-musl, one after the other: the first makes the C library
    that all of them need."""
    for name, source in PROGRAMS.items():
        compile_program(shim / source, shim / "bin" / f"{name}-{machine}", machine)


def compile_program(source: Path, output: Path, machine: str) -> None:
    """Compile one program; it appears whole or not at all."""
    unfinished = output.with_suffix(".new")
    command = [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-musl", *FLAGS]
    done = subprocess.run([*command, "-o", unfinished, source], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{source.name} for {machine} does not compile:\n{done.stderr}")
    unfinished.chmod(0o755)
    unfinished.replace(output)
