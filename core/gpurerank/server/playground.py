"""The playground: one page, and the demo corpus that it can take passages from."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from gpurerank.demo.corpus import read_standard_library
from gpurerank.server.refusal import Refusal
from gpurerank.server.responses import JSON
from gpurerank.server.routing import has_key, service_of

_FILES = StaticFiles(directory=Path(__file__).parent / "page")
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
}
# Nothing from anywhere else, and nothing inline: what a passage holds can never run.
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:;"
    " form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
PAGE_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # The files belong together: none may be older than the rest.
    "Cache-Control": "no-cache",
}
# Modules that a person new to the page has questions about.
_MODULES = (
    "argparse", "collections", "contextlib", "csv", "difflib", "filecmp", "fnmatch", "functools",
    "glob", "gzip", "heapq", "json", "pathlib", "random", "re", "shelve", "shutil", "statistics",
    "string", "subprocess", "tempfile", "textwrap", "uuid", "zipfile",
)  # fmt: skip

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The page: it needs nothing from anywhere else."""
    return await _file(request, "index.html")


@router.api_route("/playground/page/{name}", methods=["GET", "HEAD"])
async def part(request: Request, name: str) -> Response:
    """A style sheet or script of the page."""
    if Path(name).suffix not in (".css", ".js"):
        raise Refusal(404, "the page has no such part", "no_such_path")
    return await _file(request, name)


async def _file(request: Request, name: str) -> Response:
    """A file of the page; 304 without it where the browser has it already.

    Raises:
        HTTPException: There is none of that name.
    """
    response = await _FILES.get_response(name, request.scope)
    response.headers.update(PAGE_HEADERS)
    if response.status_code == 200:
        # What the system knows of types differs.
        response.headers["Content-Type"] = _TYPES[Path(name).suffix]
    return response


@router.api_route("/playground/state", methods=["GET", "HEAD"])
async def state(request: Request) -> JSON:
    """What the page has to know of its server; the names of models only with the key."""
    service = service_of(request)
    names = None
    if has_key(request):
        names = (list(service.models.rerankers), list(service.models.embedders))
    return JSON(
        {
            "models": names and {"rerankers": names[0], "embedders": names[1]},
            "needs_key": service.options.api_key is not None,
            "demo": service.options.demo,
        }
    )


@router.api_route("/playground/corpus", methods=["GET", "HEAD"])
def corpus(request: Request) -> JSON:
    """The demo corpus: docstrings of the running Python's standard library."""
    if not service_of(request).options.demo:
        raise Refusal(404, "this server has no demo corpus; start it with --demo", "no_corpus")
    return JSON({"passages": demo_corpus()})


@lru_cache(maxsize=1)
def demo_corpus() -> list[str]:
    """Docstrings of some 200 modules, classes and functions, each under its name."""
    found = read_standard_library(_MODULES)
    return [passage.text for passage in found if not _is_method(passage.source)]


def _is_method(name: str) -> bool:
    # Methods alone would be more than all the rest, and say little without their class.
    return any(part[:1].isupper() for part in name.split(".")[:-1])
