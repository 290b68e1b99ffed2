"""README.md against the code: its tables have every command, setting, annotation, key, variable, metric, error code and field,
and no other; and every page against the rules of prose, and against the files, headings and options that it names.

Whoever adds one of these sees here that its line is missing.
"""

from __future__ import annotations

import argparse
import functools
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
from actors.resources import coordinator, ippool, multus_config, reservedip, subnet
from actors.resources.coordinator_rules import RULES
from actors.subnets.subnets import SubnetUsage
from cni.command.main import COMMANDS
from metrics.prometheus import Metrics, PoolUsage

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PAGES = tuple(
    page
    for pattern in ("*.md", "docs/*/*.md", "*/README.md", "*/*/README.md", "tests/bench/*.md")
    for page in sorted(ROOT.glob(pattern))
)
NOT_PROSE = ("CHANGELOG.md",)
"""Its entries are paragraphs."""
PRODUCT = ("actors", "cni", "metrics")
DOMAINS = ("ipam.spidernet.io", "multus.spidernet.io", "cni.spidernet.io", "orbweaver.io")
"""Of the labels, annotations and taints that are ours, or Spiderpool's and kept."""


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


def parsers(parser: argparse.ArgumentParser, path: str) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """The command and its verbs, as one writes them."""
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not nested:
        yield path, parser
    for action in nested:
        for name, inner in action.choices.items():
            yield from parsers(inner, f"{path} {name}")


@functools.cache
def commands() -> dict[str, argparse.ArgumentParser]:
    there: dict[str, argparse.ArgumentParser] = {}
    for name in COMMANDS:
        parent = argparse.ArgumentParser().add_subparsers()
        importlib.import_module(f"cni.command.{name}").add_parser(parent)
        there |= dict(parsers(parent.choices[name], f"orbweaver {name}"))
    return there


def test_every_command_is_in_the_table() -> None:
    assert [quoted(row[0])[0] for row in table("Commands")] == sorted(commands(), key=order_of_commands)


def test_help_says_what_every_option_does() -> None:
    assert [
        (command, action.option_strings or action.dest)
        for command, parser in commands().items()
        for action in parser._actions
        if not action.help
    ] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_shows_options_that_a_command_has(page: Path) -> None:
    assert [(call, option) for call, command, option in shown(page) if option not in options(command)] == []


def test_pages_show_commands_with_options() -> None:
    assert len([option for page in PAGES for option in shown(page)]) > 40  # else the test above reads nothing


def shown(page: Path) -> Iterator[tuple[str, str, str]]:
    """Each call of a command on a page with the command and each of its options."""
    for call in re.findall(r"orbweaver [a-z][^`|;&\n]*", page.read_text()):
        for command in sorted(commands(), key=len, reverse=True):
            if call.startswith(command):
                for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", call):
                    yield call, command, option
                break


def options(command: str) -> set[str]:
    return {option for action in commands()[command]._actions for option in action.option_strings}


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
        elif isinstance(value, dict) and all(isinstance(text, str) for text in value.values()):
            yield from keys(value.values())


def test_every_key_on_an_object_is_in_a_table() -> None:
    there = {key for key in constants() if key.partition("/")[0] in DOMAINS}
    of_networks = re.findall(r"`((?:multus|cni)\.spidernet\.io/[\w-]+)`", README)

    listed = {*first_words("Keys on objects"), *first_words("Annotations"), *of_networks}
    assert {key for key in listed if key.partition("/")[0] in DOMAINS} == there - {
        f"{annotation_keys.PREFIX}/owner-application"
    }


def constants() -> Iterator[str]:
    """The keys among the constants of all modules of the product."""
    for room in PRODUCT:
        for path in (ROOT / room).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            module = importlib.import_module(".".join(part for part in parts if part != "__init__"))
            for value in vars(module).values():
                yield from keys((value,))
                if isinstance(value, dict):
                    yield from keys(value)  # a selector


def test_every_variable_of_the_environment_is_in_the_table() -> None:
    reading = re.compile(r'(?:environ(?:ment)?\.get\(|^VARIABLE = |strncmp\(\*e, )"([A-Z_]+)', re.MULTILINE)
    texts = [
        path.read_text()
        for room in PRODUCT
        for path in (ROOT / room).rglob("*.[pc]*")
        if path.suffix in (".py", ".c")
    ]
    read = {name for text in texts for name in reading.findall(text) if not name.startswith("CNI_")}

    assert set(first_words("Environment variables")) == read - {"PATH"}


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


