"""What `streams demo` (and so `make run`) does: starts everything on this machine, feeds it, and shows what it does."""

from streams.demo.parts import DemoOptions
from streams.demo.run import run_demo

__all__ = ["DemoOptions", "run_demo"]
