"""Scoring and embedding on a server over HTTP, with no torch in this process.

All requests run on one event loop of this package (``event_loop.py``), for callers on threads and
on tasks of any loop. ``http_client.py`` sends one request and retries it where that helps,
``discovery.py`` finds out which provider a server speaks, ``providers`` holds one module for each,
and ``responses.py`` validates what comes back.
"""
