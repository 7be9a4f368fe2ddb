"""`python -m loadtest.oracle`: exit status 0 when the output is right, 100 when it is not, 1 when it cannot be told."""

from loadtest.oracle.check import command
from loadtest.program import run

if __name__ == "__main__":
    run("oracle", command)
