"""The opponents: bandit algorithms under the field's names, B accounts at once. Never torch."""

from training.baselines.algorithms import (
    UCB1_EXPLORATION,
    fixed,
    thompson,
    ucb1,
    ucb1_classic,
    uniform,
    win_stay,
)
from training.baselines.gittins import GittinsTable, gittins_rule, gittins_table
from training.baselines.history import Actions, Algorithm, History, play

__all__ = [
    "UCB1_EXPLORATION",
    "Actions",
    "Algorithm",
    "GittinsTable",
    "History",
    "fixed",
    "gittins_rule",
    "gittins_table",
    "play",
    "thompson",
    "ucb1",
    "ucb1_classic",
    "uniform",
    "win_stay",
]
