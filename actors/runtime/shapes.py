"""Whether a value is what an annotation says: the check of everything that a peer sends.

What must always hold: what passes here cannot make a handler meet a value of another type than it declares, as far as
annotations tell. An annotation that is not understood admits nothing, so that it shows in the first test.
"""

from __future__ import annotations

import dataclasses
import enum
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

Check = Callable[[Any], bool]

_SCALARS: dict[Any, Check] = {
    Any: lambda value: True,
    object: lambda value: True,
    None: lambda value: value is None,
    type(None): lambda value: value is None,
    int: lambda value: type(value) is int,
    float: lambda value: type(value) is float or type(value) is int,
    bool: lambda value: type(value) is bool,
    str: lambda value: type(value) is str,
    bytes: lambda value: type(value) is bytes,
}
_checks: dict[Any, Check] = dict(_SCALARS)


def fits(value: Any, annotation: Any) -> bool:
    """Whether `value` is of the type that a resolved annotation means."""
    return _check(annotation)(value)


def field_checks(cls: type) -> dict[str, Check]:
    """For each field of a dataclass, whether a value is what its resolved annotation means."""
    hints = typing.get_type_hints(cls)
    return {field.name: _check(hints[field.name]) for field in dataclasses.fields(cls)}


@dataclasses.dataclass(frozen=True, slots=True)
class Parameters:
    """What a message takes: the types of its named parameters, in order, and that of further ones (`*args`)."""

    named: dict[str, Any]
    further: Any = None

    @classmethod
    def of(cls, function: Callable[..., Any]) -> Parameters:
        """Those of a method, without `self`. A parameter without annotation takes anything."""
        hints = typing.get_type_hints(function)
        named, further = {}, None
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                further = hints.get(parameter.name, Any)
            else:
                named[parameter.name] = hints.get(parameter.name, Any)
        return cls(named, further)

    def misfit(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """What of a call's arguments does not fit, or None. Whether one is missing shows when the message is called."""
        extra = args[len(self.named) :]
        given = {**dict(zip(self.named, args, strict=False)), **kwargs}
        if (extra and self.further is None) or not given.keys() <= self.named.keys():
            return "it takes other arguments"
        wrong = [name for name, value in given.items() if not fits(value, self.named[name])]
        if wrong:
            return f"{wrong[0]} came as {type(given[wrong[0]]).__name__}"
        if not all(fits(value, self.further) for value in extra):
            return "a further argument is of another type"
        return None


def _check(annotation: Any) -> Check:
    check = _checks.get(annotation)
    if check is None:
        check = _checks[annotation] = _made(annotation)
    return check


def _made(annotation: Any) -> Check:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        options = [_check(argument) for argument in arguments]
        return lambda value: any(option(value) for option in options)
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _each(tuple, _check(arguments[0]))
    if origin is tuple:
        parts = [_check(argument) for argument in arguments]
        return lambda value: (
            type(value) is tuple
            and len(value) == len(parts)
            and all(part(element) for part, element in zip(parts, value, strict=True))
        )
    if origin in (list, frozenset):
        return _each(origin, _check(arguments[0]))
    if origin is dict:
        key, item = (_check(argument) for argument in arguments)
        return lambda value: (
            type(value) is dict and all(key(member) and item(other) for member, other in value.items())
        )
    if isinstance(annotation, type) and (
        dataclasses.is_dataclass(annotation) or issubclass(annotation, enum.Enum)
    ):
        return lambda value: type(value) is annotation
    return lambda value: False


def _each(container: Any, check: Check) -> Check:
    def each(value: Any) -> bool:
        return type(value) is container and all(check(element) for element in value)

    return each
