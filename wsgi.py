"""The application for any WSGI server; `python -m console serve` brings its own."""

from console import create_app

app = create_app()
