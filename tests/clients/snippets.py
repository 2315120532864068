"""The code blocks of docs/clients.md, run as a reader would run them.

What a block promises stands in it: each comment `-> text` is a line that it prints, in this order, and nothing else.
`python tests/clients/snippets.py LANGUAGE [FOLDER]` runs the blocks of a language against the server that
`walked.py` has started; the folder is where that language's packages are.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "clients.md"
#: Languages whose blocks are code. `text` is what people type into a tool's window.
CODE = {"go", "java", "js", "python", "sh"}
SETTINGS = {"text"}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMISE = re.compile(r"(?:#|//) -> (.*)$", re.MULTILINE)
#: What a block has in it that wants TLS.
ENCRYPTED = ["+tls://", "useEncryption=true", "ca.pem"]
PATIENCE_SECONDS = 300


@dataclass(frozen=True)
class Server:
    """Where the server is, without TLS and with it, and the file of the authority that vouches for it."""

    host: str
    port: str
    tls_port: str
    authority: str


@dataclass(frozen=True)
class Snippet:
    """A code block: its language, the line of the page it begins in, its text."""

    language: str
    line: int
    code: str

    @property
    def promised(self) -> list[str]:
        """The lines that it says it prints."""
        return PROMISE.findall(self.code)

    def at(self, server: Server) -> str:
        """Return the code for a server that listens elsewhere than the page says."""
        if any(word in self.code for word in ENCRYPTED):
            # The name stays, for the certificate is for it.
            return self.code.replace("8815", server.tls_port).replace("ca.pem", server.authority)
        return self.code.replace("localhost", server.host).replace("8815", server.port)

    def check(self, printed: str) -> None:
        """Compare what was printed with what was promised."""
        assert printed.splitlines() == self.promised, f"{PAGE.name}:{self.line}: printed {printed!r}"


def snippets() -> list[Snippet]:
    """Return all blocks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    return [Snippet(found[1], page.count("\n", 0, found.start()) + 1, found[2]) for found in BLOCK.finditer(page)]


def of(language: str) -> list[Snippet]:
    """Return the blocks of a language."""
    return [snippet for snippet in snippets() if snippet.language == language]


def command(language: str, file: Path, folder: str) -> list[str]:
    """Return how a file of a language is run."""
    if language == "java":
        flags = ["--add-opens=java.base/java.nio=org.apache.arrow.memory.core,ALL-UNNAMED", "-Duser.timezone=UTC"]
        return ["java", *flags, "-cp", folder, str(file)]
    return {"go": ["go", "run", str(file)], "js": ["node", str(file)], "sh": ["sh", "-e", str(file)]}[language]


def run(snippet: Snippet, server: Server, folder: str) -> str:
    """Run a block of another language than Python and return what it prints."""
    # Go and Node.js look for packages in the folders above the file.
    inside = Path(folder).resolve() if snippet.language in {"go", "js"} else None
    place = tempfile.mkdtemp(prefix="snippet-", dir=inside)
    ending = {"js": "mjs"}.get(snippet.language, snippet.language)
    try:
        file = Path(place) / f"main.{ending}"
        file.write_text(snippet.at(server), encoding="utf-8")
        done = subprocess.run(
            command(snippet.language, file, folder),
            cwd=folder if snippet.language == "go" else place,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    finally:
        shutil.rmtree(place)
    assert done.returncode == 0, f"{PAGE.name}:{snippet.line}: {done.stderr}"
    return done.stdout


def main(language: str, folder: str = ".") -> None:
    """Run all blocks of a language; fails with the first that does not keep its promise."""
    found = of(language)
    assert found, f"{PAGE} has no block in {language}"
    names = ["LAKEGATE_HOST", "LAKEGATE_PORT", "LAKEGATE_TLS_PORT", "LAKEGATE_CA"]
    server = Server(*(os.environ[name] for name in names))
    for snippet in found:
        snippet.check(run(snippet, server, folder))
    sys.stdout.write(f"{language}: {len(found)} passed, 0 failed\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
