"""The published study in one command, and what was measured beside it; nothing imports it."""
