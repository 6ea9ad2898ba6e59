"""The application for any WSGI server; `python -m console serve` brings its own."""

import atexit

import config as settings
from console import create_app, journal, logs

config = settings.load()
logs.set_up(config.log_format, config.log_level)
logs.hear_everything()
app = create_app(config)
atexit.register(journal.close)
