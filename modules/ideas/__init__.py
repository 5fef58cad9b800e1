"""Ideas: parts of a model that a user adds, one file each. `tools`, the terminal and the tests import all files here.

A file that fails is named in a warning, and the others are imported all the same.
"""

import importlib
import pkgutil
import warnings

for _file in pkgutil.iter_modules(__path__):
    try:
        importlib.import_module(f"{__name__}.{_file.name}")
    except Exception as error:
        _problem = f"{type(error).__name__}: {error}"
        warnings.warn(f"modules/ideas/{_file.name}.py is left out, it can't be imported: {_problem}", stacklevel=2)
