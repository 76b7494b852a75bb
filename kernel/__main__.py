"""`python -m kernel`, the same as the command `stepreel`."""

from kernel.cli import main

if __name__ == "__main__":
    main()
