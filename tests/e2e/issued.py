"""What slotd gave out in this run that lets its holder read or write, and whether any of it is in
what slotd wrote for others to read: its logs, its audit logs, its deletion reports."""

import re

from bed import PASSWORD, SECRET

# A token or a resume URL's last segment; an upload link's query; a file's id within its link.
TOKEN = re.compile(r"v1\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}")
FILE = re.compile(r"/f/([A-Za-z0-9_-]{22})/")
PATTERNS = [TOKEN, FILE, re.compile(r"[?&]t=[A-Za-z0-9_-]"), re.compile(r"/r/[A-Za-z0-9_.-]{16,}"),
            re.compile(r"(?i)bearer [A-Za-z0-9_.-]{16,}")]

_issued = set()


def remember(text):
    """Notes what is given out in a stanza or a header field."""
    _issued.update(TOKEN.findall(text))
    _issued.update(FILE.findall(text))


def remember_session(sid, rid):
    """Notes what opens a BOSH session."""
    _issued.update(filter(None, (sid, rid)))


def keep(*secrets):
    """Notes secrets of no form that is known here."""
    _issued.update(secrets)


def count():
    """How many secrets were given out."""
    return len(_issued)


def is_found():
    """Whether the search finds what it looks for, planted among other words: each secret, and one
    that nobody gave out."""
    unknown = f"v1.{'A' * 40}.{'B' * 43}"
    return all(leaks(f'slot="abc" {secret}" ok') for secret in _issued | {unknown})


def leaks(text):
    """The secrets in a text: what kind each is, and a little of it."""
    words = set(re.findall(r"[A-Za-z0-9_.-]{22,}", text))
    known = {secret for secret in _issued if secret in words}
    # One that stands within other words; of so much text only the patterns find it.
    if len(text) * len(_issued) < 1 << 33:
        known |= {secret for secret in _issued if secret in text}
    found = [f"issued {secret[:8]}.." for secret in known]
    found += [f"the word {word!r}" for word in (PASSWORD, SECRET) if word in text]
    found += [f"{pattern.pattern}: {match.group()[:24]}.."
              for pattern in PATTERNS if (match := pattern.search(text))]
    return found
