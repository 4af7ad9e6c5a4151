"""What comes next, in sessions and in sequences: public data, penstock's own sources and ranker, all items ranked."""
