"""An OpenAPI document in the words of `contract.yaml`, so that the two can be compared entry by entry.

A field is `name: type`, `name?` where it may be left out. A type is `string`, `integer`, `boolean`, `time`, `uuid`, `name`
(1 to 255 characters), `object`, `<enumeration>`, `Shape`, `[type]` or `{type}` (by name); then come bounds (`1..500`, of
lengths too), a pattern (`~ ^[a-z]+$`), `| null`, and a default (`= 60`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

Json = dict[str, Any]
_BOUNDS = (
    ("minimum", "maximum"),
    ("minLength", "maxLength"),
    ("minItems", "maxItems"),
    ("minProperties", "maxProperties"),
)
_FORMATS = {"date-time": "time", "uuid": "uuid"}


class Described:
    """What a document says, as dictionaries like those of `contract.yaml`."""

    def __init__(self, document: Json, enumerations: Mapping[str, list[str]]) -> None:
        self._document = document
        self._schemas: Json = document["components"]["schemas"]
        self._enumerations = {frozenset(values): name for name, values in enumerations.items()}

    def shapes(self) -> dict[str, dict[str, str]]:
        """The fields of every object that is not an enumeration."""
        return {
            name: self._fields(schema["properties"], schema.get("required", ()))
            for name, schema in self._schemas.items()
            if "properties" in schema
        }

    def routes(self) -> dict[str, Json]:
        """Every operation by its id."""
        return {
            operation["operationId"]: self._route(f"{method.upper()} {path}", operation)
            for path, operations in self._document["paths"].items()
            for method, operation in operations.items()
        }

    def type_of(self, schema: Json) -> str:
        """A schema's type, bounds and nullability; its default is not in it."""
        if "anyOf" in schema:
            kinds = [self.type_of(each) for each in schema["anyOf"]]
            return " | ".join(sorted(kinds, key=lambda kind: kind == "null"))
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            target = self._schemas[name]
            return name if "properties" in target else self.type_of(target)
        if "enum" in schema:
            return f"<{self._enumerations.get(frozenset(schema['enum']), schema['enum'])}>"
        if "const" in schema:
            return str(schema["const"])
        return self._plain(schema)

    def _plain(self, schema: Json) -> str:
        kind = _FORMATS.get(schema.get("format", "")) or str(schema.get("type", "anything"))
        bounds = _bounds(schema)
        if kind == "array":
            kind = f"[{self.type_of(schema['items'])}]"
        elif kind == "object" and isinstance(more := schema.get("additionalProperties"), dict):
            kind = f"{{{self.type_of(more)}}}"
        elif (kind, bounds) == ("string", " 1..255"):
            return "name"
        return kind + bounds + (f" ~ {schema['pattern']}" if "pattern" in schema else "")

    def _field(self, schema: Json) -> str:
        default = schema.get("default")
        return self.type_of(schema) + ("" if default is None else f" = {json.dumps(default)}")

    def _fields(self, properties: Json, required: Any) -> dict[str, str]:
        return {
            name if name in required else f"{name}?": self._field(schema)
            for name, schema in properties.items()
        }

    def _route(self, call: str, operation: Json) -> Json:
        route: Json = {"call": call, "tag": operation["tags"][0], "answers": dict(self._answers(operation))}
        for parameter in operation.get("parameters", ()):
            name = parameter["name"] + ("" if parameter["required"] else "?")
            route.setdefault(parameter["in"], {})[name] = self._field(parameter["schema"])
        if "requestBody" in operation:
            [content] = operation["requestBody"]["content"].values()
            optional = "" if operation["requestBody"].get("required") else "?"
            route["body"] = self.type_of(content["schema"]).removesuffix(" | null") + optional
        route["problems"] = sorted(problem_codes(operation))
        return route

    def _answers(self, operation: Json) -> Iterator[tuple[int, str]]:
        for status, response in operation["responses"].items():
            content = response.get("content", {})
            if "application/problem+json" in content:
                continue
            kind, schema = next(((kind, each["schema"]) for kind, each in content.items()), ("nothing", {}))
            yield int(status), self.type_of(schema) if kind == "application/json" else kind


def problem_codes(operation: Json) -> Iterator[str]:
    """The codes that the documented problems of an operation are examples of."""
    for response in operation["responses"].values():
        yield from response.get("content", {}).get("application/problem+json", {}).get("examples", ())


def differences(wanted: Any, found: Any, path: str = "") -> list[str]:
    """A line for each entry that is missing, too much, or not the same."""
    if not (isinstance(wanted, dict) and isinstance(found, dict)):
        return [] if wanted == found else [f"{path}: {wanted!r} is agreed, and described is {found!r}"]
    lines = [f"{path}.{key}: is not described" for key in wanted.keys() - found.keys()]
    lines += [f"{path}.{key}: was not agreed" for key in found.keys() - wanted.keys()]
    for key in wanted.keys() & found.keys():
        lines += differences(wanted[key], found[key], f"{path}.{key}")
    return sorted(line.lstrip(".") for line in lines)


def _bounds(schema: Json) -> str:
    for low, high in _BOUNDS:
        if low in schema or high in schema:
            from_, to = (format(schema[end], ".0f") if end in schema else "" for end in (low, high))
            return f" {from_}..{to}"
    return ""


def address(call: str, **values: str) -> tuple[str, str]:
    """`GET /tokens/{provider}` as the method and a path, with `x` for what is not given."""
    method, _, path = call.partition(" ")
    return method, re.sub(r"\{(\w+)\}", lambda name: values.get(name[1], "x"), path)
