"""Spiderpool's own programs, for tests that put it beside ours: where they are, and how one runs without its chart.

No registry has its module, so nobody builds it here: whoever has a checkout of github.com/spidernet-io/spiderpool builds
them there (five minutes on two cores) and names the directory in $SPIDERPOOL_ASSETS:

    CGO_ENABLED=0 go build -o DIRECTORY ./cmd/spiderpool ./cmd/spiderpool-agent ./cmd/spiderpool-controller ./cmd/coordinator

Without them tests play the agent by what its source does (tests/support/played_spiderpool.py).
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.tools.gomodule import ProgramMissing

PROGRAMS = ("spiderpool", "spiderpool-agent", "spiderpool-controller")


def assets() -> Path:
    """The directory with all of them. Raises ProgramMissing."""
    chosen = os.environ.get("SPIDERPOOL_ASSETS")
    if not chosen:
        raise ProgramMissing(
            "there is no Spiderpool: build its programs from a checkout (tests/tools/spiderpool.py says how) and name their"
            " directory in SPIDERPOOL_ASSETS"
        )
    lacking = [name for name in PROGRAMS if not os.access(Path(chosen) / name, os.X_OK)]
    if lacking:
        raise ProgramMissing(f"{chosen} lacks {', '.join(lacking)}")
    return Path(chosen)
