"""`azr bench sandbox`: what `sandbox.bench` needs of task types and self-play, its report and picture."""
