"""`python -m nearer`."""

from nearer.cli.app import main

main()
