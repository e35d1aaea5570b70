"""A bare FastAPI route that calls the model: what one would write in ten minutes, and the nearest thing to a limit."""

import os
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from evergreen.training.predictor import Predictor

app = FastAPI()
predictor = Predictor.load(os.environ["BENCH_ARTIFACT"])


class Asked(BaseModel):
    """Rows of the model's inputs."""

    rows: list[dict[str, float | str | None]]


@app.post("/predict")
async def predict(body: Asked) -> dict[str, list[float]]:
    """A score a row."""
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in body.rows] for name in predictor.inputs}
    return {"scores": predictor.score(columns).tolist()}


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["BENCH_PORT"]), log_level="warning", access_log=False)
