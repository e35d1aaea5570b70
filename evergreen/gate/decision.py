"""All rules of the gate, in the order the checks are shown.

To add a rule, write one function from `Evidence` to checks and name it in `RULES`:

    def learnt_enough(evidence: Evidence) -> Iterator[Check]:
        days = evidence.candidate.days
        yield Check(name="whole_weeks", passed=days % 7 == 0, figure=days, rule="weekdays differ",
                    reason=f"{days} holdout days, whole weeks asked for")

It says its figure, its rule and its reason also when it holds, and yields nothing where it does not apply. A threshold is an
attribute of `GateConfig`, found in `evidence.config`.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

from evergreen.gate.absolute import (
    calibrated,
    enough_days,
    enough_rows,
    leans_on,
    predicts,
    scores_sound,
    scores_spread,
)
from evergreen.gate.budgets import within_budgets
from evergreen.gate.champion import (
    better_than_champion,
    champion_unseen,
    earns_its_place,
    not_worse_than_champion,
    ranks_no_worse,
)
from evergreen.gate.evidence import Evidence, require_same_holdout
from evergreen.gate.fairness import groups_are_close
from evergreen.gate.parity import answers_hold
from evergreen.gate.slices import slices_hold
from evergreen.spec import GateConfig
from evergreen.types import Baselines, Check, Evaluation, Footprint, GateDecision, Parity

Rule = Callable[[Evidence], Iterable[Check]]


def by_itself(evidence: Evidence) -> Iterator[Check]:
    """What holds of any candidate."""
    candidate, config = evidence.candidate, evidence.config
    yield enough_rows(candidate, config)
    yield enough_days(candidate, config)
    yield from scores_sound(candidate)
    yield from predicts(candidate, config)
    yield calibrated(candidate, config)
    yield scores_spread(candidate, config)
    yield from leans_on(candidate, config)


def beside_baselines(evidence: Evidence) -> Iterator[Check]:
    """It must be worth more than a plain model."""
    return earns_its_place(evidence.candidate, evidence.baselines, evidence.config)


def beside_champion(evidence: Evidence) -> Iterator[Check]:
    """On the same rows, on the whole and in each slice."""
    candidate, champion, config = evidence.candidate, evidence.champion, evidence.config
    if champion is None:
        return
    require_same_holdout(candidate, champion)
    yield from champion_unseen(champion)
    yield not_worse_than_champion(candidate, champion, config)
    if config.superiority:
        yield better_than_champion(candidate, champion, config)
    yield from ranks_no_worse(candidate, champion, config)
    yield from slices_hold(candidate, champion, config)


def fair(evidence: Evidence) -> Iterator[Check]:
    """Where `[gate.fairness]` bounds it."""
    return groups_are_close(evidence.candidate, evidence.config)


def served_as_learnt(evidence: Evidence) -> Iterator[Check]:
    """Where answers of the champion were computed again."""
    if evidence.parity is not None:
        yield from answers_hold(evidence.parity, evidence.config)


def light_enough(evidence: Evidence) -> Iterator[Check]:
    """Where it was weighed."""
    if evidence.footprint is not None:
        yield from within_budgets(evidence.footprint, evidence.config)


RULES: tuple[Rule, ...] = (by_itself, beside_baselines, beside_champion, fair, served_as_learnt, light_enough)


def decide(
    candidate: Evaluation,
    champion: Evaluation | None,
    config: GateConfig,
    baselines: Baselines | None = None,
    *,
    footprint: Footprint | None = None,
    parity: Parity | None = None,
    rules: Sequence[Rule] = RULES,
) -> GateDecision:
    """Judge the candidate by every rule; with no champion only the absolute rules and the baselines apply.

    All must have been scored on the same held-out rows, else `DataError`.
    """
    evidence = Evidence(candidate, config, champion, baselines or Baselines(), footprint, parity)
    return GateDecision(checks=tuple(check for rule in rules for check in rule(evidence)))
