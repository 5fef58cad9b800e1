"""A command of the terminal whose runs go to a folder instead of trained/.

python -m bench.into_folder FOLDER train ...
"""

import sys
from pathlib import Path

from lab.runs import names
from lab.terminal import main

if __name__ == "__main__":
    names.TRAINED = Path(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
