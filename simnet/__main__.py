"""`python -m simnet`: the same as the command `simnet`."""

from simnet.cli.main import main

if __name__ == "__main__":
    main()
