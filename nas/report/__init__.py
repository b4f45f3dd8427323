"""One page about a search, for people who would rather look: what was found, why, and whether to believe it.

`account.py` reads what a search has left on disk; `answers.py` answers five questions from it in words; `figures/` has
one chart a file; `page.py` makes one HTML file of these, which opens offline. Nothing here runs a candidate.
"""

from nas.report.account import Account, account_of
from nas.report.page import page

__all__ = ["Account", "account_of", "page"]
