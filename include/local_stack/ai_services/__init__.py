"""Local AI services: production's batch APIs, signatures and errors, with vectors of a real model."""
