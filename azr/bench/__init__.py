"""What `azr bench sandbox` measures: `load.py` drives an executor, `step.py` plays a step of the paper's size."""
