"""Everything at once on this machine, to be looked at: what `streams demo` (and so `make run`) does."""

from streams.demo.run import run_demo
from streams.demo.start import DemoOptions

__all__ = ["DemoOptions", "run_demo"]
