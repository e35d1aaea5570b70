"""Training sets for the benches: the real flights, made once in a folder that is kept, and the same many times over."""

import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from evergreen.settings import ROOT, Settings
from evergreen.spec import load_spec
from evergreen.types import TrainingSet


def snapshot(home: Path, as_of: datetime) -> TrainingSet:
    """The flights' training set as of a moment, built through the pipeline and Feast on first use."""
    known = home / f"training-set-{as_of:%Y%m%d}.json"
    if known.is_file():
        found = TrainingSet.model_validate_json(known.read_text())
        if Path(found.uri).is_file():
            return found
    from evergreen.adapters.feast import Features
    from evergreen.adapters.feature_tables import build_training_set
    from feature_repo.flights import pipeline

    settings = Settings(home=home)
    pipeline.ingest(settings.data, as_of + timedelta(days=2))
    pipeline.build(settings.data, as_of + timedelta(days=2))
    features = Features(settings)
    features.apply()
    made = build_training_set(settings.data, load_spec(ROOT / "models" / "flight_delay.toml"), features, as_of)
    known.write_text(made.model_dump_json())
    return made


def repeated(training_set: TrainingSet, times: int, folder: Path) -> TrainingSet:
    """The same rows so many times with fresh keys, in order of time, as a file in `folder`; once is the set itself."""
    if times == 1:
        return training_set
    path = folder / f"{times}x.parquet"
    source = pq.ParquetFile(training_set.uri, memory_map=True)
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    with pq.ParquetWriter(scratch, source.schema_arrow) as writer:
        for batch in source.iter_batches(1 << 15):
            rows = pa.Table.from_batches([batch]).take(np.repeat(np.arange(batch.num_rows), times))
            copies = pa.array(np.tile(np.arange(times), batch.num_rows)).cast(pa.string())
            place = rows.column_names.index("example_id")
            keys = pc.binary_join_element_wise(rows["example_id"].cast(pa.string()), copies, "#")
            writer.write_table(rows.set_column(place, rows.field(place), keys.cast(rows.field(place).type)))
    scratch.rename(path)
    return training_set.model_copy(
        update={
            "uri": str(path),
            "rows": training_set.rows * times,
            "holdout_rows": training_set.holdout_rows * times,
        }
    )
