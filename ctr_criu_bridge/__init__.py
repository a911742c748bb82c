"""The way to CRIU: one request to `criu swrk`, for the engine or from a shell."""
