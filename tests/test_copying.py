"""Deep copies of metadata."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from gpurerank.copying import deep_copy


def test_nothing_mutable_is_shared() -> None:
    original: dict[str, Any] = {
        "tags": ["a", {"deep": {"set"}}],
        "pair": (1, ["in a tuple"]),
        "ordered": OrderedDict(a=[1]),
    }
    twin = deep_copy(original)
    assert twin == original
    assert type(twin["ordered"]) is OrderedDict
    twin["tags"][1]["deep"].add("more")
    twin["pair"][1].append("more")
    twin["ordered"]["a"].append(2)
    assert original["tags"][1]["deep"] == {"set"}
    assert original["pair"] == (1, ["in a tuple"])
    assert original["ordered"]["a"] == [1]


def test_only_what_cannot_be_copied_is_shared() -> None:
    lock = threading.Lock()
    original = {"connection": {"lock": lock, "tags": ["a"]}}
    twin = deep_copy(original)
    assert twin["connection"]["lock"] is lock
    assert twin["connection"]["tags"] == ["a"]
    assert twin["connection"]["tags"] is not original["connection"]["tags"]


def test_a_list_that_holds_itself_is_copied() -> None:
    original: list[Any] = ["a"]
    original.append(original)
    twin = deep_copy(original)
    assert twin[1] is twin
    assert twin is not original
