"""Whether a value is what a schema of the OpenAPI document says: no field is missing, and none is there untold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

Json = dict[str, Any]

_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


def _is_uuid(text: str) -> bool:
    try:
        return UUID(text).version == 7 and text == text.lower()
    except ValueError:
        return False


def _anything(_text: str) -> bool:
    return True


_FORMATS: Mapping[str, Callable[[str], bool]] = {
    "date-time": lambda text: _TIME.fullmatch(text) is not None,  # RFC 3339, in UTC, ending in Z
    "uuid": _is_uuid,
}


class Schemas:
    """The schemas of a document."""

    def __init__(self, document: Json) -> None:
        self._schemas: Json = document["components"]["schemas"]

    def target(self, schema: Json) -> Json:
        """What a reference leads to, or that which may be null beside it."""
        if "anyOf" in schema:
            schema = next(each for each in schema["anyOf"] if each.get("type") != "null")
        if "$ref" in schema:
            found: Json = self._schemas[schema["$ref"].rpartition("/")[2]]
            return found
        return schema

    def mistakes(self, schema: Json, value: Any, path: str = "") -> list[str]:
        """A line for each thing in `value` that `schema` does not allow."""
        return list(self._mistakes(schema, value, path))

    def _mistakes(self, schema: Json, value: Any, path: str) -> Iterator[str]:
        if "$ref" in schema:
            yield from self._mistakes(self.target(schema), value, path)
        elif "anyOf" in schema:
            found = [self.mistakes(each, value, path) for each in schema["anyOf"]]
            yield from () if [] in found else min(found, key=len)
        elif not _is_of_type(schema.get("type"), value):
            yield f"{path}: {value!r} is no {schema['type']}"
        elif value not in schema.get("enum", [value]) or value != schema.get("const", value):
            yield f"{path}: {value!r} is not among the values"
        else:
            yield from self._within(schema, value, path)

    def _within(self, schema: Json, value: Any, path: str) -> Iterator[str]:
        if isinstance(value, str) and not _FORMATS.get(schema.get("format", ""), _anything)(value):
            yield f"{path}: {value!r} is no {schema['format']}"
        elif isinstance(value, list):
            for index, item in enumerate(value):
                yield from self._mistakes(schema["items"], item, f"{path}[{index}]")
        elif isinstance(value, dict):
            yield from self._of_object(schema, value, path)

    def _of_object(self, schema: Json, value: Json, path: str) -> Iterator[str]:
        properties = schema.get("properties", {})
        for name in set(schema.get("required", ())) - value.keys():
            yield f"{path}.{name}: is missing"
        for name, item in value.items():
            if name in properties:
                yield from self._mistakes(properties[name], item, f"{path}.{name}")
            elif properties:
                yield f"{path}.{name}: is not described"
            elif isinstance(more := schema.get("additionalProperties"), dict):
                yield from self._mistakes(more, item, f"{path}.{name}")


def _is_of_type(kind: str | None, value: Any) -> bool:
    if kind is None:
        return True
    return isinstance(value, _TYPES[kind]) and not (isinstance(value, bool) and kind != "boolean")
