"""The first tables: predictions, outcomes, releases and their journal, drift checks, retrain requests."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "predictions",
        sa.Column("prediction_id", sa.Text(), primary_key=True),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("example_id", sa.Text(), nullable=False),
        sa.Column("event_timestamp", MOMENT, nullable=False),
        sa.Column("answered_at", MOMENT, nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("features", sa.Text(), nullable=False),
        sa.Column("stale", sa.Text(), nullable=False),
        sa.Column("latency_ms", sa.Float(), nullable=False),
    )
    op.create_index("ix_predictions_model_event", "predictions", ["model", "event_timestamp"])
    op.create_index("ix_predictions_model_example", "predictions", ["model", "example_id"])
    op.create_table(
        "outcomes",
        sa.Column("model", sa.Text(), primary_key=True),
        sa.Column("example_id", sa.Text(), primary_key=True),
        sa.Column("label_timestamp", MOMENT, primary_key=True),
        sa.Column("label", sa.Integer(), nullable=False),
    )
    op.create_index("ix_outcomes_model_known", "outcomes", ["model", "label_timestamp"])
    op.create_table(
        "releases",
        sa.Column("model", sa.Text(), primary_key=True),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("champion", sa.Integer()),
        sa.Column("challenger", sa.Integer()),
        sa.Column("challenger_share", sa.Float(), nullable=False),
        sa.Column("previous", sa.Integer()),
        sa.Column("changed_at", MOMENT, nullable=False),
    )
    op.create_table(
        "release_journal",
        sa.Column("model", sa.Text(), primary_key=True),
        sa.Column("revision", sa.Integer(), primary_key=True, autoincrement=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("before", sa.Text()),
        sa.Column("after", sa.Text(), nullable=False),
    )
    op.create_table(
        "drift_checks",
        sa.Column("model", sa.Text(), primary_key=True),
        sa.Column("window_end", MOMENT, primary_key=True),
        sa.Column("window_start", MOMENT, nullable=False),
        sa.Column("as_of", MOMENT, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("retrain", sa.Boolean(), nullable=False),
        sa.Column("episode", sa.Text()),
        sa.Column("alarms", sa.Text(), nullable=False),
        sa.Column("reasons", sa.Text(), nullable=False),
        sa.Column("report_uri", sa.Text()),
        sa.Column("drift", sa.Text()),
        sa.Column("performance", sa.Text(), nullable=False),
    )
    op.create_table(
        "retrain_requests",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("episode", sa.Text(), nullable=False),
        sa.Column("as_of", MOMENT, nullable=False),
        sa.Column("asked_at", MOMENT, nullable=False),
        sa.Column("lease_until", MOMENT, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer()),
    )
    op.create_index("uq_retrain_requests_asker", "retrain_requests", ["request_id", "owner"], unique=True)
    for name, columns, condition in (
        ("uq_retrain_requests_running", ["model"], "status = 'admitted'"),
        ("uq_retrain_requests_episode", ["model", "episode"], "status IN ('admitted', 'done')"),
    ):
        op.create_index(
            name,
            "retrain_requests",
            columns,
            unique=True,
            sqlite_where=sa.text(condition),
            postgresql_where=sa.text(condition),
        )
    op.create_table("turnstiles", sa.Column("name", sa.Text(), primary_key=True))


def downgrade() -> None:
    for table in (
        "turnstiles",
        "retrain_requests",
        "drift_checks",
        "release_journal",
        "releases",
        "outcomes",
        "predictions",
    ):
        op.drop_table(table)
