"""Who asked for a release's change: the same request again changes nothing."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("release_journal", sa.Column("request", sa.Text()))
    op.create_index("uq_release_journal_request", "release_journal", ["model", "request"], unique=True)


def downgrade() -> None:
    op.drop_index("uq_release_journal_request", "release_journal")
    op.drop_column("release_journal", "request")
