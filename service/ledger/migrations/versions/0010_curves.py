"""Adaptation curves: sums by interaction number, and how much of each account is in them."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From a ledger without curves; the job counts in what is there already."""
    op.create_table(
        "curves",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("policy", sa.String(length=80), nullable=False),
        sa.Column("sums", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "workflow", "policy", name=op.f("pk_curves")),
    )
    op.create_table(
        "curve_marks",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("workflow", sa.String(length=64), nullable=False),
        sa.Column("account_id", sa.String(length=128), nullable=False),
        sa.Column("base_generation", sa.Integer(), nullable=False),
        sa.Column("generation", sa.Integer(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "workflow", "account_id", name=op.f("pk_curve_marks")),
    )
