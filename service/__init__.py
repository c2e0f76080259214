"""Acclimate's service: decisions over REST, a memory and a ledger per account."""
