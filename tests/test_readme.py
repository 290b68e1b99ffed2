"""README.md against the code: its tables have every command, setting, annotation, metric, error code and field, and no other.

Whoever adds one of these sees here that its line is missing.
"""

from __future__ import annotations

import argparse
import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from actors import errors
from actors.decisions import annotations as annotation_keys
from actors.resources import coordinator, ippool, multus_config
from actors.resources.coordinator_rules import RULES
from actors.subnets.subnets import SubnetUsage
from cni.command.main import COMMANDS
from metrics.prometheus import Metrics, PoolUsage

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "cni/dataplane/README.md")
README = PAGES[0].read_text()


def table(heading: str) -> list[list[str]]:
    """The rows of the first table under a heading, without the two of its head."""
    section = README.partition(f"\n### {heading}\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert len(lines) > 2, f"README.md has no table under {heading}"
    return [
        [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in lines[2:]
    ]


def quoted(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def first_words(heading: str) -> list[str]:
    return [word for row in table(heading) for word in quoted(row[0])]


def prose(page: Path) -> Iterator[str]:
    """The lines that are neither code nor a table."""
    code = False
    for line in page.read_text().splitlines():
        if line.lstrip().startswith("```"):
            code = not code
        elif not code and not line.startswith("|"):
            yield line


def commands(parser: argparse.ArgumentParser, path: str) -> Iterator[str]:
    """The command and its verbs, as one writes them."""
    nested = [one for one in parser._actions if isinstance(one, argparse._SubParsersAction)]
    if not nested:
        yield path
    for action in nested:
        for name, inner in action.choices.items():
            yield from commands(inner, f"{path} {name}")


def test_every_command_is_in_the_table() -> None:
    there = []
    for name in COMMANDS:
        parent = argparse.ArgumentParser().add_subparsers()
        importlib.import_module(f"cni.command.{name}").add_parser(parent)
        there += list(commands(parent.choices[name], f"orbweaver {name}"))

    assert [quoted(row[0])[0] for row in table("Commands")] == sorted(there, key=order_of_commands)


def order_of_commands(command: str) -> int:
    listed = first_words("Commands")
    return listed.index(command) if command in listed else len(listed)


def test_every_setting_is_in_the_table_with_its_default() -> None:
    manifest = yaml.safe_load((ROOT / "deploy/configmap.yaml").read_text())
    defaults = dict(flat(yaml.safe_load(manifest["data"]["conf.yml"])))
    listed = {quoted(name)[0]: yaml.safe_load(quoted(default)[0]) for name, default, _ in table("Settings")}

    assert listed == defaults


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def test_every_annotation_is_in_the_table() -> None:
    assert set(first_words("Annotations")) == set(keys(vars(annotation_keys).values()))


def keys(values: Iterable[Any]) -> Iterator[str]:
    """The annotations among a module's constants."""
    for value in values:
        if isinstance(value, str) and re.fullmatch(r"[a-z0-9.-]+\.io/[a-z0-9-]+", value):
            yield value
        elif isinstance(value, tuple):
            yield from keys(value)
        elif isinstance(value, dict) and all(isinstance(one, str) for one in value.values()):
            yield from keys(value.values())


def test_every_error_code_is_in_the_table() -> None:
    codes = {value for name, value in vars(errors).items() if name.startswith("CNI_")}
    assert {int(row[0]) for row in table("Error codes")} == codes


def test_every_metric_is_in_the_table_with_its_labels() -> None:
    listed = {
        quoted(name)[0]: (kind, frozenset(quoted(labels))) for name, kind, labels, _ in table("Metrics")
    }

    assert listed == dict(metrics())


def metrics() -> Iterator[tuple[str, tuple[str, frozenset[str]]]]:
    """What a process exposes when everything has happened once."""
    exposed = Metrics()
    for operation in ("allocation", "release"):
        exposed.stage(operation, "total", 0.1)
        exposed.finished(operation, "ok", "")
        exposed.conflicted(operation)
    exposed.committed(1, 0.1)
    exposed.waited("granted", 0.1)
    exposed.reclaimed("PodGone")
    exposed.reclaim_failed()
    exposed.handled("pool", "allocate", 0.1, 0.1, 0)
    exposed.dropped("pool", "allocate")
    exposed.tell_version("1.2.3")
    exposed.watch_mailboxes(lambda: {"pool": 1})
    exposed.watch_pools(lambda: [PoolUsage("blue", 10, 1)])
    exposed.watch_subnets(lambda: [SubnetUsage("rack", 10, 1, 1, False)])
    for name in flags():
        exposed.watch_flag(name, "", lambda: True)
    text = exposed.expose()[0].decode()
    for family in text_string_to_metric_families(text):
        if not family.name.endswith("_created"):
            labels = frozenset(label for sample in family.samples for label in sample.labels)
            yield family.name, (family.type, labels - {"le"})


def flags() -> list[str]:
    """The gauges that processes add, which need a cluster to be there."""
    found = []
    for path in (ROOT / "cni/process").glob("*.py"):
        found += re.findall(r'watch_flag\(\s*"(\w+)"', path.read_text())
    return found


def test_every_field_of_a_pool_is_in_the_table() -> None:
    assert first_words("Fields of a pool") == list(ippool.SPEC_FIELDS)


def test_every_field_of_a_network_is_in_the_tables() -> None:
    section = README.partition("\n### Fields of a SpiderMultusConfig\n")[2].partition("\n### ")[0]

    fields = {word for word in first_words("Fields of a SpiderMultusConfig") if "/" not in word}
    assert fields == set(multus_config.SPEC_FIELDS)
    assert [
        key
        for key in (multus_config.ATTACHMENT_NAME, multus_config.CNI_VERSION, multus_config.NETWORK_NAME)
        if f"| `{key}` |" not in section
    ] == []


def test_every_field_of_the_coordinator_is_in_the_table() -> None:
    where = {quoted(row[0])[0]: row[1] for row in table("Fields of the coordinator")}

    assert set(where) == {*RULES, "detectOptions"}
    assert {name for name, place in where.items() if place != "network"} == set(coordinator.SPEC_FIELDS)


def test_every_reason_of_an_event_is_in_the_table() -> None:
    listed = first_words("Events")

    assert set(reasons()) <= set(listed)
    assert [name for name in listed if name not in reasons() and not hasattr(errors, name)] == []


def reasons() -> list[str]:
    """The words that Events are written with, beside the names of errors."""
    told = re.compile(r'(?:\.tell\(|\.warn\(|_News\(involved, |stale,\s|REASON, TEXT =)[\w.,\s]*"([A-Z]\w+)"')
    files = [path for room in ("actors", "cni/networks") for path in (ROOT / room).rglob("*.py")]
    found = [name for path in files for name in told.findall(path.read_text())]
    rules = (ROOT / "actors/reclaim/rules.py").read_text()
    found += re.findall(r'Action\.\w+,\s*"(\w+)"', rules)
    # Those of which one is chosen: "PodGone" if … else "NamespaceGone".
    found += [name for pair in re.findall(r'"(\w+)" if .* else "(\w+)"', rules) for name in pair]
    networks = "".join(path.read_text() for path in (ROOT / "actors/networks").glob("*.py"))
    found += re.findall(r'"(Network[A-Z]\w+)"', networks.replace("NetworkAttachmentDefinition", ""))
    found += re.findall(r'yield "([A-Z]\w+)"', (ROOT / "actors/views/coordinator.py").read_text())
    return [name for name in found if name != "Normal"]  # what kind of Event it is


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_line_has_one_sentence(page: Path) -> None:
    assert [line for line in prose(page) if re.search(r"[a-z`)][.!?] +[A-Z`]", line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_refers_to_is_there(page: Path) -> None:
    text = page.read_text()
    headings = {
        re.sub(r"[^a-z0-9 -]", "", line.lstrip("#").strip().lower()).replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    links = re.findall(r"\]\(#([^)]+)\)", text)
    files = re.findall(r"`((?:deploy|cni|actors|tests)/[\w./-]+)`", text)

    assert [link for link in links if link not in headings] == []
    assert [
        name for name in files if not (ROOT / name).exists() and not (ROOT / "cni/dataplane" / name).exists()
    ] == []
