"""Logging in at a server with users and a certificate."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import lakegate
from served import program, run, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = "select 1 as one"


@dataclass(frozen=True)
class Door:
    """A server with the user `ann`, one of her tokens, and the certificate to trust."""

    url: str
    password: str
    token: str
    certificate: Path


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder, password = tmp_path_factory.mktemp("door"), "pass:wörd"
    lakegate_program = program()
    command = [str(lakegate_program), "user", "add", "ann", "--role", "admin", "--password-stdin"]
    subprocess.run(command, cwd=folder, input=f"{password}\n", text=True, check=True)
    token = run(lakegate_program, folder, "user", "token", "add", "ann").stdout.strip()
    run(lakegate_program, folder, "cert", "dev")
    (folder / "lakegate.toml").write_text(
        '[serve.tls]\ncertificate = "tls/certificate.pem"\nkey = "tls/key.pem"\n', encoding="utf-8"
    )
    with serve(lakegate_program, folder) as url:
        assert url.startswith("grpc+tls://")
        yield Door(url=url, password=password, token=token, certificate=folder / "tls/certificate.pem")


def test_user_and_password_and_token_let_in(door: Door) -> None:
    for who in ({"user": "ann", "password": door.password}, {"token": door.token}):
        with lakegate.connect(door.url, tls_ca_file=door.certificate, **who) as client:
            assert list(client.sql(ONE)) == [(1,)]
            assert list(client.sql("select ? as one", params=[1])) == [(1,)]
            client.tables()


def test_others_are_told_what_to_do(door: Door) -> None:
    wanted = pytest.raises(lakegate.Unauthenticated, match="connect with user and password")
    with lakegate.connect(door.url, tls_ca_file=door.certificate) as client, wanted:
        client.sql(ONE)
    with pytest.raises(lakegate.Unauthenticated, match="not accepted"):
        lakegate.connect(door.url, user="ann", password="wrong", tls_ca_file=door.certificate)  # noqa: S106
    stranger = lakegate.connect(door.url, token="lgp_0_0", tls_ca_file=door.certificate)  # noqa: S106
    with stranger, pytest.raises(lakegate.Unauthenticated):
        stranger.sql(ONE)


def test_a_server_nobody_vouches_for_is_not_believed(door: Door) -> None:
    with pytest.raises(lakegate.Unavailable, match="tls_ca_file"):
        lakegate.connect(door.url, user="ann", password=door.password)


def test_credentials_do_not_leave_the_machine_in_the_clear() -> None:
    for url in ("grpc://lake.example:8815", "grpc+tcp://10.0.0.1:8815"):
        with pytest.raises(ValueError, match="not encrypted"):
            lakegate.connect(url, token="t")  # noqa: S106
        lakegate.connect(url, token="t", allow_plaintext=True).close()  # noqa: S106
    for url in ("grpc://127.0.0.1:1", "grpc://[::1]:1", "grpc://localhost:1", "grpc+tls://lake.example:8815"):
        lakegate.connect(url, token="t").close()  # noqa: S106
    with pytest.raises(ValueError, match="belong together"):
        lakegate.connect(tls_key_file="key.pem")
