"""The engine behind every verb, its command line, and (later) the service that owns containers."""
