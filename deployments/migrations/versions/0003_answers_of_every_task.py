"""Answers and outcomes of every task: probabilities by class, and labels that are any number."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("predictions", sa.Column("probabilities", sa.Text()))
    with op.batch_alter_table("outcomes") as outcomes:
        outcomes.alter_column("label", existing_type=sa.Integer(), type_=sa.Float(), existing_nullable=False)


def downgrade() -> None:
    with op.batch_alter_table("outcomes") as outcomes:
        outcomes.alter_column("label", existing_type=sa.Float(), type_=sa.Integer(), existing_nullable=False)
    op.drop_column("predictions", "probabilities")
