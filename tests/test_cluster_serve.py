"""The application on Ray Serve: a real cluster, replicas, proxies, and what dies under load."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import ray
import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema

from gpurerank import InputError, RemoteScorer, Reranker
from gpurerank.cluster import front
from gpurerank.cluster.application import app, build
from gpurerank.cluster.arguments import Arguments, options_of
from gpurerank.cluster.connection import Replicas
from gpurerank.cluster.options import ApplicationOptions
from gpurerank.cluster.replica import RerankReplica
from gpurerank.errors import ModelError
from gpurerank.server.options import Limits, Named, ServerOptions
from tests.clusters import cluster
from tests.serving import DOCUMENTS, QUERY, eventually, running
from tests.serving import options_of as server_options
from tests.time_limits import HANG_S

__all__ = ["cluster"]

KEY = "a-key-of-the-test"
BEARER = {"Authorization": f"Bearer {KEY}"}
TEXTS = [f"{text} {n}" for n in range(25) for text in DOCUMENTS]
ASKED = {"query": QUERY, "documents": TEXTS}
# A replica imports torch before it serves, on as few cores as there are.
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def fronted() -> Iterator[None]:
    """What is started inherits the variable, as on the nodes of a cluster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(front.VARIABLE, front.IMPORT_PATH)
        yield


@pytest.fixture(scope="module")
def serve_url(fronted: None, cluster: None) -> Iterator[str]:
    """Serve without an application."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"port": port})
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def two(serve_url: str, tiny: str) -> str:
    """The address of an application of two replicas."""
    named = (Named("tiny", tiny),)
    options = ApplicationOptions(
        server=ServerOptions(
            rerankers=named, embedders=(), api_key=KEY, device="cpu", dtype="float32"
        ),
        replicas=Replicas(count=2, num_cpus=0.5, num_gpus=0),
        max_ongoing_requests=8,
        max_queued_requests=16,
    )
    serve.run(build(options), name="two")
    return serve_url


def replicas_of(name: str) -> list[str]:
    """The actors of an application's replicas."""
    actors = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    return [actor for actor in actors if actor.startswith(f"SERVE_REPLICA::{name}#")]


@dataclass
class Load:
    """Requests that came and came while a replica was killed."""

    wanted: list[float]
    before: list[str] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    furthest: float = 0.0


@pytest.fixture(scope="module")
def killed(two: str) -> Load:
    """What became of the requests that were under way when a replica was killed."""
    ended = threading.Event()
    with httpx.Client(base_url=two, headers=BEARER, timeout=HANG_S) as client:
        load = Load(scores_of(client.post("/v1/rerank", json=ASKED)), replicas_of("two"))

        def ask() -> None:
            while not ended.is_set():
                answer = client.post("/v1/rerank", json=ASKED)
                load.statuses.append(answer.status_code)
                if answer.status_code == 200:
                    far = np.abs(np.subtract(scores_of(answer), load.wanted)).max()
                    load.furthest = max(load.furthest, float(far))

        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(ask) for _ in range(8)]
            eventually(lambda: len(load.statuses) >= 16)
            ray.kill(ray.get_actor(load.before[0], namespace="serve"))
            least = len(load.statuses) + 32
            eventually(lambda: len(load.statuses) >= least)
            ended.set()
            for each in asking:
                each.result(HANG_S)
    return load


def scores_of(answer: httpx.Response) -> list[float]:
    """Scores in input order."""
    found = {each["index"]: each["relevance_score"] for each in answer.json()["results"]}
    return [found[index] for index in sorted(found)]


def test_one_process_a_server_and_a_cluster_score_alike(two: str, tiny: str) -> None:
    pairs = [(f"{QUERY} {n % 20}", f"{DOCUMENTS[n % 4]} {n}") for n in range(2_000)]
    with Reranker(tiny, device="cpu", dtype="float32") as local:
        wanted = local.score_pairs(pairs)
    with running(server_options(tiny, embedders=())) as server, RemoteScorer(server.url) as remote:
        np.testing.assert_allclose(remote.score_pairs(pairs), wanted, rtol=0, atol=1e-5)
    with RemoteScorer(two, api_key=KEY) as remote:
        np.testing.assert_allclose(remote.score_pairs(pairs), wanted, rtol=0, atol=1e-5)


