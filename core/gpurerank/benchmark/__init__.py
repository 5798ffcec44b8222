"""The comparison that anyone runs on their own hardware: ``gpurerank bench``."""
