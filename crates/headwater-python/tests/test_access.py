"""Encrypted connections, and who is let in: with a password, with a token of an issuer, or not at all."""

import asyncio
import base64
import hashlib
import http.server
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import urllib.parse

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


class Desk(http.server.BaseHTTPRequestHandler):
    """Where an issuer gives tokens, to a program that knows a secret or to a person who types a code."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        home = self.server.home
        places = {"token_endpoint": home + "/token", "device_authorization_endpoint": home + "/device"}
        self._answer(200, {"issuer": home, **places})

    def do_POST(self):
        form = dict(urllib.parse.parse_qsl(self.rfile.read(int(self.headers["Content-Length"])).decode()))
        self.server.forms.append(form)
        if self.path == "/device":
            places = {"verification_uri": self.server.home + "/go", "verification_uri_complete": self.server.home + "/go?1"}
            self._answer(200, {"device_code": "of-device", "user_code": "WDJB", "expires_in": 60, "interval": 0, **places})
        elif "client_id" not in form and self.headers["Authorization"] != "Basic " + base64.b64encode(b"job:s3cret").decode():
            self._answer(401, {"error": "invalid_client"})
        elif "device_code" in form and len(self.server.forms) < 4:
            self._answer(400, {"error": "authorization_pending"})
        else:
            token = {"access_token": self.server.issuer.token("someone", "READ_UPDATE"), "expires_in": 300, "token_type": "Bearer"}
            self._answer(200, {**token, "refresh_token": "r"} if "device_code" in form else token)

    def _answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Tokens:
    """An issuer on loopback. ``forms`` is what it was asked."""

    def __init__(self, issuer):
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Desk)
        self._server.issuer, self._server.forms = issuer, []
        self._server.home = self.home = f"http://127.0.0.1:{self._server.server_port}"
        self.forms = self._server.forms

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


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

    def test_a_program_gets_its_tokens_from_the_issuer(self):
        with Tokens(self.issuer) as tokens:
            issuer = headwater.OidcIssuer(tokens.home, "job", secret="s3cret", scope="a b", audience="store")
            self.assertNotIn("s3cret", repr(issuer))
            self.operate(self.connect(oidc=issuer))
            wanted = {"grant_type": "client_credentials", "scope": "a b", "audience": "store"}
            self.assertEqual(tokens.forms, [wanted], "one token for everything")
            wrong = headwater.OidcIssuer(tokens.home, "job", secret="t")
            with self.assertRaises(headwater.UnauthenticatedError):
                self.connect(oidc=wrong).scopes()
        away = headwater.OidcIssuer(tokens.home, "job", secret="s3cret", answer_timeout=1)
        with self.assertRaises(headwater.UnavailableError):
            self.connect(oidc=away, retry_for=0.5).scopes()

    def test_a_person_signs_in_once(self):
        signed_in, kept = [], []
        with Tokens(self.issuer) as tokens:
            issuer = headwater.OidcIssuer(tokens.home, "cli", on_sign_in=signed_in.append, on_refresh_token=kept.append)
            self.operate(self.connect(oidc=issuer))
            ways = (tokens.home + "/go", "WDJB", tokens.home + "/go?1", 60.0)
            self.assertEqual(signed_in, [headwater.SignIn(*ways)])
            asked = [form.get("grant_type", "a code") for form in tokens.forms]
            grant = "urn:ietf:params:oauth:grant-type:device_code"
            self.assertEqual(asked, ["a code", grant, grant, grant])
            until = time.monotonic() + 10
            while not kept and time.monotonic() < until:
                time.sleep(0.01)
            self.assertEqual(kept, ["r"])

            async def operate():
                again = headwater.OidcIssuer(tokens.home, "cli", refresh_token=kept[0], on_sign_in=signed_in.append)
                async with headwater.aio.connect(self.server.address, trust=self.trust, oidc=again) as client:
                    self.assertIn("tests", await client.scopes())

            asyncio.run(operate())
            self.assertEqual(tokens.forms[-1]["refresh_token"], "r")
        self.assertEqual(len(signed_in), 1, "nobody has to sign in again")

    def test_what_goes_wrong_while_a_person_is_told_is_not_lost(self):
        raised = []
        before, sys.unraisablehook = sys.unraisablehook, raised.append
        try:
            with Tokens(self.issuer) as tokens:
                issuer = headwater.OidcIssuer(tokens.home, "cli", on_sign_in=lambda _: 1 // 0)
                self.operate(self.connect(oidc=issuer))
        finally:
            sys.unraisablehook = before
        self.assertEqual([one.exc_type for one in raised], [ZeroDivisionError])

    def test_an_issuer_that_makes_no_sense_is_refused_at_once(self):
        for options in (
            {"oidc": headwater.OidcIssuer("http://id.example", "job", secret="s")},
            {"oidc": headwater.OidcIssuer("https://id.example", "job")},
            {"oidc": headwater.OidcIssuer("https://id.example", "", secret="s")},
            {"oidc": headwater.OidcIssuer("https://id.example", "job", secret="s", trust=b"no certificate")},
            {"oidc": headwater.OidcIssuer("https://id.example", "job", secret="s", answer_timeout=-1)},
            {"oidc": headwater.OidcIssuer("https://id.example", "job", secret="s"), "basic": ("admin", "secret")},
        ):
            with self.subTest(options=options), self.assertRaises(headwater.InvalidError):
                self.connect(**options)

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
