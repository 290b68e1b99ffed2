"""NetworkAttachmentDefinition: a network that pods name in their annotations, and its CNI configuration.

What must always hold: whoever may write objects in a namespace writes these, so the text inside is bounded and read when
it is needed, not before: one network that cannot be read costs its own pods. Field names are those of the "Kubernetes
Network Custom Resource Definition De-facto Standard", version 1.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from actors.errors import InvalidObject
from actors.resources.fields import Fields
from actors.resources.json_text import UnreadableText, read_json, showable
from actors.resources.metadata import Owner, open_object

KIND = "NetworkAttachmentDefinition"
API_VERSION = "k8s.cni.cncf.io/v1"
LONGEST_CONFIG, DEEPEST_CONFIG = 1 << 16, 24
"""Bytes of a configuration, and values inside values: of a plugin that a SpiderMultusConfig chains, two more than it says."""
RESOURCE_NAME = "k8s.v1.cni.cncf.io/resourceName"
"""The annotation that names the device plugin's resource, of which each pod of this network gets one."""


@dataclass(frozen=True, slots=True)
class NetworkAttachment:
    """A NetworkAttachmentDefinition."""

    namespace: str
    """Of the object."""
    name: str
    """Of the object, by which pods name it."""
    uid: str
    """Of the object."""
    version: str
    """Of the object, as it was read."""
    annotations: Mapping[str, str]
    """With the resource of a device plugin."""
    owner: Owner | None
    """The object that it was made from, as it says."""
    terminating: bool
    """Whether it is being deleted."""
    config: str
    """The CNI configuration as text; empty where the node's own file of that name is meant."""

    @property
    def key(self) -> str:
        """`namespace/name`, as pods name it."""
        return f"{self.namespace}/{self.name}"

    @classmethod
    def from_object(cls, obj: Mapping[str, Any]) -> NetworkAttachment:
        """Parse the API object; the configuration inside is left unread. Raises `InvalidObject`."""
        meta, top = open_object(obj, KIND)
        return cls(
            namespace=meta.namespace,
            name=meta.name,
            uid=meta.uid,
            version=meta.version,
            annotations=meta.annotations,
            owner=meta.owner,
            terminating=meta.deleted_at is not None,
            config=top.inner("spec").text("config"),
        )

    def configuration(self) -> Fields:
        """What `config` says, as named fields; empty without one. Raises `InvalidObject`."""
        subject = showable(f"{KIND} {self.key}")
        try:
            configuration = (
                read_json(self.config, longest=LONGEST_CONFIG, deepest=DEEPEST_CONFIG, only_showable=False)
                if self.config.strip()
                else {}
            )
        except UnreadableText as error:
            raise InvalidObject(
                f"{subject}: spec.config is no CNI configuration: {error}; write a JSON object with cniVersion, name and "
                "type or plugins"
            ) from error
        return Fields.of(subject, "spec.config", configuration)

    def plugins(self) -> tuple[Fields, ...]:
        """The plugins in the order in which they run. Raises `InvalidObject`."""
        conf = self.configuration()
        plugins = conf.items("plugins") if conf.has("plugins") else (conf,) if conf.data else ()
        for plugin in plugins:
            if not plugin.text("type"):
                raise plugin.refuse(
                    "type", "but every plugin is named by its type", "write one, such as macvlan"
                )
        return plugins


def for_attaching(obj: Mapping[str, Any]) -> NetworkAttachment:
    """Of an object what a node needs to attach pods to it, for its cache of all networks; a configuration that is too long
    is cut where its reader still sees that. Raises `InvalidObject`."""
    network = NetworkAttachment.from_object(obj)
    resource = network.annotations.get(RESOURCE_NAME, "")[:LONGEST_CONFIG]
    return replace(
        network,
        annotations={RESOURCE_NAME: resource} if resource else {},
        config=network.config[: LONGEST_CONFIG + 1],
    )


def admit_network_attachment(obj: Mapping[str, Any]) -> None:
    """Refuse a network that no pod could be attached to. Raises `InvalidObject`."""
    _, top = open_object(obj, KIND)
    top.only("apiVersion", "kind", "metadata", "spec")
    top.inner("spec").only("config")
    NetworkAttachment.from_object(obj).plugins()
