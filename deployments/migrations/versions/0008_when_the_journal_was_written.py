"""When a release's change was written down, by the clock on the wall; of earlier ones nobody knows."""

import sqlalchemy as sa
from alembic import op

revision = "0008"  # Alembic's own column takes 32 characters, so the file's whole name does not fit
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("release_journal", sa.Column("recorded_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("release_journal", "recorded_at")
