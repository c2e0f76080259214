"""Alembic's environment: runs the migrations on the connection that the ledger hands over."""

from alembic import context

from service.ledger import rollout_tables  # noqa: F401 (declared by being imported)
from service.ledger.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
