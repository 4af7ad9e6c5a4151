"""What the benchmarks over HTTP share: the shop that is served, its peers, and the load generator."""
