"""Rollouts: who is exposed to a candidate policy, what is known of it, and what follows. Pure."""
