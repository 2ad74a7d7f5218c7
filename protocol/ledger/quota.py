"""How many entries a witness takes from each account: a quota, never a rule of validity."""

from collections import OrderedDict

from protocol.ids import NodeId
from protocol.limits import VOTE_ACCOUNTS_MAX, VOTE_BURST_ENTRIES, VOTE_INTERVAL_MS


class VoteQuota:
    """A bucket of tokens for each account: 60 at once, then one a second.

    Kept as the time at which a bucket is full again, so that forgetting a full one changes
    nothing. Beyond VOTE_ACCOUNTS_MAX the least used is forgotten: a new key costs nothing anyway.
    """

    def __init__(self, accounts_max: int = VOTE_ACCOUNTS_MAX) -> None:
        self._accounts_max = accounts_max
        self._full_at_ms: OrderedDict[NodeId, int] = OrderedDict()

    def wait_ms(self, account: NodeId, now_ms: int) -> int:
        """How long until the account may have another vote; 0: now."""
        full_at_ms = max(self._full_at_ms.get(account, 0), now_ms) + VOTE_INTERVAL_MS
        return max(0, full_at_ms - now_ms - VOTE_BURST_ENTRIES * VOTE_INTERVAL_MS)

    def spend(self, account: NodeId, now_ms: int) -> None:
        """Count one vote."""
        full_at_ms = max(self._full_at_ms.pop(account, 0), now_ms) + VOTE_INTERVAL_MS
        self._full_at_ms[account] = full_at_ms
        if len(self._full_at_ms) > self._accounts_max:
            self._full_at_ms.popitem(last=False)
