"""Figures in print for Bernoulli bandits, arm means uniform(0, 1). Quoted: never measured here.

Total reward of a trial of n pulls on k arms, by player and (n, k). RL² and all baselines: Duan et
al. (2016), table 1, 1,000 trials a cell. SNAIL: Mishra et al. (2018), table 1.
"""

from __future__ import annotations

CELLS = tuple((n, k) for n in (10, 100, 500) for k in (5, 10, 50))
"""The (n, k) of both tables, in the order of the figures below."""

_TABLE = {
    "random": (5.0, 5.0, 5.1, 49.9, 49.9, 49.8, 249.8, 249.0, 249.6),
    "gittins": (6.6, 6.6, 6.5, 78.3, 82.8, 85.2, 405.8, 437.8, 463.7),
    "ts": (5.7, 5.5, 5.2, 74.7, 76.7, 64.5, 402.0, 429.5, 427.2),
    "ots": (6.5, 6.2, 5.5, 77.9, 81.4, 67.7, 406.7, 438.9, 437.6),
    "ucb1": (6.7, 6.7, 6.6, 78.0, 82.4, 84.3, 405.8, 437.1, 457.6),
    "epsilon_greedy": (6.6, 6.6, 6.5, 75.4, 77.4, 78.3, 388.2, 408.0, 413.6),
    "greedy": (6.6, 6.6, 6.5, 74.8, 77.1, 78.0, 380.6, 395.0, 402.8),
    "rl2": (6.7, 6.7, 6.8, 78.7, 83.5, 84.9, 401.6, 432.5, 438.9),
    "snail": (6.6, 6.7, 6.7, 79.1, 83.5, 85.1, 408.1, 432.4, 442.6),
}

PUBLISHED = {player: dict(zip(CELLS, figures, strict=True)) for player, figures in _TABLE.items()}
"""By player, then by (n, k)."""
