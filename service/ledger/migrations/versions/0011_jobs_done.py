"""Jobs say when a run last ended well, whatever became of those after it."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """From last runs alone: of one that ended well it is known, of any other it is not."""
    op.add_column("jobs", sa.Column("done_at_us", sa.BigInteger()))
    op.execute("UPDATE jobs SET done_at_us = ended_at_us WHERE outcome = 'done'")
