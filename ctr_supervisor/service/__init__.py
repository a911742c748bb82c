"""The service that owns containers: event loop, pool of workers, registry, and its life as a first process."""
