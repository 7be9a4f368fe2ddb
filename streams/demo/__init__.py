"""What `streams demo` (and so `make run`) does: starts a stack, a worker and traffic here, and shows what they do."""

from streams.demo.run import run_demo
from streams.demo.start import DemoOptions

__all__ = ["DemoOptions", "run_demo"]
