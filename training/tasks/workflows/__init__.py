"""Simulated workflow segments: distributions over accounts with latent, documented parameters."""

from training.tasks.workflows.accounts import (
    Accounts,
    Outcome,
    Situation,
    encode_columns,
    raw_context,
)

__all__ = ["Accounts", "Outcome", "Situation", "encode_columns", "raw_context"]
