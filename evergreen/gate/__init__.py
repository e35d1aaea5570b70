"""The gate: may this candidate replace the champion?

Pure decisions over what was measured: no clock, no network, no Prefect. Called by `tasks/gate.py`; thresholds come from
`[gate]` in the model's file. Every check says its figure and its rule, also when it holds. `decision.py` names all rules in
order, and says how to add one. By concern: `absolute.py` (rows, sanity, calibration), `champion.py` (paired with champion
and baselines), `slices.py`, `fairness.py`, `parity.py`, `budgets.py`. How often it errs is measured by `bench/gate.py`.
"""

from evergreen.gate.decision import RULES, Rule, decide
from evergreen.gate.evidence import Evidence, require_same_holdout

__all__ = ["RULES", "Evidence", "Rule", "decide", "require_same_holdout"]
