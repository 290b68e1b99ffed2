"""What every test may ask for, and the guard that the tests see the installed wheel."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest
import yaml
from hypothesis import HealthCheck, settings

import actors
from tests.cluster import programs
from tests.tools import image, kubernetes, reference, release, spiderpool, uml
from tests.tools.apiserver import ApiServer
from tests.tools.gomodule import ProgramMissing

T = TypeVar("T")

# Three test processes on two cores: an example that takes a second is no failure.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

_LAST = "reserved-addresses.yaml"
# Refused by the policy that is applied last, and by nothing else.
_NEVER_ADMITTED = {
    "apiVersion": "spiderpool.spidernet.io/v2beta1",
    "kind": "SpiderReservedIP",
    "metadata": {"name": "never-admitted"},
    "spec": {"ips": ["no address"]},
}

_OLDEST = "1.31"
"""As the chart's `kubeVersion` has it."""
_ROOT = Path(__file__).resolve().parent.parent
_CODE = Path(actors.__file__ or "").resolve()


def pytest_report_header() -> list[str]:
    try:
        plugins = str(reference.cni_bin())
    except reference.ProgramMissing as missing:
        plugins = f"none, {missing}"
    try:
        api_server = str(kubernetes.assets())
    except ProgramMissing as missing:
        api_server = f"none, {missing}"
    try:
        cluster = str(programs.find().kubernetes)
    except ProgramMissing as missing:
        cluster = f"none, {missing}"
    try:
        kernel = str(uml.find().modules)
    except ProgramMissing as missing:
        kernel = f"none, {missing}"
    try:
        theirs = str(spiderpool.assets())
    except ProgramMissing as missing:
        theirs = f"PLAYED, not its own programs: {missing}"
    return [
        f"orbweaver: {_CODE.parent.parent}",
        f"CNI plugins: {plugins}",
        f"API server: {api_server}",
        f"cluster: {cluster}",
        f"User-Mode Linux: {kernel}",
        f"Spiderpool: {theirs}",
    ]


def pytest_configure() -> None:
    # Tests name their own clusters and stores; what the user has comes before what a command finds by itself.
    for name in ("KUBECONFIG", "ORBWEAVER_DATA"):
        os.environ.pop(name, None)
    # A wheel that lacks a file passes every test that runs in the working tree.
    if os.environ.get("ORBWEAVER_TEST_INSTALLED") and _CODE.is_relative_to(_ROOT / "actors"):
        raise pytest.UsageError(f"the tests are to run on the installed wheel, but actors is {_CODE}")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the image that a chosen test needs before any test begins: no test's own time pays for it, nor for waiting until
    another process has built it."""
    if session.config.option.collectonly:
        return
    asked = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    if "image_archive" in asked:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(
                "the container image is built first, if it is not there: minutes, once for each content"
            )
        with suppress(ProgramMissing):  # the fixture says so
            image.archive()
            if "last_image_archive" in asked:
                image.archive(release.last().wheel)


@pytest.fixture(scope="session")
def image_archive() -> Path:
    """The container image of the working tree; without it the test is skipped and says why."""
    return _or_skip(image.archive)


@pytest.fixture(scope="session")
def last_image_archive() -> Path:
    """That of the version before; without it the test is skipped and says why."""
    return _or_skip(lambda: image.archive(release.last().wheel))


@pytest.fixture(scope="session")
def cni_bin() -> Path:
    """The directory of the real reference plugins; without them the test is skipped and says why."""
    return _or_skip(reference.cni_bin)


@pytest.fixture(scope="session")
def cnitool() -> Path:
    """The real CNI client; without it the test is skipped and says why."""
    return _or_skip(reference.cnitool)


@pytest.fixture(scope="session")
def bare_api_server() -> Iterator[ApiServer]:
    """A real API server that knows nothing of ours; without its programs the test is skipped and says why."""
    server = ApiServer(_or_skip(kubernetes.assets))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="session")
def api_server(bare_api_server: ApiServer) -> ApiServer:
    """The same with what `deploy/` has of CRDs, rights and admission policies. Tests must leave it running."""
    return deployed_to(bare_api_server)


@pytest.fixture(scope="session")
def oldest_api_server() -> Iterator[ApiServer]:
    """One that takes what the oldest supported Kubernetes takes, with what `deploy/` has."""
    server = ApiServer(_or_skip(kubernetes.assets), f"--emulated-version={_OLDEST}")
    try:
        server.start()
        yield deployed_to(server)
    finally:
        server.stop()


def deployed_to(server: ApiServer) -> ApiServer:
    """It, with the CRDs, rights and admission policies of `deploy/` in force."""
    namespace = yaml.safe_load((_ROOT / "deploy" / "namespace.yaml").read_text())
    server.ask("POST", "/api/v1/namespaces", namespace)
    for folder in ("crds", "rbac", "admission"):
        paths = (_ROOT / "deploy" / folder).glob("*.yaml")
        for path in sorted(paths, key=lambda path: (path.name == _LAST, path.name)):
            if path.name != "kustomization.yaml":
                server.apply(*yaml.safe_load_all(path.read_text()))
    server.wait_refused(_NEVER_ADMITTED)
    return server


def _or_skip(find: Callable[[], T]) -> T:
    try:
        return find()
    except ProgramMissing as missing:
        pytest.skip(str(missing))
