"""Rollouts as they are served: who is on which policy, what came of it, what an operator did."""
