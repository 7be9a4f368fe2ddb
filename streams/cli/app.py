"""The option that names the app whose flows a command is about."""

import os
from typing import Annotated

import typer

AppOption = Annotated[
    str | None,
    typer.Option(
        "--app",
        metavar="MODULE[:NAME]",
        help="Module or package that declares the flows, in the working directory or installed. "
        "Default: STREAMS_APP, else logistics, the flows that are shipped.",
    ),
]


def use_app(app: str | None) -> None:
    """Have this command and its child processes use `app`; None: the one in force."""
    if app is not None:
        os.environ["STREAMS_APP"] = app
