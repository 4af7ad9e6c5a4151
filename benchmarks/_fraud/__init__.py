"""Card payments of the Fraud Detection Handbook: its protocol, its features, and ours."""
