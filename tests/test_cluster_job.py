"""The job over files on a real cluster of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gpurerank import InputError, ModelNotFoundError, Reranker, RerankerOptions
from gpurerank.cluster.connection import Replicas
from gpurerank.cluster.job import on_ray
from gpurerank.offline.job_runner import score_files
from gpurerank.offline.row_scoring import Counts
from gpurerank.offline.score_job import ScoreJob
from tests.clusters import cluster

__all__ = ["cluster"]
pytestmark = [
    # Ray Data copies its own deprecated options.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]

PAIRS = [
    (f"query {n % 31} of files and bees", f"passage {n} about {t}" + " and more" * (n % 9))
    for n, t in enumerate(("files", "bread", "diffs", "bees") * 500)
]


def job_of(folder: Path, model: str, rows_per_part: int = 250) -> ScoreJob:
    folder.mkdir(exist_ok=True)
    rows = [{"id": n, "query": q, "passage": p} for n, (q, p) in enumerate(PAIRS)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "pairs.parquet")
    options = RerankerOptions(model=model, device="cpu", dtype="float32", max_length=64)
    return ScoreJob(
        inputs=[str(folder / "pairs.parquet")],
        output=str(folder / "scores"),
        model=options,
        rows_per_part=rows_per_part,
    )


def ids(job: ScoreJob) -> Counter[int]:
    return Counter(pq.read_table(job.output)["id"].to_pylist())


def test_a_cluster_writes_the_scores_of_one_process(
    cluster: None, tmp_path: Path, tiny: str
) -> None:
    job = job_of(tmp_path, tiny)
    report = score_files(job, executor=on_ray(Replicas(count=2)))
    assert report.counts == Counts(2_000, 0, 2_000)
    with Reranker.from_options(job.model) as reranker:
        wanted = reranker.score_pairs(PAIRS)
    table = pq.read_table(job.output).sort_by("id")
    assert table["id"].to_pylist() == list(range(2_000))
    np.testing.assert_allclose(table["score"].to_numpy(), wanted, rtol=0, atol=1e-5)
    again = score_files(job, executor=on_ray(Replicas(count=2)))
    assert again.new == Counts()


def test_a_wrong_model_or_too_little_room_is_said_at_once(
    cluster: None, tmp_path: Path, tiny: str
) -> None:
    with pytest.raises(InputError, match="the cluster has 0"):
        score_files(job_of(tmp_path / "a", tiny), executor=on_ray(Replicas(num_gpus=1)))
    with pytest.raises(ModelNotFoundError, match="no-such-model"):
        score_files(job_of(tmp_path / "b", "no-such-model"), executor=on_ray(Replicas()))


def test_killed_after_a_third_it_goes_on_and_writes_nothing_twice(
    tmp_path: Path, tiny: str
) -> None:
    job = job_of(tmp_path, tiny, rows_per_part=50)
    command = [
        sys.executable, "-m", "gpurerank.cli", "score", "--input", job.inputs[0], "--output",
        job.output, "--model", tiny, "--rows-per-part", "50", "--max-length", "64",
        "--device", "cpu", "--dtype", "float32",
    ]  # fmt: skip
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
    output = Path(job.output)
    while len(list(output.glob("part-*"))) < 13 and running.poll() is None:
        time.sleep(0.002)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    written = {path.name: path.stat().st_mtime_ns for path in output.glob("part-*")}
    assert 13 <= len(written) < 40
    report = score_files(job)
    assert ids(job) == Counter(range(2_000))
    # What was written stays; only the parts that the kill broke off are done again.
    assert {name: (output / name).stat().st_mtime_ns for name in written} == written
    assert report.new.rows == 2_000 - 50 * len(written)
