"""Time limits that only guard against a hang: no claim depends on their value."""

from __future__ import annotations

# A machine that is busy with other work takes many times as long as an idle one. Below the
# ``timeout`` of pyproject.toml, so that a test fails with its own message.
HANG_S = 300.0
