"""The prediction log: what was served, by which version, and what came of it.

A repository over `predictions` and `outcomes`; the caller owns the transaction. Serving's log writer and batch scoring
record here; the watch, the roll-out and the demo read frames from here. It decides nothing and scores nothing.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import batched
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import and_, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session, aliased

from evergreen.adapters.tables import OutcomeRow, PredictionRow
from evergreen.errors import DataError
from evergreen.types import Prediction, Window
