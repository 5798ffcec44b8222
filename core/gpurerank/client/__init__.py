"""A server in place of a model: the same calls, over HTTP, with no torch in this process.

The work is done on one event loop of this package's own (``loop.py``), for callers on threads and
tasks of any loop alike; ``exchange.py`` sends one request and, where it helps, sends it again;
``apis.py`` has what each kind of server is asked, ``answers.py`` what it may say.
"""
