"""`python -m chervil`: the command `chervil` where its script is not on the path."""

from chervil.cli.main import main

if __name__ == "__main__":
    main()
