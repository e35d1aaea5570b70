"""Flights out of New York, 2013: the flagship's domain.

`pipeline.py` offers `ingest` and `build`; `definitions.py` is what Feast is told. A row's way: `source.py` (who knew
what when) → `checks.py` (does it make sense) → `sql/` (feature tables) → Feast.
"""
