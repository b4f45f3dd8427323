"""Contained execution: every line of candidate code runs in a child process of a `Box`, never in the engine's own."""

from nas.sandbox.box import Box, Limits, Message

__all__ = ["Box", "Limits", "Message"]
