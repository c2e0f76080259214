"""Whether a workflow file can be served, and if not, why: what `acclimate check` says, and what the
service says when it does not start.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contract.baseline import Baseline
from contract.bundle import BundleError
from contract.source import Problem
from contract.spec import SpecError, WorkflowSpec, load_workflow
from guardrails.review import review
from service.bundles import Bundles, Policy


@dataclass(frozen=True)
class Checked:
    """What is known of one workflow file."""

    path: Path
    spec: WorkflowSpec | None = None
    """None when the file does not declare a workflow."""
    policy: Policy | None = None
    """None when its bundle cannot be served."""
    of_file: tuple[Problem, ...] = ()
    """What is wrong with the file itself."""
    of_policy: tuple[Problem, ...] = ()
    """Why its policy cannot serve it."""
    warnings: tuple[Problem, ...] = ()
    """What is most likely a mistake, and is served all the same."""
    baseline: Baseline | None = None
    """The fallback's model; None when it has none."""

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Why it is not served, in the file's order; none when it is."""
        return tuple(sorted((*self.of_file, *self.of_policy), key=lambda problem: problem.line))

    def accepted(self) -> tuple[WorkflowSpec, Policy]:
        """What can be served. Raises SpecError or BundleError with all errors."""
        if self.of_file or self.spec is None:
            raise SpecError.of(self.errors)
        if self.of_policy or self.policy is None:
            raise BundleError("\n".join(map(str, self.errors)), self.errors)
        return self.spec, self.policy


def check_files(paths: Sequence[Path], bundles: Bundles) -> Iterator[Checked]:
    """Each of several files that are to be served together. Raises nothing."""
    declared: dict[str, Path] = {}
    for path in paths:
        checked = check_file(path, bundles)
        if checked.spec is not None:
            name = checked.spec.workflow
            if (other := declared.setdefault(name, path)) != path:
                message = f"{name!r} is declared by another file too, {other}"
                twice = checked.spec.problem("workflow", message)
                checked = replace(checked, of_file=(*checked.of_file, twice))
        yield checked


def check_file(path: Path, bundles: Bundles) -> Checked:
    """Everything that can be known of a workflow file without a ledger. Raises nothing."""
    try:
        spec = load_workflow(path)
    except SpecError as error:
        return Checked(path, of_file=error.problems)
    found = review(spec)
    policy, unfit = _fit(spec, bundles)
    baseline, ill = _fit_baseline(spec, bundles)
    return Checked(
        path,
        spec,
        policy,
        tuple(found.errors),
        (*unfit, *ill),
        tuple(found.warnings),
        baseline,
    )


def _fit_baseline(spec: WorkflowSpec, bundles: Bundles) -> tuple[Baseline | None, list[Problem]]:
    """The fallback's model, if it has one, and why it cannot serve it."""
    if spec.fallback.model is None:
        return None, []
    try:
        baseline = bundles.baseline(spec.fallback.model)
    except BundleError as error:
        return None, [spec.problem("fallback.model", f"expected a baseline, but {error}")]
    return baseline, baseline.misfits(spec)


def _fit(spec: WorkflowSpec, bundles: Bundles) -> tuple[Policy | None, list[Problem]]:
    """The workflow's policy, and why it cannot serve it."""
    try:
        policy = bundles.policy(spec.policy, spec.policy_sha256)
    except BundleError as error:
        which = "" if spec.names_policy else f" of {spec.policy}, as the file names no policy"
        return None, [spec.problem("policy", f"expected a bundle{which}, but {error}")]
    return policy, policy.onnx.manifest.misfits(spec)
