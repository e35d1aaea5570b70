"""Feast, as the rest of Evergreen sees it: register, join as of a moment, refresh the online store, look up.

Feast does not look at the age of what it reads online (feast-dev/feast#6821) and would compute on-demand features from
values nobody may use. So `online` reads the stored views in one call (`online/read.py`), drops what is older than its view's TTL at
`as_of` or newer than `as_of`, and only then computes the on-demand views, with the very function that Feast runs
offline. Not here: how feature tables are made (`feature_repo/DOMAIN/pipeline.py`) and the point-in-time join itself
(`asof_store.py`). Called by tasks, through `evergreen.wiring`, and by serving. To use another online store, add its
block to `_online_store`.
"""

import contextlib
import copy
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView, OnDemandFeatureView, Project, RepoConfig, ValueType
from feast.errors import FeatureServiceNotFoundException
from feast.types import String, UnixTimestamp

from evergreen.adapters.domains import domain_module
from evergreen.adapters.online.read import open_online_store, prepare
from evergreen.adapters.online.usable import ValueCache, look_up
from evergreen.adapters.service_plan import Kind, ServicePlan, plan_of
from evergreen.errors import ConfigurationError, DataError, FeatureServiceMissing
from evergreen.settings import Settings

REDIS_TIMEOUTS = ",socket_timeout=5,socket_connect_timeout=5"
"""Of Feast's own client, which else waits for ever for a Redis that hangs."""
_BEGINNING = datetime(1970, 1, 2, tzinfo=UTC)
_DEFINED = (Project, Entity, FeatureView, OnDemandFeatureView, FeatureService)
_WHOLE = {ValueType.INT64: "Int64", ValueType.INT32: "Int32"}


@dataclass(frozen=True)
class OnlineFeatures:
    """What may be used of what the online store holds, for n asked rows."""

    columns: dict[str, list[Any]]
    """Feature → n values, in the service's order; a missing one is None."""
    stale: list[tuple[str, ...]]
    """A row: the views whose value was missing, older than the TTL or from after `as_of`, and so not used."""
    unknown: list[bool]
    """A row: whether it names an entity that is sure never to have been seen.

    That can be told of an entity key which has a view of its own among those the service reads: it is unknown when
    neither that view nor any other with the key holds anything for the row, however old. A key that occurs only together
    with others never makes a row unknown: what is missing may be the combination (a new route to a known airport), and
    an online store cannot be asked for a part of a key. Such a row is missing its view, in `stale`.
    """
    oldest_seconds: dict[str, float]
    """View → how old, at the moment asked about, the oldest of its values is that is used; without those of which none is."""


