"""`orbweaver check`: prove what is stored against the rules, and with `--repair` put right what is safe to.

It reads the API server (or the embedded store's file) and, on a node, its runtime's notes, and changes nothing without
`--repair`.
What must always hold: what is only on its way is not reported; a finding counts when a second look has it too.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actors.audit import AuditRule, Finding, RuntimeNotes, Snapshot, audit, confirm
from actors.decisions.settings import Settings
from actors.errors import OrbweaverError
from actors.resources.json_text import showable
from actors.store.contract import Store
from cni.command import option_values
from cni.command.get import print_value
from cni.command.settings_options import add_settings_options, read_settings
from cni.command.store_choice import add_data_option, open_store
from cni.command.table import render
from cni.server.libcni_cache import CACHE, BadNote, Note, read_notes

CLEAN, FOUND, UNREADABLE = 0, 1, 2
WAIT = 8.0
"""Seconds between two looks: SpiderEndpoints may be five seconds behind (`LATEST` in `actors/views/views.py`), a pool's status
one, and their writes take time."""


def add_parser(commands: Any) -> None:
    """Add the command's own parser."""
    parser = commands.add_parser(
        "check",
        help="prove that no address is recorded twice or leaked, and that every view is right",
        description=(__doc__ or "").partition("\n\n")[0],
        epilog=f"Exit status: {CLEAN} nothing found (or all repaired), {FOUND} something found, {UNREADABLE} not readable.",
    )
    parser.add_argument(
        "--repair",
        action="store_true",
        help="write wrong views anew, and release records whose pod is gone; asks again before each release",
    )
    parser.add_argument(
        "--wait",
        type=option_values.pause,
        metavar="SECONDS",
        help=f"between two looks, of which both must show a finding ({WAIT:g}, and for leaks as long as a DEL may take)",
    )
    parser.add_argument(
        "--notes",
        type=Path,
        default=CACHE,
        metavar="DIRECTORY",
        help="on a node: where its runtime notes CNI attachments, which are looked at too (%(default)s)",
    )
    parser.add_argument("-o", "--output", choices=("json", "yaml"), help="instead of the table")
    add_settings_options(parser)
    add_data_option(parser)
    parser.set_defaults(run=run)


@dataclass(slots=True)
class Report:
    """What one run of `check` has to say."""

    findings: tuple[Finding, ...] = ()
    """What is wrong, as of the last look."""
    in_flux: int = 0
    """How many findings one of two looks had and the other had not."""
    counts: dict[str, int] = field(default_factory=dict)
    """By word for people, how many objects were looked at."""
    pods: bool = True
    """Whether pods could be judged."""
    repairs: list[str] = field(default_factory=list)
    """A line for each thing that was put right."""


def run(chosen: argparse.Namespace) -> int:
    """Look, repair if told to, print."""
    settings = read_settings(chosen)
    try:
        with open_store(chosen) as store:
            report = look(store, chosen.wait, settings, chosen.notes)
            if chosen.repair and any(finding.repair for finding in report.findings):
                report = _repaired(store, report, chosen.wait, settings, chosen.notes)
    except OrbweaverError as error:
        print(f"orbweaver: this could not be checked: {error}", file=sys.stderr)
        return UNREADABLE
    if chosen.output:
        print_value(_as_object(report), chosen.output)
    else:
        _print(report)
    return FOUND if report.findings else CLEAN


def look(store: Store, wait: float | None, settings: Settings, notes: Path = CACHE) -> Report:
    """Two looks, `wait` seconds apart, if the first one finds something. Raises `StoreUnavailable`."""
    cluster = _has_pods(store)
    snapshot = Snapshot.read(store, pods=cluster)
    seen = audit(snapshot, settings, time.time(), _notes(notes, cluster=cluster))
    findings, in_flux = seen.findings, 0
    if findings:
        time.sleep(_wait(findings, settings) if wait is None else wait)
        snapshot = Snapshot.read(store, pods=cluster)
        seen = audit(snapshot, settings, time.time(), _notes(notes, cluster=cluster))
        findings, in_flux = confirm(findings, seen.findings)
    counts = {
        "pools": len(snapshot.pools),
        "blocks": len(snapshot.blocks),
        "addresses": len(seen.held),
        "endpoints": len(snapshot.endpoints),
    }
    if snapshot.pods is not None:
        counts["pods"] = len(snapshot.pods)
    return Report(findings, in_flux, counts, cluster)


def _notes(directory: Path, *, cluster: bool) -> RuntimeNotes | None:
    """The notes of this host's runtime, None where it has none that can be read."""
    try:
        notes = list(read_notes(directory))
    except OSError:
        return None
    return RuntimeNotes(
        (os.environ.get("NODE_NAME") or socket.gethostname()) if cluster else "",
        {note.file: note.why for note in notes if isinstance(note, BadNote)},
        frozenset(note.container for note in notes if isinstance(note, Note)),
    )


def _wait(findings: Sequence[Finding], settings: Settings) -> float:
    """Seconds until a second look tells what was only on its way: a view that lags behind, a DEL that a node still sends."""
    return WAIT + (
        settings.gc.own_del if any(finding.rule is AuditRule.LEAKED for finding in findings) else 0.0
    )


def _has_pods(store: Store) -> bool:
    """A cluster's API server has every pod; the embedded store has those that somebody applied."""
    from actors.store.sqlite.store import SQLiteStore

    return not isinstance(store, SQLiteStore)


def _repaired(store: Store, before: Report, wait: float | None, settings: Settings, notes: Path) -> Report:
    """What is left after the repairs. The actors are imported only here: a check alone needs none."""
    from cni.command.repairs import SETTLE, repairs

    with repairs(store, settings) as at_work:
        done = list(at_work.do(before.findings))
        time.sleep(SETTLE)
    after = look(store, wait, settings, notes)
    after.repairs = done
    return after


def _print(report: Report) -> None:
    for line in report.repairs:
        print(showable(line))
    if report.repairs:
        print()
    if report.findings:
        lines = [(finding.rule.label, finding.subject, finding.what) for finding in report.findings]
        print(render([("FINDING", "OBJECT", "WHAT"), *lines]))
        print()
        rules = dict.fromkeys(finding.rule for finding in report.findings)
        print(render([(f"{rule.label}:", rule.remedy) for rule in rules]))
        print()
    counted = ", ".join(f"{number} {name}" for name, number in report.counts.items())
    count = _number(len(report.findings), "finding") if report.findings else "nothing found"
    flux = f", {report.in_flux} in flux (run again)" if report.in_flux else ""
    print(f"{counted}: {count}{flux}")
    if not report.pods:
        print("Without Kubernetes there are no pods to compare with: leaked addresses cannot be told.")


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _as_object(report: Report) -> dict[str, Any]:
    return {
        "clean": not report.findings,
        "checked": report.counts,
        "podsCompared": report.pods,
        "findings": _findings(report.findings),
        "inFlux": report.in_flux,
        "repairs": report.repairs,
    }


def _findings(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    return [
        {
            "finding": finding.rule.label,
            "object": finding.subject,
            "what": finding.what,
            "remedy": finding.rule.remedy,
            "repairable": finding.repair is not None,
        }
        for finding in findings
    ]
