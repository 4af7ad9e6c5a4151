"""What the benchmark of search is made of: judged queries, and the peer's process."""
