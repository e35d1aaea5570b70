"""A/B tests: the plan beside the release, who chose a row's arm, and what the other version said of each class."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("releases", sa.Column("test", sa.Text()))
    op.add_column("predictions", sa.Column("shadow_probabilities", sa.Text()))
    op.add_column("predictions", sa.Column("routed_by", sa.Text()))


def downgrade() -> None:
    for name in ("routed_by", "shadow_probabilities"):
        op.drop_column("predictions", name)
    op.drop_column("releases", "test")
