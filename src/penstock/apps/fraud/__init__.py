"""Fraud: what is known of a payment when it asks to be approved."""
