"""What was said of a window before its outcomes were in, and what came true."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "window_estimates",
        sa.Column("model", sa.Text(), primary_key=True),
        sa.Column("window_end", MOMENT, primary_key=True),
        sa.Column("version", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("window_start", MOMENT, nullable=False),
        sa.Column("as_of", MOMENT, nullable=False),
        sa.Column("said", sa.Text(), nullable=False),
        sa.Column("realised", sa.Text()),
        sa.Column("realised_as_of", MOMENT),
    )


def downgrade() -> None:
    op.drop_table("window_estimates")
