"""`python -m chervil_worker`: the verb `worker` of the command line."""

import sys

from chervil.cli.main import main

if __name__ == "__main__":
    main(["worker", *sys.argv[1:]])
