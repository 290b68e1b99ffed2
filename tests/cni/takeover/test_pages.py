"""The pages of takeovers: each command on them is one that there is."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from cni.command.main import parser

_ROOT = Path(__file__).parents[3]
PAGES = sorted((_ROOT / "docs").glob("*/takeover-*.md"))
_COMMAND = re.compile(r"^orbweaver (.+)$", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_every_command_can_be_parsed(page):
    commands = [shlex.split(line) for line in _COMMAND.findall(page.read_text())]

    assert any("--back" in words for words in commands)
    for words in commands:
        parser(words[0]).parse_args(words)


def test_the_pod_of_a_node_has_arguments_that_can_be_parsed():
    text = (_ROOT / "docs" / "en" / "takeover-host-local.md").read_text()
    (arguments,) = re.findall(r"^ +args: \[(.+)\]$", text, re.MULTILINE)

    words = arguments.split(", ")

    assert parser(words[0]).parse_args(words).write_conf


@pytest.mark.parametrize("text", ["-1", "x", "nan", "1e9"])
def test_a_wait_that_is_none_is_refused(capsys, text):
    with pytest.raises(SystemExit):
        parser("takeover").parse_args(["takeover", "--from", "whereabouts", "--settle", text])

    assert "is no number of seconds, from 0 to 3600" in capsys.readouterr().err
