"""The Python API, one file per concern; its names are those of the package `ctr_supervisor`. See docs/API.md."""
