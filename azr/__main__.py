"""`python -m azr` is the command `azr`."""

from azr.cli import main

if __name__ == "__main__":
    main()
