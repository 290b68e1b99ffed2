"""KubeVirt's VirtualMachine and VirtualMachineInstance: whether a machine will run again.

What must always hold: a machine has one name; its instance, if it runs, has the same one (KubeVirt user guide,
"Lifecycle"). Pods of an instance come and go, and are named anew each time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.resources.metadata import open_object

MACHINE = "VirtualMachine"
INSTANCE = "VirtualMachineInstance"
GROUP = "kubevirt.io"


@dataclass(frozen=True, slots=True)
class VirtualMachine:
    """A VirtualMachine or a VirtualMachineInstance of KubeVirt."""

    namespace: str
    """Of the object, and of its pods."""
    name: str
    """The same for a machine and its instance."""
    terminating: bool = False
    """Whether it is being deleted."""
    of_machine: bool = False
    """It is an instance that a VirtualMachine controls, and will start again."""
    uid: str = ""
    """Of the object."""

    @classmethod
    def from_machine(cls, obj: Mapping[str, Any]) -> VirtualMachine:
        """Parse a VirtualMachine. Raises `InvalidObject`."""
        return cls._from(obj, MACHINE)

    @classmethod
    def from_instance(cls, obj: Mapping[str, Any]) -> VirtualMachine:
        """Parse a VirtualMachineInstance. Raises `InvalidObject`."""
        return cls._from(obj, INSTANCE)

    @classmethod
    def _from(cls, obj: Mapping[str, Any], kind: str) -> VirtualMachine:
        meta, _ = open_object(obj, kind)
        owner = meta.owner
        return cls(
            meta.namespace or "default",
            meta.name,
            terminating=meta.deleted_at is not None,
            uid=meta.uid,
            of_machine=owner is not None and owner.group == GROUP and owner.kind == MACHINE,
        )


def lives(machine: VirtualMachine | None, instance: VirtualMachine | None) -> bool:
    """Whether the machine runs or will run again; None where there is no such object."""
    if instance is not None:
        if not instance.terminating:
            return True
        if not instance.of_machine:
            return False
    return machine is not None and not machine.terminating
