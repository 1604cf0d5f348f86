"""What `azr doctor` asks, one file an area: which probes to run inside, and how to read their answers."""
