"""The programs that the pages of takeovers name, as they are on a machine whose directories are the test's."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cluster.pages import write_script
from tests.tools import kubernetes
from tests.tools.gomodule import ROOT


def write_programs(directory: Path, kubeconfig: Path, *options: object, networks: Path | None = None) -> Path:
    """Make a directory with kubectl and orbweaver for a cluster; returns it. Every takeover has these options, and the
    directory of networks where the page names none. Raises ProgramMissing."""
    directory.mkdir(exist_ok=True)
    of_networks = f"*--directory*) ;; *) set -- \"$@\" --directory '{networks}'" if networks else "*)"
    words = " ".join(f"'{option}'" for option in options)
    write_script(
        directory / "orbweaver",
        f'export PYTHONPATH="{ROOT}" KUBECONFIG="{kubeconfig}"\n'
        f'case "$1" in takeover) set -- "$@" {words}; case "$*" in {of_networks};; esac;; esac\n'
        f'exec {sys.executable} -P -m cni.command.main "$@"\n',
    )
    write_script(directory / "kubectl", f'exec {kubernetes.kubectl()} --kubeconfig "{kubeconfig}" "$@"\n')
    return directory
