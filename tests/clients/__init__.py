"""Real engines with the runtime under test: Docker, Podman, containerd."""
