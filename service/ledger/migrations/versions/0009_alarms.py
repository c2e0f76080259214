"""Alarms are rows, and so is what is kept to find them."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From what came before."""
    op.create_table(
        "alarm_marks",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("base_generation", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("anchor", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "workflow", "account_id", name=op.f("pk_alarm_marks")),
    )
    op.create_table(
        "alarm_streams",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("policy", sa.String(length=80), nullable=False),
        sa.Column("bucket", sa.String(length=256), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint(
            "tenant", "workflow", "policy", "bucket", name=op.f("pk_alarm_streams")
        ),
    )
    op.create_table(
        "alarms",
        sa.Column("alarm_id", sa.String(length=32), nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("scope", sa.String(length=16), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("bucket", sa.String(length=256), nullable=False),
        sa.Column("policy", sa.String(length=80), nullable=False),
        sa.Column("consequence", sa.String(length=16), nullable=False),
        sa.Column("base_generation", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("suggestion", sa.Text(), nullable=False),
        sa.Column("numbers", sa.Text(), nullable=False),
        sa.Column("raised_at_us", sa.BigInteger(), nullable=False),
        sa.Column("acknowledged_at_us", sa.BigInteger()),
        sa.Column("acknowledged_by", sa.String(length=128)),
        sa.Column("acted_at_us", sa.BigInteger()),
        sa.Column("cleared_at_us", sa.BigInteger()),
        sa.Column("cleared_by", sa.String(length=128)),
        sa.Column("note", sa.Text()),
        sa.PrimaryKeyConstraint("alarm_id", name=op.f("pk_alarms")),
    )
    for columns in (
        ("account_id", "workflow", "tenant"),
        ("cleared_at_us", "consequence"),
        ("raised_at_us", "alarm_id"),
    ):
        op.create_index(op.f(f"ix_alarms_{'_'.join(columns)}"), "alarms", list(columns))
