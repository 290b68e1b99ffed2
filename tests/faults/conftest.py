"""What several of these tests stand on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.tools.apiserver import ADMIN_TOKEN, ApiServer


@pytest.fixture
def config(api_server: ApiServer, tmp_path: Path) -> Path:
    """The administrator's kubeconfig."""
    return api_server.write_kubeconfig(tmp_path / "config", ADMIN_TOKEN)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Ends what a test has entered, the last first."""
    with ExitStack() as stack:
        yield stack
