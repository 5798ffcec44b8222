"""The playground: one page, and the demo corpus that it can take passages from."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import FileResponse

from gpurerank.demo.passages import standard_library
from gpurerank.server.answers import JSON
from gpurerank.server.refusal import Refusal
from gpurerank.server.routing import service_of

_PAGE = Path(__file__).parent / "page"
_TYPES = {".css": "text/css", ".js": "text/javascript"}
# Nothing from anywhere else, and nothing inline: what a passage holds can never run.
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:;"
    " form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # The files belong together: none may be older than the rest.
    "Cache-Control": "no-cache",
}
# Modules that a person new to the page has questions about.
_MODULES = (
    "argparse", "collections", "contextlib", "csv", "datetime", "difflib", "fnmatch", "functools",
    "glob", "gzip", "hashlib", "heapq", "itertools", "json", "logging", "pathlib", "pickle",
    "random", "re", "shelve", "shutil", "sqlite3", "statistics", "string", "subprocess",
    "tempfile", "textwrap", "threading", "time", "urllib", "uuid", "zipfile",
)  # fmt: skip
_MOST = 400

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> FileResponse:
    """The page: it needs nothing from anywhere else."""
    return FileResponse(_PAGE / "index.html", media_type="text/html", headers=_HEADERS)


@router.get("/playground/page/{name}")
async def part(name: str) -> FileResponse:
    """A style sheet or script of the page."""
    found = {path.name: path for path in _PAGE.iterdir() if path.suffix in _TYPES}.get(name)
    if found is None:
        raise Refusal(404, "the page has no such part", "no_such_path")
    return FileResponse(found, media_type=_TYPES[found.suffix], headers=_HEADERS)


@router.get("/playground/state")
async def state(request: Request) -> JSON:
    """What the page has to know of its server."""
    service = service_of(request)
    return JSON(
        {
            "rerankers": list(service.models.rerankers),
            "embedders": list(service.models.embedders),
            "needs_key": service.options.api_key is not None,
            "demo": service.options.demo,
        }
    )


@router.get("/playground/corpus")
async def corpus(request: Request) -> JSON:
    """The demo corpus: docstrings of the running Python's standard library."""
    if not service_of(request).options.demo:
        raise Refusal(404, "this server has no demo corpus; start it with --demo", "no_corpus")
    return JSON({"passages": demo_corpus()})


@lru_cache(maxsize=1)
def demo_corpus() -> list[str]:
    """At most 400 docstrings, each under its name."""
    found = [p.text for p in standard_library() if p.source.split(".")[0] in _MODULES]
    step = max(1, -(-len(found) // _MOST))
    return found[::step]
