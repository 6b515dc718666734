"""`python -m uptal` and `torchrun … -m uptal`: the same command as `uptal`."""

import sys

from uptal.cli import main

if __name__ == "__main__":
    sys.exit(main())
