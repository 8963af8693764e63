"""Dataclasses from the daemon's JSON. Unknown fields are passed over, missing ones and ``null`` take their default."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from typing import Any, TypeVar

from .address import Address, Endpoint
from .errors import InvalidArgumentError, ProtocolError

T = TypeVar("T")


@functools.lru_cache(maxsize=64)
def _fields(cls: Any) -> list[tuple[str, str, Any]]:
    hints = typing.get_type_hints(cls)
    return [
        (field.name, field.metadata.get("json", field.name), hints[field.name]) for field in dataclasses.fields(cls)
    ]


def build(cls: type[T], body: Any) -> T:
    """An instance of a dataclass whose fields all have defaults."""
    if not isinstance(body, dict):
        raise ProtocolError(f"the daemon broke the protocol: {cls.__name__} is no object")
    values = {}
    for name, key, hint in _fields(cls):  # type: ignore[arg-type]
        value = body.get(key)
        if value is not None:
            values[name] = _convert(hint, value, f"{cls.__name__}.{name}")
    return cls(**values)


def build_all(cls: type[T], body: Any) -> list[T]:
    """One for each of an array; `null` is none."""
    if body is None:
        return []
    if not isinstance(body, list):
        raise ProtocolError(f"the daemon broke the protocol: no list of {cls.__name__}")
    return [build(cls, item) for item in body]


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _convert(next(arg for arg in args if arg is not type(None)), value, where)
    if origin is list and isinstance(value, list):
        return [_convert(args[0], item, where) for item in value]
    if origin is dict and isinstance(value, dict):
        return value
    if hint in (Address, Endpoint) and isinstance(value, str):
        # An address that is not there yet is an empty text with some daemons.
        try:
            return hint.parse(value) if value else hint.__new__(hint) if hint is Endpoint else Address(0, 0)
        except InvalidArgumentError as error:
            raise ProtocolError(f"the daemon broke the protocol: {where}: {error.message}") from None
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value)
    if hint is float and isinstance(value, int):
        return float(value)
    if isinstance(hint, type) and isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    raise ProtocolError(f"the daemon broke the protocol: {where} is a {type(value).__name__}")
