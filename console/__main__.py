"""`python -m console COMMAND`."""

import gc

gc.disable()  # while modules are loaded there is no garbage: a sixth of the time that it takes

from console import logs  # noqa: E402
from console.cli import main  # noqa: E402

gc.enable()
logs.hear_everything()
main()
