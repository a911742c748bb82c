"""What a hostile image, a racing neighbour or a hostile process in the container must not get."""
