"""The setup worker: joins a waiting container's namespaces and does all the work in them, step by step."""
