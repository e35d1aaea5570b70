"""What the other version of an open release said of the same row."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("predictions", sa.Column("shadow_version", sa.Integer()))
    op.add_column("predictions", sa.Column("shadow_score", sa.Float()))
    op.add_column("predictions", sa.Column("shadow_latency_ms", sa.Float()))


def downgrade() -> None:
    for name in ("shadow_latency_ms", "shadow_score", "shadow_version"):
        op.drop_column("predictions", name)
