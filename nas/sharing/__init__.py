"""What machines without a common file system share by a store (see `nas.store`), one thing a file.

searches/NAME/journal/NNNNNNNN.jsonl       the journal, in pieces
searches/NAME/driver.json                  who runs the search, as long as it does
searches/NAME/trials/TRIAL/NNNNNNNN.tar    the newest checkpoint of a trial
searches/NAME/files/                       what the search has found, at its end
corpora/SHA256/                            a prepared corpus
noise/                                     how far seeds differ, by configuration
"""

from nas.errors import UserError

_SEARCHES = "searches"


def place(store: str, search: str) -> str:
    """The URL of a search in a store."""
    return f"{store.rstrip('/')}/{_SEARCHES}/{search}"


def split(url: str) -> tuple[str, str]:
    """(store, name) of a search's URL.

    Raises:
      UserError: if it is none.
    """
    store, _, name = url.rstrip("/").rpartition(f"/{_SEARCHES}/")
    if not store or not name or "/" in name:
        raise UserError(f"{url} is no search in a store: STORE/{_SEARCHES}/NAME")
    return store, name
