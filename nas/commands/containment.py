"""What every command that runs candidates does first: choose the containment, and say so where it is none."""

from rich.console import Console

from nas.sandbox import tiers
from nas.settings import Settings


def contained(settings: Settings, console: Console) -> str:
    """The containment that `settings` ask for and this machine gives.

    Raises:
      SandboxError: if it does not.
    """
    tier = tiers.choose(settings.sandbox.tier)
    if warning := tiers.warning(tier):
        console.print(f"[bold yellow]warning:[/] {warning}", soft_wrap=True)
    return tier
