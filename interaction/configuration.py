"""From plain mappings to frozen dataclasses and back.

In: a nested mapping (an `ml_collections.ConfigDict`, or JSON). Out: the dataclass, built field by
field with its own checks; unknown keys raise and name the nearest known one. `to_dict` is the
inverse, fit for JSON; `with_overrides` changes single fields of the mapping before. This is the
door behind which no ConfigDict is seen.
"""

import ast
import copy
import dataclasses
import difflib
import enum
import types
import typing
from collections.abc import Mapping
from typing import Any


def build[T](cls: type[T], values: Mapping[str, Any], *, where: str = "config") -> T:
    """An instance of dataclass `cls` from `values`.

    Args:
        cls: a dataclass whose annotations are dataclasses, enums, tuples, scalars or unions of
            these with None.
        values: field name to value; missing fields take their default.
        where: name of this level in error messages.

    Raises:
        ValueError: an unknown or a missing key, or a value that does not fit its field; names the
            field.
    """
    hints = typing.get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
            raise ValueError(f"{where} has no field {key!r}{hint}")
    missing = [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.name not in values
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}")
    made = {key: _convert(hints[key], value, f"{where}.{key}") for key, value in values.items()}
    return cls(**made)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = [a for a in arguments if a is not type(None)]
        return _convert(hint, value, where)
    if dataclasses.is_dataclass(hint):
        if isinstance(value, hint):  # type: ignore[arg-type]
            return value
        if not hasattr(value, "items"):
            raise ValueError(f"{where} must be a mapping, not {value!r}")
        return build(hint, dict(value.items()), where=where)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, tuple | list):
            raise ValueError(f"{where} must be a list, not {value!r}")
        inner = arguments[0]
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_convert(inner, v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(value) != len(arguments):
            raise ValueError(f"{where} must hold {len(arguments)} values, not {value!r}")
        return tuple(
            _convert(a, v, f"{where}[{i}]")
            for i, (a, v) in enumerate(zip(arguments, value, strict=True))
        )
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        if isinstance(value, hint):
            return value
        known = [member.value for member in hint]
        if value not in known:
            raise ValueError(f"{where}={value!r} is not one of {known}")
        return hint(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and hint in (int, float, str, bool) and type(value) is not hint:
        raise ValueError(f"{where} must be of type {hint.__name__}, not {value!r}")
    return value


def to_dict(value: Any) -> Any:
    """The plain (JSON) form of a dataclass that `build` reads."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_dict(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple | list):
        return [to_dict(v) for v in value]
    return value


def with_overrides(values: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """`values` with each ``a.b=value`` put in its place (unknown keys raise when it is built).

    Args:
        values: nested dict; left as it is.
        overrides: a Python literal after the first ``=``, or else a string.

    Raises:
        ValueError: no ``=``, or a path through something that is no section.
    """
    result = copy.deepcopy(values)
    for override in overrides:
        path, equals, text = override.partition("=")
        if not equals or not path:
            raise ValueError(f"--set {override}: write it as section.field=value")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            value = text
        section = result
        *sections, field = path.split(".")
        for name in sections:
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                raise ValueError(f"--set {override}: {name} is a value ({section!r}), no section")
        section[field] = value
    return result
