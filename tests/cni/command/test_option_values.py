"""Options whose values cannot be: refused before anything starts, with the flag, the value and what is allowed."""

from __future__ import annotations

import pytest

from cni.command.main import parser


@pytest.mark.parametrize(
    "command, flag, value, allowed",
    [
        ("agent", "--metrics-port", "99999", "-1 for none"),
        ("agent", "--metrics-port", "-2", "-1 for none"),
        ("agent", "--metrics-port", "http", "from 1 to 65535"),
        ("controller", "--metrics-port", "65536", "from 1 to 65535"),
        ("controller", "--leader-port", "-1", "from 1 to 65535"),
        ("agent", "--timeout", "-1", "from 0.05 to 3600"),
        ("agent", "--timeout", "nan", "from 0.05 to 3600"),
        ("agent", "--timeout", "inf", "from 0.05 to 3600"),
        ("agent", "--timeout", "0", "from 0.05 to 3600"),
        ("agent", "--timeout", "soon", "from 0.05 to 3600"),
        ("agent", "--leader-budget", "nan", "from 0.05 to 3600"),
        ("controller", "--lease-duration", "nan", "from 0.05 to 3600"),
        ("check", "--wait", "-1", "from 0 to 3600"),
        ("demo", "--adds", "129", "from 1 to 128"),
        ("agent", "--socket", "/run/" + "x" * 103, "107 bytes"),
        ("agent", "--socket", "", "107 bytes"),
    ],
)
def test_a_value_that_cannot_be_is_refused_with_flag_value_and_rule(
    command: str, flag: str, value: str, allowed: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as ended:
        parser(command).parse_args([command, f"{flag}={value}"])

    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert f"argument {flag}: it is {value!r}" in said
    assert allowed in said


@pytest.mark.parametrize(
    "command, flag, value",
    [
        ("agent", "--metrics-port", "-1"),
        ("agent", "--metrics-port", "65535"),
        ("agent", "--timeout", "0.05"),
        ("agent", "--socket", "/run/" + "x" * 102),
        ("check", "--wait", "0.0"),
        ("controller", "--leader-port", "0"),
    ],
)
def test_the_last_values_that_can_be_are_taken(command: str, flag: str, value: str):
    chosen = parser(command).parse_args([command, f"{flag}={value}"])

    assert str(getattr(chosen, flag.removeprefix("--").replace("-", "_"))) == value