def test_a_wrong_key_is_refused(two: str) -> None:
    for headers in ({}, {"Authorization": "Bearer another-key"}):
        answer = httpx.post(f"{two}/v1/rerank", json=ASKED, headers=headers)
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "wrong_key"


def test_an_answer_has_one_id_and_the_probes_answer(two: str) -> None:
    answer = httpx.post(f"{two}/v1/rerank", json=ASKED, headers=BEARER)
    assert len(answer.headers.get_list("x-request-id")) == 1
    assert httpx.get(f"{two}/livez").json() == {"status": "ok"}
    assert httpx.get(f"{two}/livez", headers=BEARER).json() == {
        "status": "ok",
        "heartbeat_age_s": {"tiny (cross-encoder)": 0.0},
    }
    assert httpx.get(f"{two}/readyz").status_code == 200
    assert httpx.get(f"{two}/-/healthz").text == "success"


def test_no_request_is_lost_with_its_replica(killed: Load) -> None:
    assert set(killed.statuses) == {200}
    assert killed.furthest < 1e-5


def test_too_much_work_is_refused_until_later(two: str) -> None:
    with (
        httpx.Client(base_url=two, headers=BEARER, timeout=HANG_S) as client,
        ThreadPoolExecutor(80) as pool,
    ):
        asked = [pool.submit(client.post, "/v1/rerank", json=ASKED) for _ in range(80)]
        answers = [each.result(HANG_S) for each in asked]
    assert {answer.status_code for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status_code == 429:
            assert answer.headers["retry-after"] == "1"
            assert answer.json()["error"]["code"] == "overloaded"


def test_a_lost_device_fails_the_health_check(serve_url: str, tiny: str) -> None:
    named = ServerOptions(rerankers=(Named("tiny", tiny),), embedders=(), device="cpu")
    replica = RerankReplica(named)
    replica.check_health()
    service = replica.__serve_build_asgi_app__().state.service
    service.lost = True
    with pytest.raises(ModelError, match="a device is lost"):
        replica.check_health()


def test_serve_must_not_listen_for_everybody_without_a_key(tiny: str) -> None:
    open_host = "0.0.0.0"
    named = ServerOptions(rerankers=(Named("tiny", tiny),), embedders=())
    with pytest.raises(InputError, match=r"listening on 0\.0\.0\.0 lets everybody in"):
        RerankReplica(named, open_host)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"replica": 2}, "no argument 'replica'; there are rerankers, embedders, replicas"),
        ({"replicas": "two"}, "replicas is 'two'"),
        ({"replicas": 0}, "replicas is 0"),
        ({"replicas": 3, "max_replicas": 2}, "max_replicas is 2, below the 3 replicas"),
        ({"num_gpus": -1}, "below 0"),
        (
            {"max_ongoing_requests": 4, "max_replicas": 2},
            "target_ongoing_requests is 16, over the 4",
        ),
        ({"queued_s": 0}, "queued_s is 0"),
        ({"rerankers": "a=embedded,a=embedded"}, "two models are called 'a'"),
        ({"api_key_file": "/no/such/key"}, "api_key_file /no/such/key cannot be read"),
        ({"api_key": KEY}, "no argument 'api_key'"),
    ],
)
def test_a_wrong_argument_is_named(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError) as raised:
        app(arguments)
    assert named in str(raised.value)
    assert KEY not in str(raised.value)


def test_arguments_become_options(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    options = options_of(
        {
            "rerankers": "mini=embedded,big=/models/big",
            "embedders": ["embedded"],
            "replicas": "2",
            "max_replicas": 4,
            "num_gpus": "0.5",
            "api_key_file": str(tmp_path / "key"),
            "max_body_mb": 1,
            "answer_s": "10",
        }
    )
    assert options.server.rerankers == (Named("mini", "embedded"), Named("big", "/models/big"))
    assert options.server.embedders == (Named("embedded", "embedded"),)
    assert options.server.api_key == KEY
    assert (options.server.limits.body_bytes, options.server.limits.answer_s) == (1 << 20, 10.0)
    assert options.server.limits.passages == Limits().passages
    assert options.replicas == Replicas(count=2, num_gpus=0.5)
    assert options.max_replicas == 4
    assert options.max_queued_requests == ApplicationOptions().max_queued_requests


def test_replicas_scale_with_the_requests_under_way() -> None:
    deployment = app({"num_gpus": 0.25, "max_replicas": 4})._bound_deployment
    assert deployment.ray_actor_options is not None
    assert deployment.ray_actor_options["num_gpus"] == 0.25
    scaling = deployment._deployment_config.autoscaling_config
    assert scaling is not None
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 4)
    assert scaling.target_ongoing_requests == 16
    refused = deployment._deployment_config.backpressure_config
    assert (refused.status_code, refused.retry_after_s) == (429, 1.0)
    assert app({"replicas": 3})._bound_deployment.num_replicas == 3


