"""The page that describes the API, written from its OpenAPI schema without any script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from gpurerank.server.playground import PAGE_HEADERS

Schema = Mapping[str, Any]
_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>{title} API</title>
  <link rel="stylesheet" href="playground/page/page.css">
  <link rel="stylesheet" href="playground/page/api.css">
</head>
<body class="api">
  <header class="top">
    <h1>{title} API</h1>
    <p>{description} Version {version}.</p>
    <a href="./">Playground</a>
    <a href="openapi.json">OpenAPI schema</a>
  </header>
  <main>
    <h2>Paths</h2>
    <ul class="paths">{contents}</ul>
    {operations}
    <h2>Objects</h2>
    {objects}
  </main>
</body>
</html>
"""

router = APIRouter(include_in_schema=False)


@router.api_route("/docs", methods=["GET", "HEAD"])
async def api_page(request: Request) -> HTMLResponse:
    """The page; it needs nothing from another host."""
    return HTMLResponse(page_of(request.app.openapi()), headers=PAGE_HEADERS)


def page_of(schema: Schema) -> str:
    """The page of an OpenAPI schema, as HTML."""
    info = schema["info"]
    operations = list(_operations(schema))
    objects = schema.get("components", {}).get("schemas", {})
    return _PAGE.format(
        title=escape(info["title"]),
        description=escape(info.get("description", "")),
        version=escape(info["version"]),
        contents="".join(
            f'<li><a href="#{escape(_anchor(method, path))}">{_name(method, path)}</a></li>'
            for method, path, _ in operations
        ),
        operations="".join(_operation_section(*operation) for operation in operations),
        objects="".join(_object_section(name, objects[name]) for name in sorted(objects)),
    )


def _operations(schema: Schema) -> Iterator[tuple[str, str, Schema]]:
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def _anchor(method: str, path: str) -> str:
    return f"{method}-{path.strip('/').replace('/', '-')}"


def _name(method: str, path: str) -> str:
    return f"<code><b>{method.upper()}</b> {escape(path)}</code>"


def _operation_section(method: str, path: str, operation: Schema) -> str:
    body = _content(operation.get("requestBody", {}))
    needs_key = "401" in operation["responses"]
    key = "<p>Needs the API key if the server has one.</p>" if needs_key else ""
    answers = "".join(
        f"<tr><td>{escape(status)}</td><td>{escape(answer['description'])}</td>"
        f"<td>{_content(answer)}</td></tr>"
        for status, answer in operation["responses"].items()
    )
    return (
        f'<section id="{escape(_anchor(method, path))}"><h3>{_name(method, path)}</h3>'
        f"<p>{_prose(operation.get('description', ''))}</p>"
        f"{f'<p>Body: {body}</p>' if body else ''}{key}"
        f"<details><summary>Answers</summary><table><tr><th>Status</th><th>Meaning</th>"
        f"<th>Body</th></tr>{answers}</table></details></section>"
    )


def _content(body: Schema) -> str:
    return ", ".join(
        _type(content["schema"])
        for content in body.get("content", {}).values()
        if content.get("schema")
    )


def _object_section(name: str, schema: Schema) -> str:
    required = schema.get("required", ())
    rows = "".join(
        f"<tr><td><code>{escape(field)}</code>{' (required)' if field in required else ''}</td>"
        f"<td>{_type(kind)}</td><td>{_prose(_description(kind))}</td></tr>"
        for field, kind in schema.get("properties", {}).items()
    )
    table = (
        f"<table><tr><th>Field</th><th>Type</th><th>Meaning</th></tr>{rows}</table>" if rows else ""
    )
    return (
        f'<section id="{escape(name)}"><h3><code>{escape(name)}</code></h3>'
        f"<p>{_prose(schema.get('description', ''))}</p>{table}</section>"
    )


def _type(schema: Schema) -> str:
    """The type of a value, with links to the objects of this page."""
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}"><code>{name}</code></a>'
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(map(_type, schema[several])))
    if "const" in schema or "enum" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(f"<code>{escape(repr(value))}</code>" for value in values)
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return escape(str(schema.get("type", "any value")))


def _description(schema: Schema) -> str:
    """A field's own, or that of one of its types."""
    parts = [schema, *schema.get("anyOf", ())]
    return next((part["description"] for part in parts if part.get("description")), "")


def _prose(text: str) -> str:
    return "<br>".join(escape(text.strip()).split("\n\n"))
