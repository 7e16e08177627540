"""`python -m relayfile`: the same as the console script."""

from relayfile.cli import main

if __name__ == "__main__":
    main()
