"""What the scripts that compare the gateway with other proxies have in common: programs, processes, an upstream, tokens,
the contenders' configurations, and load whose answers are checked. Standard library only."""
