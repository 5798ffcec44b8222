"""README and documentation: their code runs, their commands exist, their links lead somewhere."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import chromadb
import pytest
import typer
from chromadb.config import Settings as ChromaSettings
from langchain_core.documents import Document
from langchain_core.language_models import FakeListChatModel
from langchain_core.vectorstores import InMemoryVectorStore
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.llms.mock import MockLLM
from llama_index.core.schema import TextNode

from gpurerank.chroma import GPUEmbeddingFunction
from gpurerank.cli import app
from gpurerank.server.options import Named
from langchain_gpurerank import GPUEmbeddings
from llamaindex_gpurerank import GPUEmbedding
from tests.fake_server import FakeServer, serving, speaking
from tests.serving import options_of, running
from tests.test_langchain import TEXTS

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]
ELSEWHERE = [ROOT / "CHANGELOG.md", ROOT / "core/gpurerank/models/weights/MODEL_CARD.md"]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)

# What a page names and no test machine has, and what stands in for it: a model that ships, or the
# name of a tiny one in tests/tiny_models.py.
STAND_INS = {
    "BAAI/bge-reranker-v2-m3": "embedded",
    "cross-encoder/ms-marco-MiniLM-L6-v2": "bert",
    "tuned/model": "embedded",
    "Qwen/Qwen3-Reranker-0.6B": "causal_chat",
    "your-org/two-label-reranker": "two_labels",
    "cuda:0,cuda:1": "cpu,cpu",
}
SERVER = "http://gpu-server:8000"
# What this package serves itself, with the key that the page names.
SERVED = "http://gpu-server:8787"
KEY = "a-long-secret"
TINY = ("bert", "causal_chat", "two_labels")


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path, *, python: bool) -> Iterator[tuple[int, str]]:
    """The first line number and the text of each fenced block."""
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        if (found[2] == "python") == python:
            yield text.count("\n", 0, found.start(3)), textwrap.dedent(found[3])


PYTHON_PAGES = [page for page in PAGES if any(blocks(page, python=True))]


@pytest.fixture
def names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, embedded: object, bi_encoder: object
) -> dict[str, Any]:
    """What the pages take as given; files that they write go to a folder of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Settings, "_llm", MockLLM())
    client = chromadb.PersistentClient(str(tmp_path), ChromaSettings(anonymized_telemetry=False))
    function: Any = GPUEmbeddingFunction()
    collection = client.create_collection("given", embedding_function=function)
    collection.add(ids=[str(i) for i in range(len(TEXTS))], documents=TEXTS)
    vectorstore = InMemoryVectorStore(GPUEmbeddings())
    vectorstore.add_documents([Document(t, metadata={"source": t.split()[0]}) for t in TEXTS])
    index = VectorStoreIndex([TextNode(text=t) for t in TEXTS], embed_model=GPUEmbedding())
    return {
        "__name__": "page",
        "client": client,
        "collection": collection,
        "index": index,
        "llm": FakeListChatModel(responses=["an answer"]),
        "passages": list(TEXTS),
        "vectorstore": vectorstore,
    }


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """What answers at SERVER."""
    with serving(speaking("gpurerank")) as fake:
        yield fake


@pytest.fixture(scope="session")
def served(tiny: str) -> Iterator[str]:
    """What answers at SERVED."""
    named = (Named("best", tiny), Named("fast", tiny))
    embedders = (Named("embedded", "embedded"),)
    with running(options_of(tiny, rerankers=named, embedders=embedders, api_key=KEY)) as found:
        yield found.url


# Cohere's client has no way to close its connections.
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name_of)
async def test_code_of_a_page_runs_from_top_to_bottom(
    page: Path,
    names: dict[str, Any],
    model_folder: Callable[[str], str],
    server: FakeServer,
    request: pytest.FixtureRequest,
) -> None:
    for line, code in blocks(page, python=True):
        code = code.replace(SERVER, server.url)
        if SERVED in code:
            code = code.replace(SERVED, request.getfixturevalue("served"))
        for theirs, ours in STAND_INS.items():
            code = code.replace(f'"{theirs}"', repr(model_folder(ours) if ours in TINY else ours))
        compiled = compile(
            "\n" * line + code, str(page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        )
        result = eval(compiled, names)
        if inspect.iscoroutine(result):
            await result


def commands(page: Path) -> Iterator[tuple[str, list[str], bool]]:
    """Each line that calls gpurerank, its arguments, and whether it stands as a line of a shell."""
    for _, block in blocks(page, python=False):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split(" | "):
                words = shlex.split(part, comments=True) if "gpurerank " in part else []
                while words and "=" in words[0]:
                    words.pop(0)
                if words and Path(words[0]).name == "gpurerank":
                    yield part, words[1:], True
    for inline in re.findall(r"`gpurerank ([^`\n]+)`", page.read_text(encoding="utf-8")):
        yield inline, shlex.split(inline), False


def test_commands_exist_with_their_options() -> None:
    group: Any = typer.main.get_command(app)
    found = [(page, *command) for page in PAGES for command in commands(page)]
    assert {arguments[0] for *_, arguments, _ in found} == set(group.commands)
    for page, line, arguments, whole in found:
        command = group.commands[arguments[0]]
        try:
            if whole:
                command.make_context(arguments[0], arguments[1:])
            else:  # such as `gpurerank rank`, which leaves out what is ranked
                context = command.context_class(command, info_name=arguments[0])
                command.make_parser(context).parse_args(args=arguments[1:])
        except Exception as error:
            pytest.fail(f"{name_of(page)}: {line.strip()}: {error}")


def test_links_lead_to_files() -> None:
    """Links between pages of the site and to their headings are checked by its strict build."""
    for page in [*PAGES, *ELSEWHERE, *sorted((ROOT / "notebooks").glob("*.ipynb"))]:
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text):
            if "://" not in link and not (page in DOCS and made_by_the_site(page, link)):
                assert (page.parent / link).exists(), f"{name_of(page)}: {link}"


def made_by_the_site(page: Path, link: str) -> bool:
    """Whether docs/hooks.py makes the target."""
    target = (page.parent / link).resolve().relative_to(ROOT / "docs")
    made = ("changelog", "contributing", "notebooks/", "reference/command", "reference/embedded")
    return str(target).startswith(made)


def test_reference_has_every_public_name() -> None:
    for package in ("gpurerank", "langchain_gpurerank", "llamaindex_gpurerank"):
        page = ROOT / "docs" / "reference" / f"{package.removesuffix('_gpurerank')}.md"
        text = page.read_text(encoding="utf-8")
        listed = re.findall(rf"^::: {package}\.(\w+)$", text, re.MULTILINE)
        assert sorted(listed) == importlib.import_module(package).__all__
