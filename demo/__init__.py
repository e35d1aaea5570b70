"""The loop on the flagship: the first months of 2013, then weeks of it, day by day; `make demo`."""
