"""The jobs of the MapReduce suite, written for each side the way its own documentation says."""
