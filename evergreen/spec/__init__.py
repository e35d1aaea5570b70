"""A model's file: `models/NAME.toml` → `ModelSpec`.

One table a concern; each table is a class here and its attribute docstrings are the documentation of its keys. Everything
but `[model]` and `[data]` has a default. An unknown key fails with the nearest known one.
To add a key, add an attribute with a docstring; to add a table, add a class and an attribute of `ModelSpec`.
"""

from evergreen.spec.gate import FairnessConfig, GateConfig
from evergreen.spec.model import DataConfig, ModelConfig
from evergreen.spec.monitor import BacktestConfig, InjectedFault, MonitorConfig, RetrainConfig
from evergreen.spec.release import MOST_ROWS, AbTestConfig, ReleaseConfig, ServeConfig
from evergreen.spec.remedy import RemedyConfig
from evergreen.spec.spec import CLASSIFICATION_KEYS, REGRESSION_KEYS, ModelSpec, load_spec, parse_spec
from evergreen.spec.table import Name, Table
from evergreen.spec.train import TrainConfig, TuneConfig

__all__ = [
    "CLASSIFICATION_KEYS",
    "MOST_ROWS",
    "REGRESSION_KEYS",
    "AbTestConfig",
    "BacktestConfig",
    "DataConfig",
    "FairnessConfig",
    "GateConfig",
    "InjectedFault",
    "ModelConfig",
    "ModelSpec",
    "MonitorConfig",
    "Name",
    "ReleaseConfig",
    "RemedyConfig",
    "RetrainConfig",
    "ServeConfig",
    "Table",
    "TrainConfig",
    "TuneConfig",
    "load_spec",
    "parse_spec",
]
