"""The command line: one file per verb, each with a VERB that describes it and a `run` that does it."""
