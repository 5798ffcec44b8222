"""The scorer as an HTTP server that existing clients already speak."""
