"""What is missing or wrong on this machine and in a home folder, each with the command that mends it."""

from penstock.doctor.finding import Finding, summary
from penstock.doctor.visit import visit

__all__ = ["Finding", "summary", "visit"]
