"""What the benchmark of the vector index is made of: drawn vectors, and each library in a process of its own."""
