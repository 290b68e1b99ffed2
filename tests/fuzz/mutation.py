"""Inputs that are nearly right: those of a corpus with a few parts exchanged, repeated, nested or taken out.

What must always hold: the same seed gives the same inputs. A hundred thousand a second would be no use if each were
refused at its first character, so most of an input stays as it was; one that is answered in a way that is new can be kept,
so that the corpus grows towards what is still unknown (`run.py`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence

_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*"|[-+.\w]+|\s+|.', re.DOTALL)
_EVIL = (
    *("null", "true", "false", "0", "-1", "1e999", "-1e999", "NaN", "Infinity", "1.5", "9" * 30, "9" * 4400),
    *(
        '""',
        '" "',
        '"\\ud800"',
        '"\\udfff\\ud800"',
        '"\\u0000"',
        '"\\u001b[2J"',
        '"\\n"',
        '"\\u202e"',
        '"\\ufffe"',
    ),
    *(
        '"x"',
        '"' + "x" * 300 + '"',
        '"' + "ü" * 99 + '"',
        '"*a*1*b*c*"',
        '"[!a-"',
        '"[z-a]"',
        '"../.."',
        '"a/b"',
    ),
    *(
        "[]",
        "{}",
        "[{}]",
        "[[]]",
        '{"":""}',
        '{"a":{"b":[1]}}',
        "[" * 40 + "]" * 40,
        '{"a":' * 40 + "1" + "}" * 40,
    ),
    *(
        "[" * 1200,
        "[" * 1200 + "]" * 1200,
        '"10.0.0.1"',
        '"10.0.0.256"',
        '"::ffff:10.0.0.1"',
        '"::/0"',
        '"fd00::1%1"',
    ),
    *(
        '"2025-01-31T12:00:00Z"',
        '"0001-01-01T00:00:00+14:00"',
        '"9999-12-31T23:59:60Z"',
        '"-0"',
        '"1' + "0" * 90 + '"',
    ),
    *(
        "~",
        "%",
        "%7E",
        "%ZZ",
        "%00",
        "~~~~",
        "#",
        ":",
        "::",
        ",",
        "-",
        "=",
        ";",
        "\0",
        "\ud800",
        "\x1b",
        "\u2028",
        "é",
    ),
)
_LONGEST = 40_000


class Mutator:
    """Endless inputs out of a corpus."""

    def __init__(self, corpus: Sequence[str], seed: int) -> None:
        self._chance = random.Random(seed)
        self._known = [_TOKENS.findall(text) for text in corpus]

    def learn(self, text: str) -> None:
        """Begin with this one as well from now on."""
        self._known.append(_TOKENS.findall(text))

    def __iter__(self) -> Iterator[str]:
        chance = self._chance
        while True:
            tokens = list(chance.choice(self._known))
            for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
                self._change(tokens)
            yield "".join(tokens)[:_LONGEST]

    def _change(self, tokens: list[str]) -> None:
        chance = self._chance
        at = chance.randrange(len(tokens) + 1)
        way = chance.randrange(8)
        if way <= 2 and at < len(tokens):
            tokens[at] = chance.choice(_EVIL)
        elif way == 3:
            tokens.insert(at, chance.choice(_EVIL))
        elif way == 4:
            del tokens[at : at + chance.randrange(1, 6)]
        elif way == 5:
            tokens[at:at] = tokens[at : at + chance.randrange(1, 12)] * chance.choice((1, 1, 2, 40))
        elif way == 6 and at < len(tokens) and tokens[at]:
            token = tokens[at]
            place = chance.randrange(len(token))
            tokens[at] = token[:place] + chance.choice(chance.choice(_EVIL)) + token[place + 1 :]
        else:
            other = chance.choice(self._known)
            begin = chance.randrange(len(other) + 1)
            tokens[at:at] = other[begin : begin + chance.randrange(1, 8)]
