"""python -m bench.zoo FOLDER [GLOB]: trains the zoo in FOLDER. bench/zoo/train.py tells more."""

import sys
from pathlib import Path

from bench.zoo.train import main

if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 3:
        sys.exit("usage: python -m bench.zoo FOLDER [GLOB]")
    main(Path(sys.argv[1]), *sys.argv[2:])
