"""One module per provider API: its request schemas, response shapes and endpoints.

A new API is a module that ends in ``API = Api(...)``, one entry in ``catalog.py`` and a test.
"""
