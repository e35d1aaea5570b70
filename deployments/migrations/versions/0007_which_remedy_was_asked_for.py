"""Which remedy was asked for, and what it cost."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("retrain_requests", "drift_checks"):
        op.add_column(table, sa.Column("remedy", sa.Text(), nullable=False, server_default="retrain"))
    op.add_column("retrain_requests", sa.Column("device_seconds", sa.Float()))


def downgrade() -> None:
    with op.batch_alter_table("retrain_requests") as requests:
        requests.drop_column("device_seconds")
    for table in ("drift_checks", "retrain_requests"):
        with op.batch_alter_table(table) as changed:
            changed.drop_column("remedy")