class Features:
    """One installation's feature store."""

    def __init__(self, settings: Settings) -> None:
        """Open the store that `feature_repo/feature_store.yaml` describes; raises `ConfigurationError` if it is wrong."""
        self._repo = settings.feature_repo
        settings.home.mkdir(parents=True, exist_ok=True)
        self._store = FeatureStore(config=_configuration(settings))
        self._online = open_online_store(self._store)
        self._plans: dict[str, ServicePlan] = {}

    def apply(self) -> None:
        """Register what every domain's `definitions.py` defines. Doing it again changes nothing."""
        # Feast writes what was materialized into the objects it is given, so it is given copies.
        found = [copy.deepcopy(one) for path in sorted(self._repo.glob("*/definitions.py")) for one in _defined(path)]
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # "on-demand views are experimental"
            self._store.apply(found)
        prepare(self._store)
        self._plans.clear()

    def inputs(self, service: str, entity_features: Sequence[str]) -> dict[str, Kind]:
        """Model inputs in column order: the service's features, then `entity_features` as categories.

        Raises `FeatureServiceMissing` with the services there are.
        """
        return {**self._plan(service).features, **dict.fromkeys(entity_features, "categorical")}

    def needs(self, service: str) -> dict[str, str]:
        """Columns a row must bring to be looked up: entity keys as `key`, request columns by Feast's name of their type.

        A key that is a whole number is named by its type, too: Feast cannot look a text up.
        """
        plan = self._plan(service)
        types = {name: kind for view in plan.stored for name, kind in zip(view.keys, view.key_types, strict=True)}
        keys = {name: _WHOLE.get(types[name], "key") for name in plan.keys}
        return keys | {name: str(dtype) for name, dtype in plan.request.items()}

    def tables(self, service: str) -> tuple[str, ...]:
        """Feature tables the service's values come from: the folders its views read."""
        views = {view.name: view for view in self._store.list_feature_views()}
        read = (views[view.name].batch_source.path for view in self._plan(service).stored)
        return tuple(dict.fromkeys(Path(path).parent.name for path in read))

    def historical(self, service: str, examples: pd.DataFrame) -> pd.DataFrame:
        """`examples` with the service's features as known at each row's `event_timestamp`: same rows, same order.

        `examples` needs the entity keys, the request's columns and `event_timestamp`; numeric features are float64 with
        NaN where missing. Raises `DataError` when a column is not there.
        """
        plan = self._plan(service)
        asked = list(dict.fromkeys([*plan.keys, *plan.request, "event_timestamp"]))
        _require(asked, examples.columns, service)
        definition = self._store.get_feature_service(service)
        joined = self._store.get_historical_features(examples[asked], definition).to_df()
        features = {
            name: joined[name].astype("float64" if kind == "numeric" else "object").to_numpy()
            for name, kind in plan.features.items()
        }
        kept = examples.reset_index(drop=True).drop(columns=[name for name in features if name in examples])
        return pd.concat([kept, pd.DataFrame(features)], axis=1)

    def refreshes(self, service: str) -> tuple[datetime, ...]:
        """The moments up to which the online store was ever brought, that every view of the service shares; oldest first."""
        read = {view.name for view in self._plan(service).stored}
        ends = [
            {_aware(end) for _, end in view.materialization_intervals}
            for view in self._store.list_feature_views()
            if view.name in read
        ]
        return tuple(sorted(set.intersection(*ends))) if ends else ()

    def materialize(self, domain: str, as_of: datetime) -> None:
        """Bring a domain's views, whose tables are built up to `as_of`, there too: all at first, then what became known since.

        No other domain's: for Feast a span is done once it was looked at, and rows built for it later would never be
        served. A view that is already there or further is left alone: an online store does not go back in time.
        """
        mine = {one.name for one in _defined(self._repo / domain / "definitions.py") if isinstance(one, FeatureView)}
        ends = {view.name: view.most_recent_end_time for view in self._store.list_feature_views() if view.name in mine}
        first = [name for name, end in ends.items() if end is None]
        behind = [name for name, end in ends.items() if end is not None and _aware(end) < as_of]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # bars and banners
            if first:  # materialize_incremental would start at the wall clock's now minus the TTL
                self._store.materialize(_BEGINNING, as_of, feature_views=first)
            if behind:
                self._store.materialize_incremental(as_of, feature_views=behind)

    def online(
        self, service: str, rows: Mapping[str, Sequence[Any]], as_of: datetime, cache: ValueCache | None = None
    ) -> OnlineFeatures:
        """Look the rows up as of a moment, in one read; see `OnlineFeatures`. A `cache` may spare that read.

        `rows` holds the entity keys and the request's columns as lists of one length; times are datetimes or ISO 8601.
        Raises `DataError` naming a missing column or a value that cannot be read, and `OnlineStoreAway` where the store is away.
        """
        plan = self._plan(service)
        _require(plan.columns, rows, service)
        # An empty key is in no table, so a missing one finds nothing.
        keys = {key: ["" if value is None else value for value in rows[key]] for key in plan.keys}
        found = look_up(self._online, plan.stored, keys, as_of.timestamp(), cache)
        columns = found.columns
        for name, kind in plan.request.items():
            columns[name] = _values(name, rows[name], kind)
        for compute in plan.on_demand:
            columns.update(compute(columns))
        unknown = {row for key in plan.keys_alone for row in found.unseen.get(key, ())}
        return OnlineFeatures(
            columns=_without_nan({name: columns[name] for name in plan.features}),
            stale=found.stale,
            unknown=[row in unknown for row in range(len(found.stale))],
            oldest_seconds=found.oldest_seconds,
        )

    def _plan(self, service: str) -> ServicePlan:
        if service not in self._plans:
            try:
                definition = self._store.get_feature_service(service)
            except FeatureServiceNotFoundException:
                known = sorted(each.name for each in self._store.list_feature_services())
                raise FeatureServiceMissing(
                    f"no feature service {service!r} in the registry; known services: {known}. Define it in "
                    "feature_repo/DOMAIN/definitions.py and apply, or correct [data].feature_service in the model's file."
                ) from None
            self._plans[service] = plan_of(self._store, definition)
        return self._plans[service]


def _defined(definitions: Path) -> list[Any]:
    return [value for value in vars(domain_module(definitions)).values() if isinstance(value, _DEFINED)]


def _configuration(settings: Settings) -> RepoConfig:
    path = settings.feature_repo / "feature_store.yaml"
    if not path.is_file():
        raise ConfigurationError(f"there is no {path}; set EVERGREEN_FEATURE_REPO to the folder that holds it")
    variables = {
        "EVERGREEN_DATA": json.dumps(str(settings.data.absolute())),
        "EVERGREEN_REGISTRY": json.dumps(settings.feast_registry),
        "EVERGREEN_ONLINE": json.dumps(_online_store(settings)),
    }
    described = yaml.safe_load(Template(path.read_text()).safe_substitute(variables))
    return RepoConfig(**described, repo_path=Path(settings.feature_repo))


def _online_store(settings: Settings) -> dict[str, str]:
    if settings.online_store == "redis":
        waits = "" if "socket_timeout" in settings.redis_url else REDIS_TIMEOUTS
        return {"type": "redis", "connection_string": settings.redis_url + waits}
    return {"type": "sqlite", "path": str((settings.home / "online.db").absolute())}


def _require(names: Sequence[str], have: Any, service: str) -> None:
    missing = [name for name in names if name not in have]
    if missing:
        raise DataError(f"feature service {service!r} needs the columns {missing}, which are not in the rows; add them")


def _values(name: str, values: Sequence[Any], kind: Any) -> list[Any]:
    try:
        return list(map(_READERS.get(kind, float), values))
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"request column {name!r} holds a value that is not a {kind}: {error}; correct it") from error


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _moment(value: datetime | str) -> datetime:
    return _aware(datetime.fromisoformat(value) if isinstance(value, str) else value)


_READERS: Mapping[Any, Callable[[Any], Any]] = {UnixTimestamp: _moment, String: str}
"""Feast type of a request's column → what makes its values of what came; all others are numbers."""


def _without_nan(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    with contextlib.suppress(TypeError):  # texts have no sum
        total = sum(filter(None, chain.from_iterable(columns.values())))
        if total == total:  # so there is none, as is usual, and that is seen sooner than each cell is put right
            return columns
    return {name: [None if cell != cell else cell for cell in column] for name, column in columns.items()}
