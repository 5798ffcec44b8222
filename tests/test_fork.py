"""Processes that fork after torch or a model was used, with the threads that users have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import torch

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

PARENTS = {
    "torch": """
import torch
torch.randn(1000, 1000) @ torch.randn(1000, 1000)
""",
    "reranker": """
from gpurerank import ClosedError, Reranker
old = Reranker()
old.rank("where is the spanner?", TEXTS)
""",
    "bi-encoder": """
from gpurerank import BiEncoder, ClosedError
old = BiEncoder()
old.rank("where is the spanner?", TEXTS)
""",
}
CHILD = """
import os, sys
TEXTS = ["lunch is at noon", "the spanner is in the drawer"] * 8
{parent}
children = []
for _ in range(2):
    children.append(os.fork())
    if children[-1] == 0:
        from gpurerank import BiEncoder, ClosedError, Reranker
        if "old" in globals():
            try:
                old.rank("where is the spanner?", TEXTS)
                os._exit(3)
            except ClosedError as error:
                if "make a new Reranker or BiEncoder in the child" not in str(error):
                    os._exit(4)
        for made in (Reranker(), BiEncoder()):
            for _ in range(2):
                if made.rank("where is the spanner?", TEXTS)[0].index != 1:
                    os._exit(5)
        os._exit(0)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
"""


def run_script(script: str, threads: int) -> str:
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        # Where this is set, the tokenizers library leaves its own protection against forks out.
        "TOKENIZERS_PARALLELISM": "true",
    }
    # Fork warns of threads from Python 3.12 on, which is what is tried here.
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", script]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=900, check=True
    )
    return result.stdout.strip()


@pytest.mark.timeout(1000)
@pytest.mark.parametrize(
    ("parent", "threads"), [("torch", 2), ("reranker", 2), ("bi-encoder", 2), ("reranker", 4)]
)
def test_models_made_in_a_forked_child_work(parent: str, threads: int) -> None:
    assert run_script(CHILD.format(parent=PARENTS[parent]), threads) == "[0, 0]"


@pytest.mark.timeout(1000)
def test_an_interrupt_ends_the_wait_for_a_model_that_is_loading() -> None:
    script = """
import time
from gpurerank.engine.registry import REGISTRY

def load():
    print("loading", flush=True)
    time.sleep(800)

REGISTRY.acquire("key", load, "slow")
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "loading\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=700)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in errors


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.timeout(1000)
def test_a_gpu_is_refused_in_a_forked_child_with_a_way_out() -> None:
    script = """
import os
from gpurerank import DeviceError, Reranker
Reranker().rank("a", ["b"])
child = os.fork()
if child == 0:
    try:
        Reranker()
    except DeviceError as error:
        os._exit(0 if "spawn" in str(error) else 4)
    os._exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert run_script(script, 2) == "0"
