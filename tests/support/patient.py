"""A client that asks again where it is told to, as a runtime's caller does on a machine that has much else to do."""

from __future__ import annotations

import time

from tests.support.agent_process import AgentProcess
from tests.support.cni_client import Answer, ask

PATIENCE = 120.0
_AGAIN = 11


def add(agent: AgentProcess, request: bytes) -> Answer:
    """The answer to an ADD, which is "try again later" only when that has been said for so long."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = ask(agent.socket, request)
        if not answer.status or answer.json.get("code") != _AGAIN or time.monotonic() > deadline:
            return answer
        time.sleep(0.1)
