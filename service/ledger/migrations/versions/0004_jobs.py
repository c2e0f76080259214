"""Jobs have leases, so that runs of one do not overlap, and write down where they have got to."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From decisions written once."""
    op.create_table(
        "jobs",
        sa.Column("job", sa.String(length=64), nullable=False),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("holder", sa.String(length=128)),
        sa.Column("until_us", sa.BigInteger(), nullable=False),
        sa.Column("began_at_us", sa.BigInteger()),
        sa.Column("ended_at_us", sa.BigInteger()),
        sa.Column("outcome", sa.String(length=16)),
        sa.Column("kept", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("job", name=op.f("pk_jobs")),
    )
