"""The inverse: round trips, injectivity, unusual inputs."""
