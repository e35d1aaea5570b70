"""The model as a BentoML service, typed as its documentation does; runs in the environment that `peers.py` makes for it."""

import os

import bentoml

from evergreen.training.predictor import Predictor


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Flights:
    """One worker, the model in memory."""

    def __init__(self) -> None:
        self.predictor = Predictor.load(os.environ["BENCH_ARTIFACT"])

    @bentoml.api  # type: ignore[untyped-decorator]
    async def predict(self, rows: list[dict[str, float | str | None]]) -> list[float]:
        """A score a row."""
        columns = {name: [row.get(name) for row in rows] for name in self.predictor.inputs}
        return [float(score) for score in self.predictor.score(columns)]
