"""The champion on the days that validate a training: what the training has to beat to be worth going on with."""

from evergreen.rival import Rival, has_not_seen
from evergreen.spec import ModelSpec
from evergreen.types import TrainingSet
from evergreen.wiring import wiring


def rival_of(spec: ModelSpec, training_set: TrainingSet) -> Rival | None:
    """None where the spec gives nothing up, where there is no champion, and where it has trained on all of those days."""
    from evergreen.adapters.feature_tables import load_training_set
    from evergreen.training.data.columns import validation_days
    from tasks.gate import champion_of, evaluate_rows

    champion = champion_of(spec)
    if spec.train.abandon_margin is None or champion is None:
        return None
    wire = wiring()
    trained_on = wire.registry.training_set(champion)
    unseen = {day for day in set(validation_days(training_set).tolist()) if has_not_seen(trained_on, day)}
    rows = load_training_set(training_set)
    rows = rows[rows["event_timestamp"].dt.tz_convert("UTC").dt.date.isin(unseen)]
    if rows.empty:
        return None
    folder = wire.registry.fetch(champion, wire.settings.models_cache)
    service = trained_on.feature_service
    scored = evaluate_rows(spec, str(folder), champion.artifact, training_set, rows, slices=(), own_service=service)
    return Rival(version=champion.version, margin=spec.train.abandon_margin, by_day=scored.overall.by_day)
