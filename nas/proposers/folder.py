"""Proposals from a folder of candidate files: ideas that somebody wrote by hand, tried under the same rules."""

import os
from collections.abc import Sequence
from pathlib import Path

from nas.errors import UserError
from nas.proposers.request import Exhausted, Request
from nas.types import Candidate, Operator

FILE = Operator("file", "tries a candidate that a person wrote", parents=0)


class FolderProposer:
    """Proposes each `*.py` file of a folder once, in the order of the names.

    Raises:
      UserError: if there is no such folder or it has no such file.
    """

    operators: Sequence[Operator] = (FILE,)

    draws_freely = False

    def __init__(self, path: str | None):
        folder = Path(os.path.expanduser(path or ""))
        if not folder.is_dir():
            raise UserError(f"proposer.path={path}: there is no such folder")
        self._files = sorted(file for file in folder.glob("*.py") if file.is_file())
        if not self._files:
            raise UserError(f"proposer.path={path}: the folder has no *.py file")

    def propose(self, request: Request) -> Candidate:
        if request.number >= len(self._files):
            raise Exhausted(f"all {len(self._files)} files were proposed")
        file = self._files[request.number]
        try:
            source = file.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise UserError(f"{file} can't be read: {error.strerror}") from error
        return Candidate(
            source, FILE.name, proposer="folder", motivation=f"written by hand in {file.name}", name=file.stem
        )
