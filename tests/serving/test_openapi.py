"""The API beside its own description: whatever the schema allows is answered as the schema says, and never with a fault."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from evergreen.wiring import Wiring
from serving.app import create_app
from tests.serving.server_process import released, served
from tests.serving.serving_factories import NOON, a_flight

load_all_checks()
HELD = [
    CHECKS.get_one(name)
    for name in (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
    )
]
"""Not that all the schema allows is accepted: a model's columns are in its feature service, which OpenAPI knows nothing of."""


@pytest.fixture(scope="module")
def url(installation: Wiring) -> Iterator[str]:
    released(installation, 1)
    with served(create_app(installation.settings)) as client:
        yield str(client.base_url)


def towards_an_answer(case: Any, number: int) -> None:
    """Turn two of three valid cases to a model there is, and one to a row it knows: else all would end at 404 or 422."""
    if number % 3 and "model_name" in (case.path_parameters or {}) and not case.path.endswith("rollback"):
        case.path_parameters["model_name"] = "flight_delay"
        if number % 3 == 2 and isinstance(case.body, dict) and "rows" in case.body:
            given = case.body["rows"] if isinstance(case.body["rows"], list) else [case.body["rows"]]
            names = {row.get("example_id"): row for row in given}
            case.body["rows"] = [a_flight(example_id=name) for name in names]
            case.body |= {"features": "online", "as_of": NOON.isoformat()}


def asked(operation: Any, mode: GenerationMode, cases: int, url: str) -> Counter[int]:
    """Statuses of so many cases; fails at the first that is not what the schema says."""
    statuses: Counter[int] = Counter()

    @seed(0)
    @settings(
        max_examples=cases,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if mode is GenerationMode.POSITIVE:
            towards_an_answer(case, statuses.total())
        statuses[case.call_and_validate(base_url=url, checks=HELD).status_code] += 1

    ask()
    return statuses


@pytest.mark.parametrize("cases", [200, pytest.param(2_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_nothing_the_schema_allows_is_a_fault_or_another_answer_than_it_says(url: str, cases: int) -> None:
    found = list(schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations())
    operations = [one.ok() for one in found if isinstance(one, Ok)]
    assert len(operations) == len(found), "each of them can be read"
    with_bodies = [one for one in operations if one.method == "post"]
    statuses: Counter[int] = Counter()

    for operation in operations:
        if operation in with_bodies:
            for mode in GenerationMode.POSITIVE, GenerationMode.NEGATIVE:
                statuses += asked(operation, mode, cases // (2 * len(with_bodies)) + 1, url)
        else:  # it has nothing to vary, or to get wrong
            statuses += asked(operation, GenerationMode.POSITIVE, 5, url)

    assert statuses.total() >= cases
    assert statuses[200] > cases / 20
    assert statuses[422] > cases / 20
