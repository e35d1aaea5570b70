"""On-demand features: computed from a request and stored values, by the very function that Feast runs offline.

Feast's own call (`OnDemandFeatureView.transform_dict`) checks the type of every cell of its input each time, which takes
several times what the function does. So a view in Python mode has its function called, with the same names in its input and
the same in its output; any other goes through Feast. Called by `feast.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from feast import OnDemandFeatureView
from feast.transformation.python_transformation import PythonTransformation

Columns = Mapping[str, Sequence[Any]]


def computing(view: OnDemandFeatureView) -> Callable[[Columns], dict[str, list[Any]]]:
    """Columns in, with a value a row, columns out; what it gives is what `transform_dict` gives of the view's features."""
    transformation, names = view.feature_transformation, [field.name for field in view.features]
    if view.singleton or not isinstance(transformation, PythonTransformation):
        return lambda columns: {
            name: list(made[name]) for made in [view.transform_dict(dict(columns))] for name in names
        }
    function = transformation.udf
    long_names = [
        (f"{source.name}__{field.name}", field.name)
        for source in view.source_feature_view_projections.values()
        for field in source.features
    ]

    def compute(columns: Columns) -> dict[str, list[Any]]:
        given = {**columns, **{long_name: columns[name] for long_name, name in long_names}}
        made = function(given)
        return {name: list(made[name] if name in made else given[name]) for name in names}

    return compute
