"""The settings of this process's environment, and a sentence for each that is wrong."""

from __future__ import annotations

import difflib
import os
import re
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from app.errors import ConfigurationError
from app.settings import PREFIX, Settings


def read_settings(**overrides: Any) -> Settings:
    """The settings of this process's environment.

    Raises ConfigurationError with a sentence for each setting that is wrong, by its `BROKER_` name.
    """
    try:
        return Settings(**overrides)
    except ValidationError as error:
        sentences = (_sentence(mistake) for mistake in error.errors())
        raise ConfigurationError([line for sentence in sentences for line in sentence.splitlines()]) from None
    except SettingsError as error:
        raise ConfigurationError([_not_json(error)]) from None


def unknown_settings(environment: dict[str, str] | None = None) -> list[str]:
    """A sentence for each `BROKER_` variable that no setting reads: most likely a typing error."""
    known = {name.upper() for name in Settings.model_fields}
    variables = os.environ if environment is None else environment
    sentences = []
    for name in sorted(variables):
        if (
            not name.startswith(PREFIX)
            or name.removeprefix(PREFIX) in known
            or name.startswith(f"{PREFIX}CLIENTS__")
        ):
            continue
        near = difflib.get_close_matches(name.removeprefix(PREFIX), known, n=1)
        hint = f"; did you mean {PREFIX}{near[0]}?" if near else ""
        sentences.append(f"{name} is no setting of this service and is ignored{hint}")
    return sentences


def _not_json(error: SettingsError) -> str:
    """The library names the field in its message only."""
    field = re.search(r'field "(\w+)"', str(error))
    name = PREFIX + field[1].upper() if field else "A setting"
    return f'{name}: must be JSON, such as ["https://app.example.com"]'


def _sentence(mistake: Any) -> str:
    message = mistake["msg"].removeprefix("Value error, ")
    if not mistake["loc"]:
        return str(message)  # a rule over several settings names them itself
    name = PREFIX + "__".join(str(part).upper() for part in mistake["loc"])
    return f"{name}: {message[0].lower()}{message[1:]}"
