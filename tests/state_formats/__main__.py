"""Write the fixture of today's format."""

from streams.state.checkpoint import FORMAT
from tests.state_formats import FOLDER, write

write(FOLDER / str(FORMAT))
