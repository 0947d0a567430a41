"""`python -m nearcase` is the `nearcase` command."""

from nearcase.main import main

if __name__ == "__main__":
    main()
