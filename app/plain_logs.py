"""structlog without rich, which it loads where it is installed, as it is with the command line: 3 MB for tracebacks that show local
variables, which those of this service never do. To be imported ahead of everything that imports structlog."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import cast

_IS_FREE = "rich" not in sys.modules
if _IS_FREE:
    sys.modules["rich"] = cast(ModuleType, None)  # as if it were not installed
import structlog

if _IS_FREE:
    del sys.modules["rich"]

__all__ = ["structlog"]
