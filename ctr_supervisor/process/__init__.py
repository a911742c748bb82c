"""Processes seen from the outside: their status, their signals, their consoles."""
