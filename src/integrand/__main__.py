"""``python -m integrand``: the command line."""

from .cli import app_main

if __name__ == "__main__":
    app_main()
