"""An entry of a block whose content cannot be judged: nobody knows who has the address.

What must always hold: it costs its own address and no other. It is kept as it stands, so that whoever can judge it later
(a newer version, a person) finds it; but of a long one only the beginning, since every write of the block carries it.
A version that does not know this form takes the block for damaged and leaves it alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote, unquote

LONGEST_KEPT = 4096
"""Characters of an entry that are kept. An ordinary one has some 200."""
_MARK = "!"
_SAFE = "#:,/{}[]()*+;=?@$|^'"
"""What stands as it is, beside letters, digits and `_.-~`; the mark and what JSON would write as two bytes do not."""


@dataclass(frozen=True, slots=True)
class Unjudged:
    """`entry`: as it is written behind the address's offset, `!TEXT!`, or `!!TEXT!` where the end of the text is left out.
    `why`: what of it cannot be judged, in one clause."""

    entry: str
    why: str

    @classmethod
    def of(cls, text: str, why: str) -> Unjudged:
        """An entry that was read for the first time; `text` is a text of records by itself, with this entry only."""
        written = quote(text[: LONGEST_KEPT + 1], safe=_SAFE, errors="surrogatepass")
        entry = f"{_MARK}{written}{_MARK}"
        return cls(entry, why) if len(written) <= LONGEST_KEPT else cls.shortened(entry, why)

    @classmethod
    def shortened(cls, entry: str, why: str) -> Unjudged:
        """One of which only the beginning is kept."""
        written = quote(entry.strip(_MARK), safe=_SAFE + "%", errors="surrogatepass")
        return cls(f"{_MARK}{_MARK}{written[:LONGEST_KEPT]}{_MARK}", why)

    @property
    def text(self) -> str:
        """What stood there, as far as it is kept."""
        return text_of(self.entry)


def is_unjudged(entry: str) -> bool:
    """Whether what stands behind an offset is of this form, or the beginning of one."""
    return entry.startswith(_MARK)


def is_complete(entry: str) -> bool:
    """Whether the end of the form is there."""
    return len(entry) > 2 and entry.endswith(_MARK)


def is_shortened(entry: str) -> bool:
    """Whether only the beginning of what stood there is kept."""
    return entry.startswith(_MARK + _MARK)


def text_of(entry: str) -> str:
    """What stood there."""
    return unquote(entry.strip(_MARK), errors="surrogatepass")
