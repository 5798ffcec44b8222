"""Does reranking help your data, which kind, and how deep?

Needs the extra ``eval``. Names are resolved when first used.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gpurerank.errors import MissingExtraError

if TYPE_CHECKING:
    from gpurerank.evaluation.options import EvalOptions
    from gpurerank.evaluation.page import write_page
    from gpurerank.evaluation.queries import QuerySet
    from gpurerank.evaluation.records import Evaluation
    from gpurerank.evaluation.run import evaluate

for _package in ("bm25s", "ir_measures", "jinja2", "Stemmer", "scipy"):
    if find_spec(_package) is None:
        raise MissingExtraError(f"{_package} is not installed; pip install 'gpurerank[eval]'")

_HOME_OF = {
    "EvalOptions": "options",
    "Evaluation": "records",
    "QuerySet": "queries",
    "evaluate": "run",
    "write_page": "page",
}

__all__ = ["EvalOptions", "Evaluation", "QuerySet", "evaluate", "write_page"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
