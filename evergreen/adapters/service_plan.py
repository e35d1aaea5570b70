"""How a Feast feature service is answered: which views are read, what is computed from them, and what a row must bring.

Made once a process and service by `feast.py`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal

from feast import FeatureService, FeatureStore, FeatureView
from feast.types import String

from evergreen.adapters.online.on_demand import Columns, computing
from evergreen.adapters.online.view import StoredView

Kind = Literal["numeric", "categorical"]


@dataclass(frozen=True)
class ServicePlan:
    """How a service is answered; made once a process."""

    stored: tuple[StoredView, ...]
    on_demand: tuple[Callable[[Columns], dict[str, list[Any]]], ...]
    request: dict[str, Any]
    """Column of the request → its Feast type."""
    features: dict[str, Kind]

    @cached_property
    def keys(self) -> list[str]:
        """Entity keys, each once."""
        return list(dict.fromkeys(key for view in self.stored for key in view.keys))

    @cached_property
    def keys_alone(self) -> list[str]:
        """Entity keys that are the only key of some view."""
        return [key for key in self.keys if any(view.keys == (key,) for view in self.stored)]

    @cached_property
    def columns(self) -> list[str]:
        """What a row must bring."""
        return list(dict.fromkeys([*self.keys, *self.request]))


def plan_of(store: FeatureStore, service: FeatureService) -> ServicePlan:
    """From what the registry has of the service and of the views it names."""
    views = {view.name: view for view in store.list_feature_views()}
    wanted: dict[str, list[str]] = {}
    on_demand = []
    for projection in service.feature_view_projections:
        if projection.name in views:
            wanted.setdefault(projection.name, []).extend(field.name for field in projection.features)
        else:
            on_demand.append(store.get_on_demand_feature_view(projection.name))
    for view in on_demand:  # what it is computed from is read too, though it is no feature of the model
        for source in view.source_feature_view_projections.values():
            wanted.setdefault(source.name, []).extend(field.name for field in source.features)
    stored = (_stored(views[name], features) for name, features in wanted.items())
    fields = [field for projection in service.feature_view_projections for field in projection.features]
    request = {
        field.name: field.dtype
        for view in on_demand
        for source in view.source_request_sources.values()
        for field in source.schema
    }
    kinds: dict[str, Kind] = {f.name: "categorical" if f.dtype == String else "numeric" for f in fields}
    return ServicePlan(tuple(stored), tuple(map(computing, on_demand)), request, kinds)


def _stored(view: FeatureView, features: Sequence[str]) -> StoredView:
    return StoredView(
        name=view.name,
        keys=tuple(entity.name for entity in view.entity_columns),
        key_types=tuple(entity.dtype.to_value_type() for entity in view.entity_columns),
        features=tuple(dict.fromkeys(features)),
        ttl_seconds=view.ttl.total_seconds() if view.ttl and view.ttl > timedelta(0) else float("inf"),
    )
