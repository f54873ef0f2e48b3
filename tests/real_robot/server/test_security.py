"""Tokens, addresses, certificates: what is missing is said, and nothing is open by accident."""

import ssl

import pytest
from policy_servers import TOKEN, make_certificate, write_token

from embodied.core.errors import UsageError, UserError
from embodied.real_robot.server.security import Address, client_tls, read_token, server_tls

LOOPBACK, OPEN = Address("127.0.0.1", 1), Address("192.168.1.20", 7460)


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0, True),
        ("localhost:7460", "localhost", 7460, True),
        ("[::1]:7460", "::1", 7460, True),
        ("0.0.0.0:7460", "0.0.0.0", 7460, False),
        ("gpu-box:7460", "gpu-box", 7460, False),
    ],
)
def test_addresses(text, host, port, loopback):
    address = Address.parse(text)
    assert (address.host, address.port, address.is_loopback, str(address)) == (host, port, loopback, text)


@pytest.mark.parametrize("text", ["", "host", ":7460", "host:", "host:port", "host:65536", "::1:7460", "[]:1"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError, match="must look like"):
        Address.parse(text)


def test_a_token_is_the_owners_secret(tmp_path):
    path = write_token(tmp_path)
    assert read_token(path) == TOKEN
    path.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others: chmod 600"):
        read_token(path)
    with pytest.raises(UsageError, match=r"token_file=.* is missing: make one with"):
        read_token(None)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        read_token(tmp_path / "none")
    for text in ("short", "two lines of text\nare no token at all", "ümlaut-ümlaut-ümlaut"):
        with pytest.raises(UsageError, match="must hold 16 to 512 characters on one line"):
            read_token(write_token(tmp_path, text, "bad"))


def test_a_server_that_others_can_reach_has_a_certificate(tmp_path):
    assert server_tls(LOOPBACK, None, None) is None
    with pytest.raises(UsageError, match="is open to others: give certificate= and key=; make a pair with openssl"):
        server_tls(OPEN, None, None)
    with pytest.raises(UsageError, match="belong together"):
        server_tls(LOOPBACK, "server.pem", None)
    with pytest.raises(UserError, match="cannot be used: No such file"):
        server_tls(OPEN, tmp_path / "server.pem", tmp_path / "server.key")


def test_a_client_always_checks_certificate_and_name(tmp_path):
    assert client_tls(LOOPBACK, None) is None
    context = client_tls(OPEN, None)
    assert context.verify_mode == ssl.CERT_REQUIRED and context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    with pytest.raises(UserError, match="holds no certificate: No such file"):
        client_tls(OPEN, tmp_path / "none.pem")
    (tmp_path / "text.pem").write_text("hello")
    with pytest.raises(UserError, match="holds no certificate"):
        client_tls(OPEN, tmp_path / "text.pem")


def test_pairs_that_do_not_belong_together_and_locked_keys_are_refused(tmp_path):
    one, two = make_certificate(tmp_path, "one"), make_certificate(tmp_path, "two")
    if one is None:
        pytest.skip("openssl is not installed")
    assert server_tls(OPEN, *one).minimum_version >= ssl.TLSVersion.TLSv1_2
    with pytest.raises(UserError, match="cannot be used"):
        server_tls(OPEN, one[0], two[1])
