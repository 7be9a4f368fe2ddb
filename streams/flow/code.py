"""Digest of the code of the app in force: whether two processes would compute the same."""

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path

from streams.flow.discover import app_in_force, with_working_directory


def code_of_app() -> str:
    """Digest of the app's own modules: equal in two processes if their files are equal.

    An app is a package, with all modules in it, or a module. What it imports from elsewhere does not count.
    """
    return _digest(app_in_force().partition(":")[0].partition(".")[0])


@lru_cache(maxsize=4)
def _digest(top: str) -> str:
    with_working_directory()
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        return ""
    folders = list(spec.submodule_search_locations or ())
    files = [(Path(spec.origin), Path(spec.origin).name)] if not folders else []
    for folder in map(Path, folders):
        files += [(file, str(file.relative_to(folder))) for file in folder.rglob("*.py")]
    found = hashlib.sha256()
    for file, name in sorted(files, key=lambda one: one[1]):
        found.update(f"{name}\0".encode())
        found.update(file.read_bytes())
    return found.hexdigest()[:16]
