"""Fuzzes every reader with other inputs each time: `./try fuzz [--inputs N] [--seed N] [--corpus DIR] [TARGET …]`.

An input that is answered in a way that was not seen before is kept in the corpus, and what comes after is made of it too.
One for which a reader raises what is no error of ours is kept as `crash-…`, told, and makes the exit status 1; the tests
fail on it from then on.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from pathlib import Path

from tests.fuzz.corpus import ROOT, add, corpus_of
from tests.fuzz.mutation import Mutator
from tests.fuzz.targets import TARGETS

KEPT = 40
"""Inputs that one run adds to the corpus of a target at most, and how long they may be."""
LONGEST = 2_000


def fuzz(name: str, inputs: int, seed: int, corpus: Path) -> list[str]:
    """The crashes of one target."""
    target, known = TARGETS[name], corpus_of(name, corpus if (corpus / name).is_dir() else ROOT)
    mutator = Mutator(known, seed)
    seen = set()
    for text in known:
        seen.add(target(text))
    crashes: list[str] = []
    kept = 0
    began = time.monotonic()
    mutated = iter(mutator)
    for _ in range(inputs):
        text = next(mutated)
        try:
            outcome = target(text)
        except Exception as error:
            crashes.append(f"{type(error).__name__}: {error}: {add(name, text, corpus, kind='crash')}")
            if len(crashes) == 10:
                break
            continue
        if outcome not in seen and len(text) <= LONGEST and kept < KEPT:
            seen.add(outcome)
            mutator.learn(text)
            add(name, text, corpus)
            kept += 1
    took = time.monotonic() - began
    print(f"{name}: {inputs} inputs in {took:.1f} s, {kept} kept, {len(crashes)} crashes", flush=True)
    return crashes


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all by default"
    )
    parser.add_argument(
        "--inputs", type=int, default=1_000_000, help="for all targets together (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=None, help="by chance, and told")
    parser.add_argument("--corpus", type=Path, default=ROOT, help="where inputs are kept (%(default)s)")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.targets if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]!r}")
    seed = random.randrange(2**32) if chosen.seed is None else chosen.seed
    print(f"seed {seed}", flush=True)
    names = chosen.targets or list(TARGETS)
    crashes = [
        crash for name in names for crash in fuzz(name, chosen.inputs // len(names), seed, chosen.corpus)
    ]
    for crash in crashes:
        print(crash, file=sys.stderr)
    return 1 if crashes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
