"""A domain's own modules, out of the feature repository that the settings name and no other.

A domain imports by the repository's bare name (`from feature_repo.flights import source`), and Python would look for that
along its path, where another checkout may come first. So the name is bound to the folder before anything is imported.
Called by `feast.py` and `evergreen.wiring`.
"""

import importlib
import sys
from pathlib import Path
from types import ModuleType

from evergreen.errors import ConfigurationError


def domain_module(path: Path) -> ModuleType:
    """Import REPOSITORY/DOMAIN/NAME.py; raises `ConfigurationError` where this process has the repository's name from elsewhere."""
    path = path.absolute()
    _bind(path.parent.parent)
    return importlib.import_module(".".join(path.with_suffix("").parts[-3:]))


def _bind(repository: Path) -> None:
    """Let the folder's name mean this folder, whatever else is on Python's path.

    Raises `ConfigurationError` where this process has imported something else under that name.
    """
    repository = repository.absolute()
    if repository.name not in sys.modules:
        sys.path.insert(0, str(repository.parent))
        try:
            package = importlib.import_module(repository.name)
        finally:
            sys.path.remove(str(repository.parent))
        if package.__file__ is None:  # without an __init__.py Python would look along its path at every import
            package.__path__ = [str(repository)]
    package = sys.modules[repository.name]
    places = [str(Path(place).resolve()) for place in getattr(package, "__path__", [])]
    if places != [str(repository.resolve())]:
        raise ConfigurationError(
            f"EVERGREEN_FEATURE_REPO is {repository}, but {repository.name!r} was imported from {', '.join(places) or package}, "
            "and a process can have one of a name. Run the code that lies beside the folder, or rename it and what it imports."
        )
