"""Optuna: which values to try next, kept in Evergreen's database so that a search that was killed goes on.

The only module that imports Optuna. It manages tables of its own with Alembic, as Evergreen does, under the same
bookkeeping table; so on Postgres they live in a schema of their own in the same database, on SQLite in a file beside it.
Called by `tasks/tune.py`.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url, text

from evergreen.adapters.database import BUSY_SECONDS, open_engine
from evergreen.errors import TrainingFailed
from evergreen.spec import TuneConfig
from evergreen.tuning import Axis, Value
from evergreen.types import Cost, Trial

HEARTBEAT_SECONDS, GRACE_SECONDS = 5, 20
"""A trial that was not heard of for that long has been killed: its values are tried again."""
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}
Report = Callable[[int, float], bool]
"""Tell a trial's loss at a stage of it; True when it should be stopped."""
Objective = Callable[[dict[str, Value], Report], tuple[float | None, Cost | None]]
"""Values to a loss, None where the trial was stopped, and what it cost."""


class Study:
    """One search: found by its name and gone on with, or begun. A context manager, which closes its connections."""

    def __init__(
        self, url: str, name: str, config: TuneConfig, axes: tuple[Axis, ...], present: dict[str, Value]
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._axes, self._config = axes, config
        with _quietly():
            self._storage = _storage(studies_url(url))
        known = [study.study_name for study in self._storage.get_all_studies()]
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            load_if_exists=True,
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2),
        )
        # Going on with the same seed would draw the same values again.
        seed = config.seed + len(self._study.trials)
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=6)
        self.goes_on = name in known
        self._study.enqueue_trial(dict(present), skip_if_exists=True)

    def __enter__(self) -> "Study":
        return self

    def __exit__(self, *_: object) -> None:
        self._storage.remove_session()
        self._storage.engine.dispose()

    @property
    def trials(self) -> tuple[Trial, ...]:
        """In the order they were begun."""
        return tuple(_trial(found) for found in self._study.trials)

    def search(self, objective: Objective, at_once: int, on_trial: Callable[[Trial], None]) -> None:
        """Try values until as many trials as were asked for have ended, so many at once.

        Values that wait, the present ones and those of trials whose process was killed, come first and one after the
        other: on SQLite two threads may both be given the same waiting trial. To see that a trial is dead takes `GRACE_SECONDS`.
        A training that cannot be finished (`TrainingFailed`) is a failed trial, and the search goes on; other errors end it.
        """
        self._take_over()
        while (missing := self._config.trials - self._ended()) > 0:
            waiting = len(self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
            self._study.optimize(
                lambda trial: self._run(objective, trial),
                n_trials=min(waiting or missing, missing),
                n_jobs=1 if waiting else min(at_once, missing),
                catch=(TrainingFailed,),
                callbacks=[lambda _, found: on_trial(_trial(found))],
            )

    def _take_over(self) -> None:
        end = time.monotonic() + GRACE_SECONDS + HEARTBEAT_SECONDS
        while self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)) and time.monotonic() < end:
            with _quietly():
                fail_stale_trials(self._study)
            time.sleep(0.5)

    def _ended(self) -> int:
        """A failed trial counts unless its values are waiting to be tried again."""
        states = [trial.state for trial in self._study.trials]
        retried = [trial for trial in self._study.trials if "failed_trial" in trial.system_attrs]
        return sum(state.is_finished() for state in states) - len(retried)

    def _run(self, objective: Objective, trial: optuna.Trial) -> float:
        values = {axis.key: _suggest(trial, axis) for axis in self._axes}

        def report(stage: int, loss: float) -> bool:
            trial.report(loss, stage)
            return bool(trial.should_prune())

        try:
            loss, cost = objective(values, report)
        except TrainingFailed as error:
            trial.set_user_attr("failure", str(error))
            raise
        if cost is not None:
            trial.set_user_attr("cost", cost.model_dump(mode="json"))
        if loss is None:
            raise optuna.TrialPruned("others did better at this stage")
        return loss


@contextmanager
def _quietly() -> Iterator[None]:
    """Heartbeats are called experimental since version 2.8; everything else is heard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        yield


def studies_url(url: str) -> str:
    """Where the studies of an Evergreen database are; a schema is made where it is missing."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        database = Path(str(parsed.database))
        return parsed.set(database=str(database.with_name(f"{database.stem}_studies.db"))).render_as_string(False)
    engine = open_engine(url)
    with engine.begin() as connection:
        schema = f"{connection.scalar(text('SELECT current_schema()'))}_studies"
        connection.execute(text(f'CREATE SCHEMA IF NOT EXISTS "{schema}"'))
    own = engine.url.update_query_dict({"options": f"-csearch_path={schema}"})
    engine.dispose()
    return own.render_as_string(hide_password=False)


def _storage(url: str) -> RDBStorage:
    lite = url.startswith("sqlite")
    return RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": BUSY_SECONDS}} if lite else {"pool_pre_ping": True},
        heartbeat_interval=HEARTBEAT_SECONDS,
        grace_period=GRACE_SECONDS,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=3),
    )


def _suggest(trial: optuna.Trial, axis: Axis) -> Value:
    if axis.choices:
        return cast(Value, trial.suggest_categorical(axis.key, axis.choices))
    if axis.whole:
        return trial.suggest_int(axis.key, int(axis.low), int(axis.high))
    return trial.suggest_float(axis.key, axis.low, axis.high, log=axis.logarithmic)


def _trial(found: FrozenTrial) -> Trial:
    cost: Any = found.user_attrs.get("cost")
    return Trial.model_validate(
        {
            "number": found.number,
            "state": _STATES[found.state],
            "values": found.params,
            "loss": found.value if found.state is TrialState.COMPLETE else None,
            "cost": cost,
            "failure": found.user_attrs.get("failure"),
        }
    )
