"""The service that owns containers: event loop, pool of workers, registry, and what it does as a host's first process."""
