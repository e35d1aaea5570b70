"""Small builders of the nouns that travel: everything has a sane value, a test names only what it is about."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from evergreen.types import (
    Alarm,
    Cause,
    Cell,
    Check,
    DayLoss,
    DriftReport,
    Evaluation,
    FeatureDrift,
    GateDecision,
    LiveFigures,
    ModelVersion,
    PerformanceReport,
    Prediction,
    Release,
    RetrainDecision,
    Scores,
    TrainedModel,
    TrainingSet,
    Window,
)

MAY = datetime(2013, 5, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def a_digest(letter: str = "a") -> str:
    """64 times the same hexadecimal letter."""
    return "sha256:" + letter * 64


def a_window(start: datetime = MAY, days: float = 7) -> Window:
    """A week from the first of May."""
    return Window(start=start, end=start + days * DAY)


def some_scores(rows: int = 5_000, **figures: float) -> Scores:
    """Figures of a fair model; name those that matter."""
    fair = {
        "log_loss": 0.50,
        "auc": 0.75,
        "brier": 0.16,
        "calibration_error": 0.03,
        "base_rate": 0.24,
        "mean_score": 0.25,
        "score_std": 0.15,
        "min_score": 0.01,
        "max_score": 0.95,
    }
    return Scores(rows=rows, figures=fair | figures)


def some_scores_of_numbers(rows: int = 5_000, **figures: float) -> Scores:
    """Figures of a fair regression of minutes; name those that matter."""
    fair = {
        "mse": 400.0,
        "rmse": 20.0,
        "mae": 14.0,
        "r2": 0.36,
        "bias": 0.5,
        "mean_score": 12.5,
        "mean_label": 12.0,
        "label_std": 25.0,
        "calibration_error": 0.03,
        "calibration_error_low": 0.03,
        "score_std": 14.0,
        "min_score": -20.0,
        "max_score": 95.0,
    }
    return Scores(rows=rows, task="regression", figures=fair | figures)


def some_days(scores: Scores, days: int, start: datetime = MAY) -> Scores:
    """The same loss on each of `days` days, and the rows spread over them as evenly as they go."""
    counts = [count for count in (scores.rows // days + (day < scores.rows % days) for day in range(days)) if count]
    by_day = tuple(
        DayLoss(day=(start + day * DAY).date(), rows=count, loss_sum=count * scores.loss)
        for day, count in enumerate(counts)
    )
    return scores.model_copy(update={"by_day": by_day})


def an_evaluation(
    *,
    log_loss: float = 0.50,
    auc: float = 0.75,
    calibration_error: float = 0.03,
    rows: int = 5_000,
    days: int = 7,
    slices: Mapping[str, float | Scores] | None = None,
    artifact: str = "a",
    holdout: Window | None = None,
    holdout_digest: str = "d",
) -> Evaluation:
    """One model on one week, each day of it alike; a slice is given by its log loss (1,000 rows) or by whole scores."""
    overall = some_scores(
        rows,
        log_loss=log_loss,
        auc=auc,
        calibration_error=calibration_error,
        calibration_error_low=calibration_error,
    )
    return Evaluation(
        model="flight_delay",
        artifact=a_digest(artifact),
        holdout=holdout or a_window(),
        holdout_digest=a_digest(holdout_digest),
        days=days,
        overall=some_days(overall, days),
        slices={
            name: some_days(given if isinstance(given, Scores) else some_scores(1_000, log_loss=given), days)
            for name, given in (slices or {}).items()
        },
    )


def a_training_set(*, rows: int = 20_000, uri: str = "training_sets/d.parquet", digest: str = "d") -> TrainingSet:
    """Four months of which the last week judges."""
    end = MAY
    return TrainingSet(
        uri=uri,
        digest=a_digest(digest),
        model="flight_delay",
        feature_service="flight_delay",
        as_of=end,
        window=Window(start=datetime(2013, 1, 1, tzinfo=UTC), end=end),
        holdout=Window(start=end - 7 * DAY, end=end),
        rows=rows,
        holdout_rows=rows // 10,
        features={"temperature": "numeric", "carrier": "categorical"},
    )


def a_trained_model(
    *, uri: str = "training/job/model", digest: str | None = None, training_set: TrainingSet | None = None
) -> TrainedModel:
    """A finished job; `digest` is a whole digest here, because registries verify it."""
    return TrainedModel(
        uri=uri,
        digest=digest or a_digest("a"),
        training_set=training_set or a_training_set(),
        spec_digest=a_digest("e"),
        code_revision="0123456789ab",
        seed=20130101,
        steps=40,
        seconds=12.5,
        ranks=2,
        curve=(
            {"step": 20.0, "epoch": 1.0, "train_loss": 0.55, "validation_loss": 0.53},
            {"step": 40.0, "epoch": 2.0, "train_loss": 0.51, "validation_loss": 0.50},
        ),
    )


def a_gate_decision(
    *, passed: bool = True, reason: str = "log loss 0.520, champion 0.500: change +0.0200, may rise 0.0100"
) -> GateDecision:
    """One check that holds, or does not."""
    check = Check(
        name="not_worse_than_champion", passed=passed, figure=0.02, rule="[gate].margin = 0.01", reason=reason
    )
    return GateDecision(checks=(check,))


def a_model_version(*, version: int = 1, artifact: str = "a", passed: bool = True) -> ModelVersion:
    """A registered version."""
    return ModelVersion(
        model="flight_delay",
        version=version,
        uri=f"models:/flight_delay/{version}",
        run_id=f"{version:032x}",
        artifact=a_digest(artifact),
        passed=passed,
    )


def a_release(
    *,
    champion: int | None = 1,
    challenger: int | None = None,
    share: float = 0.1,
    previous: int | None = None,
    revision: int = 1,
    changed_at: datetime = MAY,
    model: str = "flight_delay",
) -> Release:
    """A champion alone; with a challenger, that has `share` of the traffic."""
    return Release(
        model=model,
        revision=revision,
        champion=champion,
        challenger=challenger,
        challenger_share=share if challenger is not None else 0.0,
        previous=previous,
        changed_at=changed_at,
    )


def a_prediction(
    number: int = 0,
    *,
    prediction_id: str | None = None,
    example_id: str | None = None,
    at: datetime | None = None,
    version: int = 1,
    score: float = 0.25,
    latency_ms: float = 1.5,
    features: Mapping[str, Cell] | None = None,
    model: str = "flight_delay",
) -> Prediction:
    """Answer `number`, a minute after the one before."""
    moment = at or MAY + number * timedelta(minutes=1)
    return Prediction(
        prediction_id=prediction_id or f"p{number:06d}",
        model=model,
        version=version,
        role="champion",
        example_id=example_id or f"e{number:06d}",
        event_timestamp=moment,
        answered_at=moment,
        score=score,
        features=dict(features) if features is not None else {"temperature": 18.5, "carrier": "UA"},
        latency_ms=latency_ms,
    )


def some_live_figures(
    *, version: int = 2, rows: int = 1_000, labelled: int = 800, log_loss: float = 0.50, p99_latency_ms: float = 20.0
) -> LiveFigures:
    """A role that behaves; no scores where nothing is labelled."""
    scores = some_scores(labelled, log_loss=log_loss) if labelled else None
    return LiveFigures(version=version, rows=rows, labelled=labelled, scores=scores, p99_latency_ms=p99_latency_ms)


def an_alarm(trigger: Cause = Cause.DECAY, figure: float = 0.09) -> Alarm:
    """Calibration has rotted."""
    return Alarm(
        trigger=trigger,
        figure=figure,
        rule="[monitor].max_calibration_gap = 0.06",
        reason=f"mean score {figure:.3f} above what came true",
    )


def a_retrain_decision(
    *, retrain: bool = True, as_of: datetime = MAY + 7 * DAY, alarms: tuple[Alarm, ...] = ()
) -> RetrainDecision:
    """An alarm that asks for a retrain, or none; or `alarms` that ask for nothing."""
    alarm = an_alarm()
    return RetrainDecision(
        model="flight_delay",
        as_of=as_of,
        retrain=retrain,
        alarms=(alarm,) if retrain else alarms,
        reasons=(alarm.reason,) if retrain else ("nothing alarms",),
        episode=f"flight_delay/1/{as_of:%Y-%m-%d}" if retrain else None,
    )


def a_performance_report(*, window: Window | None = None, version: int = 1, labelled: int = 900) -> PerformanceReport:
    """A week that was served and labelled."""
    return PerformanceReport(
        model="flight_delay",
        version=version,
        window=window or a_window(),
        served=1_000,
        labelled=labelled,
        scores=some_scores(labelled) if labelled else None,
        calibration_gap=0.09 if labelled else None,
        days=7,
    )


def a_drift_report(*, window: Window | None = None) -> DriftReport:
    """One feature of two has drifted."""
    return DriftReport(
        model="flight_delay",
        window=window or a_window(),
        reference=a_window(datetime(2013, 3, 1, tzinfo=UTC), days=28),
        rows=1_000,
        reference_rows=2_000,
        features=(
            FeatureDrift(feature="temperature", method="psi", score=0.4, threshold=0.2, drifted=True),
            FeatureDrift(feature="carrier", method="psi", score=0.01, threshold=0.2, drifted=False),
        ),
        uri="reports/drift.html",
    )
