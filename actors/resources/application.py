"""The top controller of pods: the object whose replicas they are, for which a subnet makes a pool.

What must always hold: two objects are the same application if they agree in group, version, kind, namespace, name and UID;
`identity` leaves version and UID out, because one of the same name and kind that is made again takes over what was kept.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Application:
    """Which object runs a pod, by the parts of its reference."""

    group: str
    """Of its API, empty for the core API (`v1`)."""
    version: str
    """Of its API, without the group."""
    kind: str
    """As in manifests."""
    namespace: str
    """Its pods' namespace too."""
    name: str
    """Its name."""
    uid: str = ""
    """Empty where nobody said it."""

    @property
    def group_version(self) -> str:
        """`apps_v1`, or `v1` without a group, as labels of pools have it."""
        return f"{self.group}_{self.version}" if self.group else self.version

    @property
    def api_version(self) -> str:
        """As objects name it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def text(self) -> str:
        """`apps_v1_Deployment_shop_web`, as a subnet's status names who has a pool."""
        return f"{self.group_version}_{self.kind}_{self.namespace}_{self.name}"

    @property
    def identity(self) -> tuple[str, str, str, str]:
        """Group, kind, namespace and name."""
        return self.group, self.kind, self.namespace, self.name

    @property
    def title(self) -> str:
        """As people are told of it."""
        return f"{self.kind} {self.namespace}/{self.name}"
