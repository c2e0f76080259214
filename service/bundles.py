"""The bundles in a directory, each verified on this machine before anything is served by it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from contract.baseline import Baseline, load_baseline
from contract.bundle import BundleError, sha256_of
from contract.memory_reference import MemoryReference, load_reference
from contract.policy import OnnxPolicy, Parity, verify_parity
from service.memory.store import PolicyIdentity
from service.pins import Pins


@dataclass(frozen=True)
class Policy:
    """One verified bundle."""

    onnx: OnnxPolicy
    parity: Parity
    identity: PolicyIdentity
    sha256: str
    """Of the manifest, hex, and so of all that it pins."""
    reference: MemoryReference | None = None
    """What its memories looked like in training, where the bundle says so."""


class Bundles:
    """`<name>/<version>/` under one directory, each loaded once. One that does not match its pin is
    not even opened."""

    def __init__(self, directory: Path, pins: Pins | None = None) -> None:
        """`pins`: all that may be served; None: whatever is there."""
        self.directory = directory
        self._pins = pins
        self._verified: dict[str, Policy] = {}
        self._baselines: dict[str, Baseline] = {}

    def policy(self, name: str, sha256: str | None = None) -> Policy:
        """The policy of that name and version, its manifest of that SHA-256 where one is given.
        Raises BundleError."""
        if name not in self._verified:
            home = self.directory / name
            if not home.exists() and (known := self._known()):
                raise BundleError(f"{home}: no such bundle, there are {', '.join(known)}")
            found = self._pinned(name, home / "manifest.json", sha256)
            policy = load_policy(home)
            if policy.sha256 != found:
                raise BundleError(f"{home}: the bundle changed while it was read")
            if policy.identity.policy != name:
                raise BundleError(
                    f"{home}: expected policy {name}, its manifest says {policy.identity.policy}"
                )
            self._verified[name] = policy
        policy = self._verified[name]
        _refuse_other(self.directory / name / "manifest.json", sha256, policy.sha256)
        return policy

    def _pinned(self, name: str, manifest: Path, sha256: str | None) -> str:
        """The manifest's SHA-256. Raises BundleError when it is not the one that it has to be."""
        try:
            found = sha256_of(manifest)
        except OSError as error:
            raise BundleError(
                f"{manifest}: expected a bundle's manifest, but {error.strerror}"
            ) from error
        if self._pins is not None and name not in self._pins:
            raise BundleError(
                f"{manifest}: expected it among ACCLIMATE_POLICY_PINS, which alone are served"
            )
        _refuse_other(manifest, (self._pins or {}).get(name), found)
        _refuse_other(manifest, sha256, found)
        return found

    def baseline(self, name: str) -> Baseline:
        """The supervised baseline of that name and version. Raises BundleError."""
        if name not in self._baselines:
            if self._pins is not None:
                self._pinned(name, self.directory / name / "baseline.json", None)
            baseline = load_baseline(self.directory / name)
            if baseline.manifest.baseline != name:
                raise BundleError(
                    f"{self.directory / name}: expected baseline {name}, its manifest says "
                    f"{baseline.manifest.baseline}"
                )
            self._baselines[name] = baseline
        return self._baselines[name]

    def _known(self) -> list[str]:
        """Names and versions of what looks like a bundle."""
        manifests = self.directory.glob("*/*/manifest.json")
        return sorted(f"{one.parent.parent.name}/{one.parent.name}" for one in manifests)


def _refuse_other(manifest: Path, wanted: str | None, found: str) -> None:
    if wanted is not None and found != wanted:
        raise BundleError(
            f"{manifest}: expected SHA-256 {wanted[:12]}…, as it is pinned, got {found[:12]}…"
        )


def load_policy(directory: Path) -> Policy:
    """The bundle, after it passed its parity vectors on this machine. Raises BundleError."""
    onnx = OnnxPolicy.load(directory)
    parity = verify_parity(onnx, directory)
    manifest = onnx.manifest
    digest = hashlib.sha256(
        "|".join(
            (manifest.policy, manifest.sha256["learn.onnx"], ort.__version__, parity.fingerprint)
        ).encode()
    ).digest()
    return Policy(
        onnx,
        parity,
        PolicyIdentity(manifest.policy, digest, manifest.shared_size, manifest.row_size),
        sha256_of(directory / "manifest.json"),
        load_reference(directory, manifest),
    )
