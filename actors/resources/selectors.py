"""Kubernetes label selectors (`metav1.LabelSelector`).

What must always hold: all requirements must match, an empty selector matches everything, and `NotIn` matches
a label that is absent, as in Kubernetes. A selector that cannot be evaluated is refused when it is parsed, so
matching never fails.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from actors.resources.fields import Fields, nearest

OPERATORS = ("In", "NotIn", "Exists", "DoesNotExist")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One line of `matchExpressions`."""

    key: str
    operator: str
    values: tuple[str, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels meets it. Like Kubernetes', `NotIn` is met by one without the label."""
        if self.operator == "In":
            return labels.get(self.key) in self.values
        if self.operator == "NotIn":
            return labels.get(self.key) not in self.values
        return (self.key in labels) == (self.operator == "Exists")

    def __str__(self) -> str:
        if self.operator in ("In", "NotIn"):
            return f"{self.key} {'in' if self.operator == 'In' else 'not in'} ({', '.join(self.values)})"
        return self.key if self.operator == "Exists" else f"!{self.key}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """`str()` gives the form that `kubectl -l` takes."""

    labels: tuple[tuple[str, str], ...]
    expressions: tuple[Requirement, ...]

    @classmethod
    def from_fields(cls, fields: Fields) -> LabelSelector:
        """Raises the error of `fields` for an unknown field or operator, or values that do not fit the
        operator."""
        fields.only("matchLabels", "matchExpressions")
        expressions = []
        for item in fields.items("matchExpressions"):
            item.only("key", "operator", "values")
            operator, values = item.text("operator"), item.texts("values")
            if not item.text("key"):
                raise item.refuse("key", "but every expression needs the name of a label")
            if operator not in OPERATORS:
                raise item.refuse("operator", "which is not an operator", nearest(operator, OPERATORS))
            if operator in ("In", "NotIn") and not values:
                raise item.refuse("values", f"but operator {operator} needs at least one value")
            if operator in ("Exists", "DoesNotExist") and values:
                raise item.refuse("values", f"but operator {operator} takes no values", "remove them")
            expressions.append(Requirement(item.text("key"), operator, values))
        return cls(tuple(sorted(fields.labels("matchLabels").items())), tuple(expressions))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels meets all of it; an empty selector is met by every object."""
        return all(labels.get(key) == value for key, value in self.labels) and all(
            requirement.matches(labels) for requirement in self.expressions
        )

    def label_keys(self) -> Iterator[tuple[str, str]]:
        """Each label's key, and where in the selector it stands."""
        yield from (("matchLabels", key) for key, _ in self.labels)
        yield from (
            (f"matchExpressions[{index}].key", expression.key)
            for index, expression in enumerate(self.expressions)
        )

    def label_values(self) -> Iterator[tuple[str, str]]:
        """Each value, and where in the selector it stands."""
        yield from ((f"matchLabels.{key}", value) for key, value in self.labels)
        for index, expression in enumerate(self.expressions):
            yield from ((f"matchExpressions[{index}].values", value) for value in expression.values)

    @property
    def empty(self) -> bool:
        return not self.labels and not self.expressions

    def __str__(self) -> str:
        parts = [f"{key}={value}" for key, value in self.labels] + [str(part) for part in self.expressions]
        return ", ".join(parts) or "(everything)"
