"""What every script needs and nobody reads first."""
