"""Latchkey under faults: see README.md."""
