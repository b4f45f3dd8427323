"""Contained execution: every line of candidate code runs in a child process of a `Box`, never in the engine's own."""

from nas.sandbox.box import Box
from nas.sandbox.call import Message
from nas.sandbox.tiers import SandboxError
from nas.sandbox.usage import Limits, temporary_folder

__all__ = ["Box", "Limits", "Message", "SandboxError", "temporary_folder"]
