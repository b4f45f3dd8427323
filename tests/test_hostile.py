"""The gate in its box over the candidates of `hostile/`: cheats are rejected and do no harm, odd but honest ones pass.

Each opens with `# expect:`, the checks that may reject it (`any` of them, or `good`), and `# what:`, what it tries. One
may name `canary/secret`, `canary/written` and the ports 40404 and 40405: the test puts its own there, and sees whether
anything came.

Expected: about two minutes on one core.
"""

import os
import re
import socket
import tempfile
from pathlib import Path

import psutil
import pytest
from common import SPACE

from nas.gate import CHECKS
from nas.settings import ModelSettings, Settings, TrainSettings
from nas.trial import GIB, gate_arguments, run_gate

FOLDER = Path(__file__).parent / "hostile"
SOURCES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.py"))}
HEADER = re.compile(r"# expect: (?P<expect>[a-z|]+)\n# what: (?P<what>\S.*\.)\n")
HONEST = [name for name in SOURCES if name.startswith("honest_")]
HOSTILE = [name for name in SOURCES if name not in HONEST]
SETTINGS = Settings(model=ModelSettings(width=16, heads=2), train=TrainSettings(time=128, batch=4))
GATE = gate_arguments(SETTINGS, sorted(SPACE.allowed_imports), known={}, reference_flops=None)

GATE_SECONDS = 120  # a busy machine must not make a verdict of its own
HANGING_SECONDS = 5  # of those that never come back: every one of them is waited for
LONGEST_REASON = 600  # letters

# Text that Python's own parser, or the walk over its tree, is to stumble on.
UNREADABLE = {
    "null byte": SOURCES["honest_words"] + "\0",
    "lone surrogate": SOURCES["honest_words"] + "# \ud800",
    "many brackets": "x = " + "(" * 20_000 + ")" * 20_000,
    "many signs": "x = " + "-" * 60_000 + "1",
    "long sum": "x = " + "1+" * 30_000 + "1",
    "deep blocks": "".join(" " * depth + "if 1:\n" for depth in range(150)) + " " * 150 + "pass",
    "too long": "#" * 100_000,
    "nothing": "",
}


class Traps:
    """What a candidate that got out would touch: a secret, a place to write to, and two ports that listen."""

    def __init__(self, folder):
        self.folder = folder
        self.secret = folder / "secret"
        self.secret.write_text("the canary's song")
        os.utime(self.secret, (0, self.secret.stat().st_mtime))  # older than its last change: a read would show
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.tcp.setblocking(False)
        self.udp.setblocking(False)

    def named_in(self, source):
        """`source` with these traps in it instead of the placeholders."""
        for placeholder, trap in (
            ("canary/", f"{self.folder}/"),
            ("40404", str(self.tcp.getsockname()[1])),
            ("40405", str(self.udp.getsockname()[1])),
        ):
            source = source.replace(placeholder, trap)
        return source

    def sprung(self):
        """In words, which of them were touched."""
        touched = []
        if self.secret.stat().st_atime != 0:
            touched.append("the secret was read")
        if [path.name for path in self.folder.iterdir()] != ["secret"]:
            touched.append("a file was written")
        for line, receive in ((self.tcp, self.tcp.accept), (self.udp, lambda: self.udp.recv(99))):
            try:
                receive()
                touched.append(f"{line.getsockname()} was spoken to")
            except BlockingIOError:
                pass
        return touched

    def close(self):
        self.tcp.close()
        self.udp.close()


@pytest.fixture
def traps(tmp_path):
    folder = tmp_path / "outside"
    folder.mkdir()
    traps = Traps(folder)
    yield traps
    traps.close()


@pytest.fixture(scope="module")
def judge(box, tmp_path_factory):
    """The verdict on a source, from a box that has as many processes as it will ever have between calls."""
    folder = tmp_path_factory.mktemp("box")  # for all: a scratch folder anywhere else costs the box a new zygote

    def judge(source, seconds=GATE_SECONDS):
        return run_gate(source, GATE, box, Path(tempfile.mkdtemp(dir=folder)), seconds, 2 * GIB)

    judge(SOURCES["honest_words"])
    return judge


def processes():
    """Living descendants: the box's own, and what a candidate left."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


def rejection(verdict):
    assert "certificate" not in verdict, "it was certified"
    outcome = verdict["outcome"]
    assert outcome["kind"] == "rejected", outcome
    return outcome["check"], outcome["reason"]


def assert_readable(reason):
    """One line for a person and for a proposer, whatever words of the candidate's are in it."""
    assert reason.isprintable() and 0 < len(reason) <= LONGEST_REASON
    assert "Traceback" not in reason
    assert not re.match(r"\W*(verdict|certificate|granted|passed|ok\b|system|static passed)", reason, re.IGNORECASE)


def test_the_traps_show_whatever_touches_them(traps):
    assert traps.sprung() == []
    traps.secret.read_text()
    (traps.folder / "written").touch()
    socket.create_connection(traps.tcp.getsockname()).close()
    traps.udp.sendto(b"here", traps.udp.getsockname())
    keeps_no_reads = bool(os.statvfs(traps.folder).f_flag & os.ST_NOATIME)
    assert len(traps.sprung()) == 4 - keeps_no_reads


@pytest.mark.parametrize("name", SOURCES)
def test_says_what_it_tries(name):
    header = HEADER.match(SOURCES[name])
    assert header, "the first two lines are `# expect: ...` and `# what: ... .`"
    expected = set(header["expect"].split("|"))
    assert expected == {"good"} if name in HONEST else expected <= {*CHECKS, "any"}


@pytest.mark.parametrize("name", HOSTILE)
def test_is_rejected_as_a_cheat_and_does_no_harm(name, judge, traps):
    before = len(processes())
    seconds = HANGING_SECONDS if name.startswith(("hang_", "bomb_")) else GATE_SECONDS
    verdict = judge(traps.named_in(SOURCES[name]), seconds)
    assert traps.sprung() == []
    assert len(processes()) <= before
    check, reason = rejection(verdict)
    expected = HEADER.match(SOURCES[name])["expect"].split("|")
    assert check in expected or "any" in expected, reason
    assert_readable(reason)


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_cannot_be_read_is_rejected(what, judge):
    check, reason = rejection(judge(UNREADABLE[what]))
    assert check == ("contract" if what == "nothing" else "static"), reason
    assert_readable(reason)


@pytest.mark.parametrize("name", HONEST)
def test_an_odd_but_honest_mixer_is_certified(name, judge):
    verdict = judge(SOURCES[name])
    assert "certificate" in verdict, verdict
    assert tuple(verdict["certificate"]["checks"]) == CHECKS
