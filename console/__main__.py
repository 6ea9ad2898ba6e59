"""`python -m console COMMAND`."""

from console.cli import main

main()
