"""The console's pages: what they read from the ledger, their charts, their templates."""
