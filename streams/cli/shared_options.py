"""Options that several commands have: declared once, as the parameters of a function that makes a value of them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, get_type_hints

Made = TypeVar("Made")
Own = ParamSpec("Own")
Result = TypeVar("Result")

_RETURN: Final = "return"


def given_by(
    make: Callable[..., Made],
) -> Callable[[Callable[Concatenate[Made, Own], Result]], Callable[..., Result]]:
    """Give a command the options of `make`, in place of its first parameter, which gets what `make` returns.

    The command's other parameters come after these. The command takes named arguments only, which typer gives.
    """

    def decorate(command: Callable[Concatenate[Made, Own], Result]) -> Callable[..., Result]:
        shared = inspect.signature(make).parameters
        first, *own = inspect.signature(command).parameters.values()

        @functools.wraps(command)
        def run(**given: Any) -> Result:
            made = make(**{name: given.pop(name) for name in shared if name in given})
            called: Callable[..., Result] = command
            return called(made, **given)

        hints = get_type_hints(make, include_extras=True) | get_type_hints(command, include_extras=True)
        run.__annotations__ = {name: hint for name, hint in hints.items() if name not in {first.name, _RETURN}}
        parameters = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in (*shared.values(), *own)]
        vars(run)["__signature__"] = inspect.Signature(parameters)
        return run

    return decorate
