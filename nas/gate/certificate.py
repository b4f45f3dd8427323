"""The gate, cheap to dear: the first check that fails ends it."""

from collections.abc import Callable

from nas.gate import causality, contract, cost, novelty, parity, purity, static
from nas.gate.probe import Probe
from nas.gate.settings import Fault, GateSettings, one_line
from nas.types import Certificate, Rejected


def inspect(source: str, settings: GateSettings, started: Callable[[str], None]) -> Certificate | Rejected:
    """Whether a candidate may be trained. Runs what it is given: call it only inside the box.

    Args:
      source: the candidate's module.
      settings: the shapes it will be trained at, and its limits.
      started: told each check's name before it begins, so that whoever kills this process knows in which it was.
    """
    checks: dict[str, str] = {}
    try:
        started("static")
        checks["static"] = static.check(source, settings)
        started("contract")
        probe = Probe(source, settings)
        checks["contract"] = contract.check(probe, settings)
        started("causality")
        checks["causality"] = causality.check(probe)
        started("purity")
        checks["purity"] = purity.check(probe)
        started("parity")
        checks["parity"], state_bytes = parity.check(probe, settings)
        started("cost")
        checks["cost"], growth = cost.check(probe, settings)
        started("novelty")
        checks["novelty"], fingerprint = novelty.check(probe, settings)
        purity.last(probe)
    except Fault as fault:
        return Rejected(fault.check, fault.reason)
    return Certificate(
        checks={name: one_line(seen) for name, seen in checks.items()},
        flops_per_token=growth.flops_per_token,
        params=probe.params,
        state_bytes=state_bytes,
        exponents={"flops": round(growth.flops, 3), "memory": round(growth.memory, 3)},
        fingerprint=fingerprint,
    )
