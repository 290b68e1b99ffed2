"""pyproject.toml says the version; whatever else names it says the same."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.tools import image, release, wheel

ROOT = Path(__file__).resolve().parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
PAGES = [
    path
    for pattern in ("README.md", "docs/*/*.md", "deploy/*.yaml", "deploy/**/*.yaml", "deploy/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]


def test_the_chart_is_of_this_version():
    chart = yaml.safe_load((ROOT / "deploy" / "chart" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_the_wheel_and_the_image_of_the_tests_are_of_this_version():
    assert (wheel.version(), image.NAME) == (VERSION, f"orbweaver:{VERSION}")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_pages_and_manifests_name_the_image_of_this_version(path: Path):
    named = re.findall(r"\borbweaver[:-](\d+\.\d+\.\d+)", path.read_text())
    assert set(named) <= {VERSION}


def test_the_version_before_is_another_one_and_whole():
    before = release.last()
    assert before.version != VERSION
    assert before.chart.is_file()
    assert [path.name for path in sorted(release.KEPT.iterdir()) if path.suffix in (".whl", ".tgz")] == [
        before.wheel.name,
        before.chart.name,
    ]


def test_the_changelog_tells_of_this_version_first_and_then_of_the_one_before():
    sections = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert sections[:2] == [VERSION, release.last().version]
