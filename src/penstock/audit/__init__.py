"""The proof that serving saw what training sees, and that disorder changes nothing."""

from penstock.audit.again import Again
from penstock.audit.disorder import Proof, shuffled
from penstock.audit.explain import Explanation, explain
from penstock.audit.proof import ENGINES, prove
from penstock.audit.served import Audit, served

__all__ = ["ENGINES", "Again", "Audit", "Explanation", "Proof", "explain", "prove", "served", "shuffled"]
