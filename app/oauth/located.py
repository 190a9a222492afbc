"""A YAML file as plain values, with the line of every field, so that a mistake can be named where it stands.

    bytes (64 KiB, UTF-8) -> events (no aliases, no tags, not too deep) -> nodes (no key twice) -> Document

The values are those of YAML's safe loader. Aliases are refused: with them a small file unfolds to any size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import yaml

MAX_BYTES = 64 * 1024
MAX_DEPTH = 16

MAX_NUMBER = 40  # characters

_TEXT = "tag:yaml.org,2002:str"
_OTHER = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null", "timestamp"))
_SURROGATE = re.compile("[\ud800-\udfff]")

Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Mistake:
    line: int  # the first is 1
    at: Loc  # empty where the file as a whole is meant
    sentence: str


@dataclass(frozen=True, slots=True)
class Document:
    """`fields` is None where nothing could be read; else it holds all that is left beside the `mistakes`."""

    fields: Mapping[str, object] | None
    lines: Mapping[Loc, int]
    mistakes: Sequence[Mistake]

    def line_of(self, at: Loc) -> int:
        """Where the field stands, or what would hold it if it is missing."""
        while at and at not in self.lines:
            at = at[:-1]
        return self.lines.get(at, 1)


def read(path: Path) -> Document:
    """Never raises for what the file holds, nor for its being unreadable: both are `mistakes`."""
    try:
        root = _root(_text(path))
    except _Unfit as unfit:
        return Document(fields=None, lines={}, mistakes=[unfit.mistake])
    reading = _Reading()
    fields = reading.mapping(root, at=())
    return Document(fields=fields, lines=reading.lines, mistakes=reading.mistakes)


class _Unfit(Exception):
    """Nothing in the file can be used."""

    def __init__(self, line: int, sentence: str) -> None:
        super().__init__(sentence)
        self.mistake = Mistake(line, (), sentence)


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise _Unfit(1, "is not a regular file; take it out of the folder, or rename it")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _Unfit(1, f"cannot be read ({error.strerror}); mend the link or the permissions") from error
    if len(content) > MAX_BYTES:
        raise _Unfit(1, "is over 64 KiB; an entry needs a few dozen lines, so is this the right file?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Unfit(line, f"is not UTF-8 (byte 0x{content[error.start]:02x}); save it as UTF-8") from error


def _root(text: str) -> yaml.MappingNode:
    try:
        _refuse_traps(text)
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _Unfit(line, f"holds the control character U+{error.character:04X}; take it out") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        wrong = ", ".join(part for part in (error.context, error.problem) if part)
        raise _Unfit(line, f"is not YAML ({wrong}); mend it here or above") from error
    if root is None:
        raise _Unfit(1, "is empty; give it at least name and token_url or issuer")
    if not isinstance(root, yaml.MappingNode):
        raise _Unfit(_line(root), "must hold fields at its top level, each as `field: value`")
    return root


def _refuse_traps(text: str) -> None:
    """Before anything is built of the text: these cost more than they look, or make what is no plain value."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = _line(event)
        if isinstance(event, yaml.AliasEvent):
            raise _Unfit(
                line, f"uses the alias *{event.anchor}; aliases are not read here, write the value out"
            )
        if tag := getattr(event, "tag", None):
            raise _Unfit(line, f"uses the tag {tag}; tags are not read here, write a plain value")
        if isinstance(event, yaml.ScalarEvent) and _SURROGATE.search(event.value):
            raise _Unfit(
                line, "holds half of a character, an escape from \\ud800 to \\udfff; write the character"
            )
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _Unfit(line, f"is nested deeper than {MAX_DEPTH}; an entry has 4 levels")


@dataclass(slots=True)
class _Reading:
    """Nodes to plain values; keeps each field's line, and goes on after a mistake."""

    lines: dict[Loc, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    _scalars: yaml.SafeLoader = field(default_factory=lambda: yaml.SafeLoader(""))

    def mapping(self, node: yaml.MappingNode, *, at: Loc) -> dict[str, object]:
        self.lines.setdefault(at, _line(node))
        fields: dict[str, object] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            key = self._key(key_node, at=at)
            if key is None:
                continue
            if key in fields:
                first = self.lines[*at, key]
                self._found(line, (*at, key), f"stands on line {first} already; keep one of the two")
                continue
            self.lines[*at, key] = line
            fields[key] = self._value(value_node, at=(*at, key))
        return fields

    def _key(self, node: yaml.Node, *, at: Loc) -> str | None:
        if node.tag == _TEXT:
            return str(node.value)
        shown = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        self._found(
            _line(node), at, f"a field's name must be text (got {shown}); put it in quotes if you mean it"
        )
        return None

    def _value(self, node: yaml.Node, *, at: Loc) -> object:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, at=at)
        if isinstance(node, yaml.SequenceNode):
            return [self._item(item, at=(*at, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, at=at)

    def _item(self, node: yaml.Node, *, at: Loc) -> object:
        self.lines[at] = _line(node)
        return self._value(node, at=at)

    def _scalar(self, node: yaml.Node, *, at: Loc) -> object:
        if node.tag not in _OTHER:
            return node.value
        try:
            if len(node.value) <= MAX_NUMBER:
                return self._scalars.construct_object(node)
        except ValueError:  # such as 2030-02-31, which looks like a date
            pass
        self._found(
            _line(node), at, f"{node.value[:MAX_NUMBER]} is neither a number nor a date; put it in quotes"
        )
        return node.value

    def _found(self, line: int, at: Loc, sentence: str) -> None:
        self.mistakes.append(Mistake(line, at, sentence))


def _line(part: yaml.Event | yaml.Node) -> int:
    return part.start_mark.line + 1 if part.start_mark else 1
