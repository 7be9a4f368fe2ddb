"""`streams settings`: prints the settings in force."""

from streams.cli.output import Format, FormatOption, echo_json, echo_line
from streams.settings import load_settings
from streams.unknown_variables import unknown_variables


def settings_command(output: FormatOption = Format.TEXT) -> None:
    """Print every setting in force (environment and defaults), secrets masked; name variables that are no settings.

    A variable that begins with STREAMS_, KAFKA_ or SCHEMA_REGISTRY_ and is no setting is ignored, and named on standard
    error with the setting that may be meant.
    """
    values = load_settings().masked()
    if output is Format.JSON:
        echo_json(values)
    else:
        width = max(map(len, values))
        for name, value in values.items():
            echo_line(f"{name:<{width}}  {'' if value is None else value}".rstrip())
    for sentence in unknown_variables():
        echo_line(f"streams: {sentence}", err=True)
