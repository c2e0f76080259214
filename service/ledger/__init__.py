"""The ledger: the durable record of decisions and feedback, and the source of truth."""
