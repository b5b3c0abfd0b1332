"""`python -m ops.bench`"""

import sys

from ops.bench.command import run

if __name__ == "__main__":
    sys.exit(run())
