"""The application for any WSGI server; `python -m console serve` brings its own."""

import atexit

from console import create_app, journal

app = create_app()
atexit.register(journal.close)
