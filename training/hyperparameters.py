"""Everything that shapes the learner, with its default. It must import nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass

from training.bounds import refuse_below

_HIGHEST_RATE = 1e30
"""A rate far above it does not fit the single-precision number that Adam multiplies with."""


@dataclass(frozen=True)
class Hyperparameters:
    """Everything that shapes a training run beside what is trained on (`training.curriculum`)."""

    teacher: str = "none"
    """Who shows the policy what to do before it learns by reward; none: nobody."""
    lessons: int = 140
    """Iterations of imitation (DAgger, Ross et al. 2011) before those of TRPO."""
    lesson_rate: float = 3e-3
    """Adam's rate in the first lesson; it falls to a twentieth by the last."""
    lesson_times: float = 0.25
    """Share of a trial's steps whose advice a lesson looks at."""
    lesson_passes: int = 2
    """Passes over the trials that were played, each at steps of its own."""
    lesson_parts: int = 4
    """Steps of Adam a pass, each on its share of the trials."""
    revise: bool = False
    """Whether a lesson at the last rate follows every iteration of TRPO."""
    fitting: int = 0
    """Iterations in which a network's beliefs are fitted by likelihood, before anything else."""
    fitting_rate: float = 0.05
    """Adam's rate in the first of them; it falls to a twentieth by the last."""
    expected_rewards: bool = True
    """Returns add up the action's mean minus the best's, in place of the sampled reward: a
    simulator's variance reduction that leaves the gradient unbiased. The policy sees samples."""
    discount: float = 1.0
    gae_lambda: float = 0.95
    radius: float = 0.01
    """Largest mean KL divergence from the old policy to the new."""
    damping: float = 1e-3
    cg_iterations: int = 10
    fisher_trials: float = 0.25
    """Share of the trials that the Fisher product sees."""
    fisher_times: float = 0.25
    """Share of the steps of those trials whose policy it sees."""
    critic_rate: float = 1e-3
    critic_epochs: int = 2
    critic_batches: int = 4

    @property
    def prepared(self) -> int:
        """Iterations before the first of TRPO: lessons, where somebody teaches, or a fit."""
        return max(self.fitting, self.lessons if self.teacher != "none" else 0)

    def __post_init__(self) -> None:
        refuse_below(self, 1, "cg_iterations", "critic_epochs", "critic_batches")
        refuse_below(self, 1, "lesson_passes", "lesson_parts")
        for name in ("discount", "gae_lambda", "fisher_trials", "fisher_times", "lesson_times"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ValueError(f"{name}: expected a share in (0, 1], got {getattr(self, name)}")
        for name in ("radius", "critic_rate", "lesson_rate", "fitting_rate"):
            if not getattr(self, name) > 0.0:
                raise ValueError(f"{name}: expected more than 0, got {getattr(self, name)}")
        for name in ("critic_rate", "lesson_rate", "fitting_rate"):
            if getattr(self, name) > _HIGHEST_RATE:
                raise ValueError(
                    f"{name}: expected at most {_HIGHEST_RATE:g}, got {getattr(self, name)}"
                )
        for name in ("lessons", "fitting"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: expected 0 or more, got {getattr(self, name)}")
        if not self.damping >= 0.0:
            raise ValueError(f"damping: expected at least 0, got {self.damping}")
