"""The configuration of a container: config.json and process.json of the OCI runtime specification."""
