"""The tamper-evident log. Read log.py first; then chain.py (verification), reader.py, and records.py (the format)."""
