"""Off-policy evaluation: worlds whose truth is known, Open Bandit data, and the peer."""
