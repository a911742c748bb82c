"""What every program of ctrun shares: errors, the start-up protocol, state, kernel calls, the configuration."""