def test_fields_of_subnets_and_reserved_addresses_are_told() -> None:
    (line,) = re.findall(
        r"^A SpiderSubnet has (.*), a SpiderReservedIP (.*), with the same", README, re.MULTILINE
    )
    assert tuple(map(quoted, line)) == (list(subnet.SPEC_FIELDS), list(reservedip.SPEC_FIELDS))


def test_every_key_of_a_network_configuration_is_in_its_table() -> None:
    keys_of_ipam = read_by(r'(?:ipam, |ipam\.\w+\()"(\w+)"', "cni/server/protocol.py")
    keys_of_ipam |= read_by(r'(?:_switch\(conf, |conf\.inner\()"(\w+)"', "actors/decisions/detection.py")
    keys_of_ipam |= read_by(r'string_value\("(ipam_\w+)"', "cni/shim/shim.c")

    assert len(keys_of_ipam) > 5  # else it reads nothing
    assert set(first_words("Keys of the network configuration")) == keys_of_ipam


def test_every_key_of_our_other_plugins_is_in_a_table() -> None:
    of_ifacer = {word.lower() for name in first_words("Fields of ifacer") for word in name.split(".")}

    of_networks = read_by(r'conf\.(?:text|items)\("(\w+)"', "cni/networks/attaching.py")
    assert set(first_words("Keys of orbweaver-networks")) == of_networks
    assert of_ifacer == read_by(r'fields\.get\("(\w+)"', "cni/dataplane/ifacer/settings.py")


def read_by(pattern: str, path: str) -> set[str]:
    """What a source file reads by these words."""
    return set(re.findall(pattern, (ROOT / path).read_text()))


def test_every_field_of_a_section_of_a_network_is_told() -> None:
    definition = yaml.safe_load(
        (ROOT / "deploy/crds/spiderpool.spidernet.io_spidermultusconfigs.yaml").read_text()
    )
    (version,) = definition["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    section = README.partition("\n### Fields of a SpiderMultusConfig\n")[2].partition("\n### ")[0]

    names = set(names_in({name: schema for name, schema in spec.items() if name != "coordinator"}))
    assert len(names) > 30  # else it reads nothing
    assert sorted(names - set(quoted(section))) == []


def names_in(properties: Mapping[str, Any]) -> Iterator[str]:
    """The fields of a schema, and those inside them."""
    for name, schema in properties.items():
        yield name
        yield from names_in(schema.get("properties", {}))
        yield from names_in(schema.get("items", {}).get("properties", {}))


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
    if page.name in NOT_PROSE:
        return
    heads = re.compile(r"^\s*(?:\d+\.|-) +(?:\*\*[^*]+\*\* )?")
    second = re.compile(r"[a-z0-9`)*][.!?] +\*{0,2}[A-Z`\[]|。(?![”」\uff09)*]|$)")
    assert [line for line in prose(page) if second.search(heads.sub("", line))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_refers_to_is_there(page: Path) -> None:
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", text)
    targets = [(page.parent / path if path else page, heading) for path, heading in links]
    files = re.findall(r"`((?:deploy|cni|actors|tests|metrics|docs)/[\w./-]+\.\w+)`", text)

    assert [str(target) for target, _ in targets if not target.exists()] == []
    assert [
        (str(target), heading) for target, heading in targets if heading and heading not in headings(target)
    ] == []
    assert [name for name in files if not (ROOT / name).exists() and not (page.parent / name).exists()] == []


def headings(page: Path) -> set[str]:
    """As links name them."""
    lines = [
        line.lstrip("#").strip().lower() for line in page.read_text().splitlines() if line.startswith("#")
    ]
    return {re.sub(r"[^\w -]", "", line).replace(" ", "-") for line in lines}


def test_files_that_docstrings_and_comments_name_are_there() -> None:
    sources = [
        path
        for room in (*PRODUCT, "deploy", "tests")
        for path in (ROOT / room).rglob("*")
        if path.suffix in (".py", ".c")
    ]
    rooms = [room for room in ROOT.iterdir() if not room.name.startswith(".")]
    names = [path.relative_to(ROOT).as_posix() for room in rooms for path in (room, *room.rglob("*.*"))]
    endings = {"/".join(name.split("/")[start:]) for name in names for start in range(name.count("/") + 1)}
    named = [
        (str(path.relative_to(ROOT)), name)
        for path in sources
        for name in re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|yaml|c|md))`", path.read_text())
    ]

    assert len(named) > 100  # else this reads nothing
    assert [(path, name) for path, name in named if name not in endings] == []
