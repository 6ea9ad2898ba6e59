"""`python -m console COMMAND`."""

from console import logs
from console.cli import main

logs.hear_everything()
main()
