"""Memories by account and policy: a hot materialisation of the ledger, never the truth."""
