"""Encrypted connections, and who is let in: with a password, with a token of an issuer, or not at all."""

import asyncio
import base64
import hashlib
import json
import os
import pathlib
import random
import subprocess
import tempfile
import time
import unittest

import headwater
import headwater.aio
from support import Server, fresh

# Nobody else has it: it is made anew for every test run, from numbers that are the same each time.
NUMBERS = random.Random(20)
SMALL_PRIMES = [n for n in range(3, 2000) if all(n % by for by in range(2, int(n**0.5) + 1))]


def prime(bits):
    while True:
        found = NUMBERS.getrandbits(bits) | 3 << (bits - 2) | 1
        if all(found % small for small in SMALL_PRIMES) and all(pow(base, found - 1, found) == 1 for base in (2, 3, 5)):
            return found


def text_of(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Issuer:
    """Signs tokens with RSA, of which this library has nothing: it is a power of a number."""

    def __init__(self):
        one, other = prime(1024), prime(1024)
        self._modulus, self._secret = one * other, pow(65537, -1, (one - 1) * (other - 1))

    def keys(self):
        """What a server has to know."""
        modulus = text_of(self._modulus.to_bytes(256, "big"))
        return json.dumps({"keys": [{"kty": "RSA", "kid": "k", "alg": "RS256", "n": modulus, "e": "AQAB"}]})

    def token(self, user, level, seconds=300):
        grants = {"permissions": [{"rsname": "prn::*", "rsid": "1", "scopes": [level]}]}
        claims = {"sub": user, "aud": "pravega-controller", "exp": int(time.time()) + seconds, "authorization": grants}
        parts = [{"alg": "RS256", "kid": "k"}, claims]
        signed = ".".join(text_of(json.dumps(part).encode()) for part in parts)
        # Source: PKCS #1 1.5, and how it names SHA-256.
        named = bytes.fromhex("3031300d060960864801650304020105000420") + hashlib.sha256(signed.encode()).digest()
        padded = b"\0\1" + b"\xff" * (256 - 3 - len(named)) + b"\0" + named
        signature = pow(int.from_bytes(padded, "big"), self._secret, self._modulus)
        return f"{signed}.{text_of(signature.to_bytes(256, 'big'))}"


def add_user(file, name, password, grant):
    command = [os.environ["WHEEL_TESTS_BINARY"], "user", "add", str(file), name, "--grant", grant]
    subprocess.run(command, input=password + "\n", text=True, check=True, capture_output=True)


class Access(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.files = tempfile.TemporaryDirectory()
        users, keys = (pathlib.Path(cls.files.name, name) for name in ("users.txt", "keys.json"))
        add_user(users, "admin", "secret", "prn::*,READ_UPDATE")
        add_user(users, "guest", "secret", "prn::*,READ")
        cls.issuer = Issuer()
        # A server takes no file that others may write or read.
        keys.touch(mode=0o600)
        keys.write_text(cls.issuer.keys())
        arguments = ("--tls", "self-signed", "--auth-passwords", str(users), "--auth-keys", str(keys))
        cls.server = Server(*arguments, scheme="tls")
        cls.trust = os.path.join(cls.server.directory, "tls", "ca.pem")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()
        cls.files.cleanup()

    def connect(self, **options):
        return headwater.connect(self.server.address, **{"trust": self.trust, **options})

    def operate(self, client):
        stream = fresh("stream")
        client.create_scope("tests")
        self.assertTrue(client.create_stream(stream))
        with client.event_writer(stream) as writer:
            writer.write(b"one", "k")
        self.assertEqual(list(client.stream_reader(stream, until="tail").payloads()), [b"one"])
        return stream

    def test_a_user_with_a_password_is_let_in_over_an_encrypted_connection(self):
        self.operate(self.connect(basic=("admin", "secret")))
        certificates = pathlib.Path(self.trust).read_bytes()
        self.operate(self.connect(basic=("admin", "secret"), trust=certificates))

    def test_whoever_has_a_token_of_the_issuer_is_let_in(self):
        self.operate(self.connect(bearer=self.issuer.token("someone", "READ_UPDATE")))

    def test_asyncio_is_let_in_alike(self):
        async def operate(**options):
            async with headwater.aio.connect(self.server.address, trust=self.trust, **options) as client:
                stream = fresh("stream")
                await client.create_scope("tests")
                await client.create_stream(stream)
                async with await client.event_writer(stream) as writer:
                    await writer.write(b"one", "k")
                reader = (await client.stream_reader(stream, until="tail")).payloads()
                self.assertEqual([event async for event in reader], [b"one"])

        asyncio.run(operate(basic=("admin", "secret")))
        asyncio.run(operate(bearer=self.issuer.token("someone", "READ_UPDATE")))

    def test_nobody_else_is(self):
        other = Issuer().token("someone", "READ_UPDATE")
        old = self.issuer.token("someone", "READ_UPDATE", seconds=-60)
        for options in ({}, {"basic": ("admin", "wrong")}, {"basic": ("nobody", "secret")}, {"bearer": other}, {"bearer": old}):
            with self.subTest(options=options), self.assertRaises(headwater.UnauthenticatedError) as raised:
                self.connect(**options).scopes()
            self.assertEqual(raised.exception.code, "unauthenticated")

    def test_who_may_only_look_changes_nothing(self):
        stream = self.operate(self.connect(basic=("admin", "secret")))
        for options in ({"basic": ("guest", "secret")}, {"bearer": self.issuer.token("guest", "READ")}):
            guest = self.connect(**options)
            self.assertIn(stream.partition("/")[2], guest.streams("tests"))
            for refused in (
                lambda: guest.create_scope("other"),
                lambda: guest.event_writer(stream),
                lambda: guest.seal_stream(stream),
            ):
                with self.assertRaises(headwater.DeniedError) as raised:
                    refused()
                self.assertEqual(raised.exception.code, "denied")

    def test_a_server_that_cannot_prove_itself_is_not_talked_to(self):
        with Stranger() as stranger:
            client = self.connect(basic=("admin", "secret"), trust=stranger.trust, retry_for=0.5, connect_timeout=5)
            with self.assertRaises(headwater.UnavailableError):
                client.scopes()
        # Nor is one that is encrypted without being asked to be.
        plain = headwater.connect(self.server.address.replace("tls://", "tcp://"), retry_for=0.5, connect_timeout=5)
        with self.assertRaises(headwater.UnavailableError):
            plain.scopes()


class Stranger:
    """Another authority than the server's."""

    def __enter__(self):
        self._server = Server("--tls", "self-signed", scheme="tls")
        self.trust = pathlib.Path(self._server.directory, "tls", "ca.pem").read_bytes()
        return self

    def __exit__(self, *_):
        self._server.stop()


if __name__ == "__main__":
    unittest.main()