def test_the_manifest_is_one_that_serve_reads() -> None:
    documents = yaml.safe_load_all((ROOT / "deploy/kuberay.yaml").read_text())
    service = next(each for each in documents if each["kind"] == "RayService")
    config = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    [application] = config.applications
    assert application.import_path == "gpurerank.cluster.application:app"
    arguments = {k: v for k, v in application.args.items() if k != "api_key_file"}
    assert options_of(arguments).max_replicas == 4
    cluster_spec = service["spec"]["rayClusterConfig"]
    head = cluster_spec["headGroupSpec"]["template"]["spec"]
    workers = cluster_spec["workerGroupSpecs"][0]["template"]["spec"]
    for pod in (head, workers):
        [container] = pod["containers"]
        variables = {each["name"]: each.get("value") for each in container["env"]}
        assert variables[front.VARIABLE] == front.IMPORT_PATH
        mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert str(Path(application.args["api_key_file"]).parent) in mounts
    assert workers["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_the_config_file_of_the_page_is_one_that_serve_reads() -> None:
    page = (ROOT / "docs/how-to/cluster.md").read_text()
    shown = page.split("```yaml", 1)[1].split("\n", 1)[1].split("```", 1)[0]
    [application] = ServeDeploySchema.model_validate(yaml.safe_load(shown)).applications
    assert application.import_path == "gpurerank.cluster.application:app"
    arguments = {k: v for k, v in application.args.items() if k != "api_key_file"}
    assert [each.name for each in options_of(arguments).server.rerankers] == ["default", "small"]
    for name in Arguments.model_fields:
        assert f"`{name}`" in page


def test_a_killed_replica_comes_back(killed: Load) -> None:
    def back() -> bool:
        found = replicas_of("two")
        running_now = serve.status().applications["two"].deployments["gpurerank"].replica_states
        return killed.before[0] not in found and running_now == {"RUNNING": 2}

    eventually(back)


def test_an_application_that_is_deleted_answers_what_it_accepted(two: str) -> None:
    answered = 0

    def ask_to_the_end(client: httpx.Client) -> httpx.Response:
        nonlocal answered
        while (answer := client.post("/v1/rerank", json=ASKED)).status_code == 200:
            answered += 1
        return answer

    with (
        httpx.Client(base_url=two, headers=BEARER, timeout=HANG_S) as client,
        ThreadPoolExecutor(6) as pool,
    ):
        asking = [pool.submit(ask_to_the_end, client) for _ in range(6)]
        eventually(lambda: answered >= 12)
        serve.delete("two")
        for each in asking:
            last = each.result(HANG_S)
            assert (last.status_code, last.headers["retry-after"]) == (503, "5")
            assert last.json()["error"]["code"] == "not_deployed"


def test_the_command_line_serves_on_ray_until_sigterm(tiny: str) -> None:
    arguments = ("serve", "--ray", "--reranker", f"tiny={tiny}", "--port", "0", "--num-gpus", "0")
    path = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    with subprocess.Popen(
        [sys.executable, "-m", "gpurerank.cli", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "GPURERANK_API_KEY": KEY},
    ) as process:
        try:
            assert process.stderr is not None
            told = [process.stderr.readline(), process.stderr.readline()]
            assert told[0] == "loading the models\n"
            url = told[1].removeprefix("listening on ").strip()
            answer = httpx.post(f"{url}/v1/rerank", json=ASKED, headers=BEARER, timeout=HANG_S)
            assert len(scores_of(answer)) == len(TEXTS)
            process.send_signal(signal.SIGTERM)
            asked_at = time.monotonic()
            assert process.wait(HANG_S) == 0
            # The default of --drain-s is 30 s; a busy machine takes its time to notice.
            assert time.monotonic() - asked_at < 30 + 10
        finally:
            process.kill()
