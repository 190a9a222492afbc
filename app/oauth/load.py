"""Loads the catalogue: our own entries, then a folder of the operator's. All mistakes are named at once.

    catalogue/*.yaml  BROKER_PROVIDERS_DIR/*.yaml|yml -> located.read -> Provider -> by name, theirs over ours

A mistake reads `acme.yaml:12: refresh_token.rotation: must be one of never, graced, strict (got 'sometimes')`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.errors import ConfigurationError
from app.oauth import located, urls
from app.oauth.located import Document, Loc, Mistake
from app.oauth.provider import Provider
from app.outbound.addresses import Network, Reachable

OURS = Path(__file__).with_name("catalogue")


def load_catalogue(
    *, more: Path | None = None, allow_loopback: bool = False, networks: tuple[Network, ...] = ()
) -> Mapping[str, Provider]:
    """Every provider we know, by name: our own, then those of the folder `more`, which replace ours of their name.

    URLs on this machine are for development: without `allow_loopback` our own entries that have them are left out,
    and in `more` they are mistakes. So are addresses that are neither public nor in one of the `networks`.
    Raises ConfigurationError with a sentence for every mistake of every file.
    """
    ours, our_mistakes = _ours()
    theirs = _Folder.read(more) if more else _Folder({}, [])
    mistakes = [*our_mistakes, *theirs.mistakes]
    if not allow_loopback:
        mistakes += [sentence for entry in theirs.entries.values() for sentence in entry.loopback_mistakes()]
    reachable = Reachable(networks, allow_loopback)
    mistakes += [
        sentence for entry in theirs.entries.values() for sentence in entry.address_mistakes(reachable)
    ]
    if mistakes:
        raise ConfigurationError(mistakes)
    kept = [provider for provider in ours if allow_loopback or not provider.is_loopback]
    by_name = {
        provider.name: provider
        for provider in (*kept, *(entry.provider for entry in theirs.entries.values()))
    }
    return MappingProxyType(dict(sorted(by_name.items())))


@dataclass(frozen=True, slots=True)
class _Entry:
    file: str
    document: Document
    provider: Provider

    def sentence(self, field: str, wrong: str) -> str:
        at = tuple(field.split("."))
        return _sentence(self.file, Mistake(self.document.line_of(at), at, wrong))

    def loopback_mistakes(self) -> Iterator[str]:
        for field, url in self.provider.every_url.items():
            if urls.is_loopback(url):
                yield self.sentence(
                    field,
                    f"leads to this machine (got {url!r}); set BROKER_ALLOW_LOOPBACK_UPSTREAMS=true if this is "
                    "development, or write the provider's own URL",
                )

    def address_mistakes(self, reachable: Reachable) -> Iterator[str]:
        """What a name leads to is seen only when it is asked for; this is about hosts that are addresses."""
        for field, url in self.provider.every_url.items():
            address = urls.address_in(url)
            if address is not None and not urls.is_loopback(url) and not reachable.admits(address):
                yield self.sentence(
                    field,
                    f"leads to {address}, which is no public address; write the provider's host name, or name its network "
                    "in BROKER_UPSTREAM_NETWORKS",
                )


@dataclass(frozen=True, slots=True)
class _Folder:
    entries: Mapping[str, _Entry]  # by the provider's name
    mistakes: list[str]

    @classmethod
    def read(cls, folder: Path) -> _Folder:
        entries: dict[str, _Entry] = {}
        mistakes: list[str] = []
        try:
            files = sorted(path for path in folder.iterdir() if _is_entry(path))
        except OSError as error:
            return cls(
                {}, [f"{folder}: cannot be listed ({error.strerror}); name a readable folder of *.yaml files"]
            )
        for path in files:
            read = _read_entry(path)
            if isinstance(read, list):
                mistakes += read
            elif (first := entries.setdefault(read.provider.name, read)) is not read:
                taken = f"{read.provider.name!r} is taken by {first.file}; rename or remove one of the two"
                mistakes.append(read.sentence("name", taken))
        return cls(entries, mistakes)


@cache
def _ours() -> tuple[list[Provider], list[str]]:
    """What is shipped does not change while this process runs: the providers, and all mistakes."""
    read = _Folder.read(OURS)
    return [entry.provider for entry in read.entries.values()], read.mistakes


def _is_entry(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml") and not path.name.startswith(".")  # editors keep dot files


def _read_entry(path: Path) -> _Entry | list[str]:
    document = located.read(path)
    found = list(document.mistakes)
    if document.fields is not None:
        try:
            provider = Provider.model_validate(document.fields)
        except ValidationError as error:
            found += [mistake for details in error.errors() for mistake in _mistakes_in(details, document)]
        else:
            if not found:
                return _Entry(path.name, document, provider)
    return [_sentence(path.name, mistake) for mistake in sorted(found, key=lambda mistake: mistake.line)]


def _sentence(file: str, mistake: Mistake) -> str:
    field = f"{'.'.join(map(str, mistake.at)):.200}: " if mistake.at else ""
    line = f"{file}:{mistake.line}: {field}{mistake.sentence}"
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in line
    )  # one line, always


def _mistakes_in(details: ErrorDetails, document: Document) -> Iterator[Mistake]:
    if details["type"] == "default_factory_not_called":  # a default made of a field that is itself refused
        return
    at = tuple(part for part in details["loc"] if part != "[key]")  # pydantic's mark of a refused key
    found: Mapping[Loc, str] = details.get("ctx", {}).get("found") or {at[-1:]: _wrong(details)}
    for path, wrong in found.items():
        whole = (*at[:-1], *path)
        yield Mistake(document.line_of(whole), whole, wrong)


_WORDS = {  # pydantic's kinds of error; `got` is what was given
    "missing": "is required; add it",
    "extra_forbidden": "is no field here; {known}",
    "literal_error": "must be one of {choices} (got {got})",
    "string_type": "must be text (got {got}); put it in quotes",
    "string_too_short": "must not be empty; leave it out instead",
    "string_too_long": "must not be longer than {max_length} characters",
    "string_pattern_mismatch": "must match {pattern} (got {got})",
    "greater_than": "must be above {gt:g} (got {got})",
    "greater_than_equal": "must be at least {ge:g} (got {got})",
    "less_than_equal": "must be at most {le:.15g} (got {got})",
    "bool_type": "must be true or false (got {got})",
    **dict.fromkeys(["int_type", "int_parsing", "int_from_float"], "must be a whole number (got {got})"),
    **dict.fromkeys(["float_type", "float_parsing", "finite_number"], "must be a number (got {got})"),
    "tuple_type": "must be a list, such as [a, b] (got {got})",
    **dict.fromkeys(
        ["dict_type", "mapping_type", "model_type"], "must hold fields, as `name: value` (got {got})"
    ),
}


def _wrong(details: ErrorDetails) -> str:
    """pydantic's error in our words: what is wrong, what was given, how to mend it."""
    ctx = details.get("ctx", {})
    words = _WORDS.get(details["type"], "{msg}")
    given = {"msg": details["msg"], "got": _shown(details["input"])}
    made = {"known": _known(details["loc"]), "choices": _choices(ctx.get("expected", ""))}
    return words.format_map({**ctx, **given, **made})


def _choices(expected: str) -> str:
    """pydantic's `'a', 'b' or 'c'` as `a, b, c`; what could be misread stays in its quotes."""
    return ", ".join(one if one.isidentifier() else repr(one) for one in re.findall(r"'([^']*)'", expected))


def _shown(value: object) -> str:
    """A value as its file has it, cut to what fits a line."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a mapping"
    if value is None or isinstance(value, bool):
        return {None: "nothing", True: "true", False: "false"}[value]
    return f"{value!r:.80}" if isinstance(value, str) else f"{value!s:.80}"


def _known(at: Loc) -> str:
    """The field that was probably meant by the unknown one at the end of the path; else all that there are."""
    model: type[BaseModel] = Provider
    for part in at[:-1]:
        if part in model.model_fields:
            model = _model_in(model.model_fields[str(part)].annotation) or model
    near = get_close_matches(str(at[-1]), model.model_fields, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(model.model_fields)}"


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
