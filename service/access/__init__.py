"""Who may ask for what: keys, the roles and tenants they stand for, how often each may ask."""
