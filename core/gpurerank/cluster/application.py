"""The Ray Serve application: replicas that each hold the models and answer as one server does."""

from __future__ import annotations

from typing import Any

import ray
from ray import serve
from ray.serve.config import AutoscalingConfig, BackpressureConfig

from gpurerank.cluster.arguments import options_of
from gpurerank.cluster.connection import Replicas
from gpurerank.cluster.options import ApplicationOptions
from gpurerank.cluster.replica import RerankReplica

# A model that cannot be loaded will not be the tenth time either.
_STARTS = 3


def build(options: ApplicationOptions) -> serve.Application:
    """The application of these options, for ``serve.run``.

    Raises:
        InputError: An option is wrong.
    """
    options.check()
    each, drain_s = options.replicas, options.server.limits.drain_s
    deployed = serve.deployment(
        name="gpurerank",
        num_replicas="auto" if options.max_replicas else each.count,
        autoscaling_config=_autoscaling(options),
        ray_actor_options={"num_cpus": each.num_cpus, "num_gpus": _gpus(each)},
        max_ongoing_requests=options.max_ongoing_requests,
        max_queued_requests=options.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=1.0),
        graceful_shutdown_timeout_s=drain_s,
        graceful_shutdown_wait_loop_s=min(1.0, drain_s),
        max_constructor_retry_count=_STARTS,
    )(serve.ingress()(RerankReplica))
    application: serve.Application = deployed.bind(options.server)
    return application


def app(arguments: dict[str, Any]) -> serve.Application:
    """Builds the application from ``args`` of a config file, or from what follows ``serve run``.

    Raises:
        InputError: An argument is unknown or wrong; ``Arguments`` says which there are.
    """
    return build(options_of(arguments))


def _autoscaling(options: ApplicationOptions) -> AutoscalingConfig | None:
    if options.max_replicas is None:
        return None
    return AutoscalingConfig(
        min_replicas=options.replicas.count,
        max_replicas=options.max_replicas,
        target_ongoing_requests=options.target_ongoing_requests,
    )


def _gpus(replicas: Replicas) -> float:
    if replicas.num_gpus is not None:
        return replicas.num_gpus
    return float(ray.is_initialized() and "GPU" in ray.cluster_resources())
