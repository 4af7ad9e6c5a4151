"""The main job end to end: events in, decisions out, measured by live clients."""
