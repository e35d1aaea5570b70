"""The challenger that a watch holds beside the champion: trained up to the window, scored in it, kept by its content."""

from datetime import datetime, timedelta

from prefect import get_run_logger, task

from evergreen.errors import EvergreenError
from evergreen.monitoring.backtest.rehearsals import cuts
from evergreen.monitoring.challenger import paired_by_day
from evergreen.spec import ModelSpec
from evergreen.types import ChallengerReport, Fault, TrainingSet
from evergreen.wiring import code_revision, wiring
from tasks.watch import Served


@task(retries=1, retry_delay_seconds=5, persist_result=False)
def challenge(spec: ModelSpec, served: Served, faults: tuple[Fault, ...]) -> ChallengerReport | None:
    """Make the challenger `[monitor]` asks for and compare; None where it asks for none, or where that tells nothing.

    Nothing is made of broken data. One that cannot be made stands in the log and stops no watch. Run again, it finds what
    it trained.
    """
    if spec.monitor.challenger is None or faults:
        return None
    try:
        found = _compared(spec, served)
    except EvergreenError as error:
        get_run_logger().error("no challenger was made: %s", error)
        return None
    told = "nothing to compare" if found is None else f"gain {found.gain:.4f}, at least {found.gain_low:.4f}"
    get_run_logger().info("challenger (%s): %s", spec.monitor.challenger, told)
    return found


def _compared(spec: ModelSpec, served: Served) -> ChallengerReport | None:
    from evergreen.adapters.feature_tables import build_training_set, load_training_set
    from evergreen.training.predictor import Predictor
    from evergreen.training.rehearsal import Part, Stage, before, cheaper
    from evergreen.training.run.job import Base, TrainingJob

    wire, window, kind = wiring(), served.window, spec.monitor.challenger
    assert kind is not None
    made = wire.registry.candidate(served.champion)
    learnt = made.training_set.holdout.start if kind == "fine_tune" else made.trained_anew_until
    training_set = build_training_set(wire.settings.data, spec, wire.features, served.as_of)
    rows = load_training_set(training_set)
    [cut] = cuts(rows, [window.start])  # up to here all outcomes were in when the window began
    asked = rows["event_timestamp"]
    inside = ((asked >= window.start) & (asked < window.end)).to_numpy()
    if learnt >= cut or inside.sum() < spec.monitor.min_labels:
        return None

    def known(until: datetime) -> TrainingSet:
        """What a retrain that learnt up to then had: of a window that slides another one than today's."""
        if spec.train.history_start is not None:
            return training_set
        as_of = min(served.as_of, until + timedelta(days=spec.train.holdout_days))
        return build_training_set(wire.settings.data, spec, wire.features, as_of)

    def part(config: ModelSpec, base: Base | None, snapshot: TrainingSet, until: datetime) -> Part:
        job = TrainingJob(
            training_set=before(snapshot, until),
            spec=config,
            code_revision=code_revision(),
            folder=str(wire.settings.home / "challengers"),
            base=base,
        )
        return Part(job, training_set, window.start, window.end)

    with Stage(1) as stage:
        if kind == "retrain":
            newer, older = (stage.rehearse(part(cheaper(spec), None, known(until), until)) for until in (cut, learnt))
            theirs, seconds = older.result().scores[inside], older.result().seconds
        else:
            folder = str(wire.registry.fetch(served.champion, wire.settings.models_cache))
            base = Base(uri=folder, digest=served.champion.artifact, since=cut - timedelta(days=spec.remedy.tune_days))
            newer = stage.rehearse(part(spec.fine_tuning, base, training_set, cut))
            predictor = Predictor.load(folder, served.champion.artifact)
            theirs, seconds = predictor.score(predictor.columns(rows[inside])), 0.0
        mine = newer.result()
    moments = asked.to_numpy(dtype="datetime64[us]")[inside]
    found = paired_by_day(spec.model.task, moments, rows["label"].to_numpy(float)[inside], mine.scores[inside], theirs)
    if found.days < 2:
        return None
    return ChallengerReport(
        kind=kind,
        learnt_until=cut,
        rows=int(inside.sum()),
        days=found.days,
        gain=-found.mean,
        gain_low=-found.upper(spec.monitor.probe_confidence),
        cpu_seconds=mine.seconds + seconds,
    )
