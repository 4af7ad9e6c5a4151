"""What happens between scores and the slate: business rules, diversity, exploration. One class a rule."""

from penstock.serve.rerank.base import Explores, Facts, Reads, Rule, Slate
from penstock.serve.rerank.business import AtLeast, Block, Cap, Pin, Within, at_least, block, cap, pin, within
from penstock.serve.rerank.diversity import Determinantal, Diversify, Mmr, determinantal, diversify, mmr
from penstock.serve.rerank.exploration import Contextual, Explore, Thompson, contextual, explore, thompson

__all__ = [
    "AtLeast", "Block", "Cap", "Contextual", "Determinantal", "Diversify", "Explore", "Explores", "Facts", "Mmr", "Pin",
    "Reads", "Rule", "Slate", "Thompson", "Within", "at_least", "block", "cap", "contextual", "determinantal",
    "diversify", "explore", "mmr", "pin", "thompson", "within",
]  # fmt: skip
