"""The event loop behind every socket of ours: uvloop, of which only this module knows.

The standard library's loop runs in Python what libuv runs in C. An agent's threads share one interpreter lock, and under
load the loop held it for 42 % of the time.
"""

from __future__ import annotations

import asyncio

import uvloop


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A loop that no thread runs yet."""
    return uvloop.new_event_loop()
