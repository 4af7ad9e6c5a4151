"""Point-in-time joins that are measured, each in a process of its own so that its memory can be told."""
