"""Compares rerankers on judged queries: does reranking help, which kind, and how deep?

Needs the extra ``eval``. Names are imported when they are first used.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gpurerank.errors import MissingExtraError

if TYPE_CHECKING:
    from gpurerank.evaluation.eval_options import EvalOptions
    from gpurerank.evaluation.evaluation_result import Evaluation
    from gpurerank.evaluation.evaluator import evaluate
    from gpurerank.evaluation.html_report import write_page
    from gpurerank.evaluation.query_set import QuerySet

for _package in ("bm25s", "ir_measures", "jinja2", "matplotlib", "Stemmer", "scipy"):
    if find_spec(_package) is None:
        raise MissingExtraError(f"{_package} is not installed; pip install 'gpurerank[eval]'")

_MODULE_OF = {
    "EvalOptions": "eval_options",
    "Evaluation": "evaluation_result",
    "QuerySet": "query_set",
    "evaluate": "evaluator",
    "write_page": "html_report",
}

__all__ = ["EvalOptions", "Evaluation", "QuerySet", "evaluate", "write_page"]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
