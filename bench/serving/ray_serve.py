"""The model behind Ray Serve: one replica, its HTTP proxy beside it; runs in the environment that `peers.py` makes for it."""

import os
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from evergreen.training.predictor import Predictor


@serve.deployment(num_replicas=1, max_ongoing_requests=128)
class Flights:
    """The model in memory."""

    def __init__(self) -> None:
        self.predictor = Predictor.load(os.environ["BENCH_ARTIFACT"])

    async def __call__(self, request: Request) -> list[float]:
        """A score a row."""
        rows: list[dict[str, Any]] = (await request.json())["rows"]
        columns = {name: [row.get(name) for row in rows] for name in self.predictor.inputs}
        return [float(score) for score in self.predictor.score(columns)]


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(os.environ["BENCH_PORT"])},
        logging_config={"enable_access_log": False},
    )
    serve.run(Flights.bind(), route_prefix="/predict", blocking=True)  # type: ignore[attr-defined]
