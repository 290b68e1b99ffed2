"""What a command prints, made safe for the terminal that shows it.

What must always hold: no character of a text that somebody else wrote (names, annotations, errors of a cluster) moves the
cursor, colours or clears anything, turns the direction of writing around, or begins a line of its own: such characters
are shown as escapes. The commands' own line ends and tabs alone go through.
"""

from __future__ import annotations

from typing import Any, TextIO, cast

from actors.resources.json_text import showable


class _Printable:
    """A text stream through which only characters that can be shown get to another one."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        self._stream.write(printable_lines(text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def printable(stream: TextIO) -> TextIO:
    """The stream to print to in its place."""
    return cast("TextIO", _Printable(stream))


def printable_lines(text: str) -> str:
    """The text with everything escaped that can neither be shown nor ends a line."""
    if is_printable(text):
        return text
    return "".join(char if char in "\n\t" else showable(char) for char in text)


def is_printable(text: str) -> bool:
    """Whether the text is shown as it is."""
    return text.replace("\n", "").replace("\t", "").isprintable()
