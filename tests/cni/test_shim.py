"""The host-side CNI program, started for real against a real Unix socket that plays the agent."""

import json
import os
import pty
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from actors.errors import OrbweaverError
from cni import shim

MIB = 1 << 20
RESULT = b'{"cniVersion":"1.0.0","ips":[{"address":"10.6.168.65/24"}]}'
Script = Callable[[socket.socket], None]


# ---- the agent's side ------------------------------------------------------------------------------------


def receive(connection: socket.socket) -> bytes:
    """One whole request as it came, header included."""
    header = connection.recv(8, socket.MSG_WAITALL)
    if len(header) < 8:  # it had no time to send more
        raise ConnectionError("the plugin hung up")
    (length,) = struct.unpack(">I", header[4:])
    return header + (connection.recv(length, socket.MSG_WAITALL) if length else b"")


def answer(status: int, text: bytes) -> bytes:
    return b"OWR1" + struct.pack(">II", status, len(text)) + text


class Agent:
    """Accepts connections and runs `script` on each; without one it listens and never accepts."""

    def __init__(self, path: Path, script: Script | None) -> None:
        self.path = path
        self.requests: list[bytes] = []
        self._script = script
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        if script is not None:
            self._thread.start()

    def _accept(self) -> None:
        assert self._script is not None
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            # The plugin may hang up first: its exit is what counts.
            with connection, suppress(ConnectionError):
                self._script(connection)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._script is not None:
            self._thread.join(60)
            assert not self._thread.is_alive()


@contextmanager
def agent_that(path: Path, script: Script | None) -> Iterator[Agent]:
    agent = Agent(path, script)
    try:
        yield agent
    finally:
        agent.close()


@contextmanager
def agent_that_replies(path: Path, status: int = 0, text: bytes = RESULT) -> Iterator[Agent]:
    def script(connection: socket.socket) -> None:
        agent.requests.append(receive(connection))
        connection.sendall(answer(status, text))

    with agent_that(path, script) as agent:
        yield agent


# ---- the runtime's side ----------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def plugins(tmp_path_factory) -> Path:
    """A plugin directory as a node has it."""
    directory = tmp_path_factory.mktemp("bin")
    shim.install(directory)
    return directory


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "agent.sock"


@pytest.fixture
def run(plugins):
    """Run a plugin to its end: `run(stdin, COMMAND=..., plugin=...)`; environment names lack their `CNI_`."""

    def start(stdin: bytes, plugin: str = "spiderpool", extra: dict[str, str] | None = None, **cni: str):
        environment = {f"CNI_{name}": value for name, value in cni.items()} | (extra or {})
        return subprocess.run(
            [plugins / plugin], input=stdin, env=environment, capture_output=True, timeout=120, check=False
        )

    return start


def netconf(path: Path, version: str = "1.0.0", **more: object) -> bytes:
    ipam = {"type": "spiderpool", "ipam_unix_socket_path": str(path)}
    return json.dumps({"cniVersion": version, "name": "net", "ipam": ipam, **more}).encode()


def error_of(done: subprocess.CompletedProcess[bytes]) -> dict[str, object]:
    """The CNI error object of a failed run; it has exactly the fields that the spec names."""
    assert done.returncode == 1
    assert done.stderr == b""
    error = json.loads(done.stdout)
    assert list(error) == ["cniVersion", "code", "msg", "details"]
    return error


# ---- what goes over the wire -----------------------------------------------------------------------------


def test_the_request_is_the_plugin_the_cni_environment_and_stdin_byte_for_byte(plugins, path):
    stdin = netconf(path) + b"\x00\xff not JSON any more \n"
    environment = {
        b"CNI_COMMAND": b"ADD",
        b"PATH": b"/bin",
        b"CNI_ARGS": "K8S_POD_NAME=ä;IP=1".encode(),
        b"CNI_EMPTY": b"",
        b"XCNI_NO": b"1",
        b"CNI_RAW": b"\xff\xfe = =",
    }
    with agent_that_replies(path) as agent:
        subprocess.run([plugins / "coordinator"], input=stdin, env=environment, timeout=120, check=True)

    strings = [
        b"plugin=coordinator",
        b"CNI_COMMAND=ADD",
        "CNI_ARGS=K8S_POD_NAME=ä;IP=1".encode(),
        b"CNI_EMPTY=",
        b"CNI_RAW=\xff\xfe = =",
    ]
    body = b"".join(string + b"\0" for string in strings) + b"\0" + stdin + b"\n"
    assert agent.requests == [b"OWC1" + struct.pack(">I", len(body)) + body]


@pytest.mark.parametrize(
    ("status", "text"),
    [(0, RESULT), (0, b""), (1, b'{"code":101}'), (255, b"\x00\xff"), (0, b"x" * (4 * MIB))],
    ids=["result", "empty", "error", "bytes", "largest"],
)
def test_the_answer_and_its_exit_status_pass_through_unchanged(run, path, status, text):
    with agent_that_replies(path, status, text):
        done = run(netconf(path), COMMAND="ADD")

    assert (done.returncode, done.stdout, done.stderr) == (status, text, b"")


def test_an_answer_in_single_bytes_is_put_together(run, path):
    def script(connection: socket.socket) -> None:
        receive(connection)
        for byte in answer(3, RESULT):
            connection.sendall(bytes([byte]))

    with agent_that(path, script):
        done = run(netconf(path), COMMAND="ADD")

    assert (done.returncode, done.stdout) == (3, RESULT)


def test_a_request_of_exactly_the_limit_is_sent(run, path):
    fixed = len(b"plugin=spiderpool\0CNI_COMMAND=ADD\0\0")
    stdin = netconf(path).ljust(MIB - fixed)
    with agent_that_replies(path) as agent:
        done = run(stdin, COMMAND="ADD")

    assert done.returncode == 0
    assert len(agent.requests[0]) == 8 + MIB


@pytest.mark.parametrize("surplus", [1, 3 * MIB])
def test_a_request_over_the_limit_is_refused_without_the_agent(run, path, surplus):
    fixed = len(b"plugin=spiderpool\0CNI_COMMAND=ADD\0\0")
    with agent_that_replies(path) as agent:
        error = error_of(run(netconf(path, "0.4.0").ljust(MIB - fixed + surplus), COMMAND="ADD"))

    assert (error["code"], error["cniVersion"]) == (6, "0.4.0")
    assert "1 MiB" in str(error["msg"])
    assert agent.requests == []


@pytest.mark.parametrize("surplus", [1, 3 * MIB])
def test_a_del_over_the_limit_is_sent_without_its_configuration(run, path, surplus):
    fixed = len(b"plugin=spiderpool\0CNI_COMMAND=DEL\0\0")
    with agent_that_replies(path) as agent:
        done = run(netconf(path).ljust(MIB - fixed + surplus), COMMAND="DEL")

    assert done.returncode == 0
    assert agent.requests[0][8:] == b"plugin=spiderpool\0CNI_COMMAND=DEL\0\0"


def test_an_answer_before_the_whole_request_was_read_still_counts(run, path):
    def script(connection: socket.socket) -> None:
        connection.recv(8)
        connection.sendall(answer(1, b'{"code":7}'))

    with agent_that(path, script):
        done = run(netconf(path).ljust(900_000), COMMAND="ADD")

    assert (done.returncode, done.stdout) == (1, b'{"code":7}')


# ---- where the socket is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    [
        '{"cniVersion":"1.0.0","ipam":{"ipam_unix_socket_path":"%s"}}',
        '{ "x" : "ipam_unix_socket_path", "ipam_unix_socket_path"\t:\n "%s" }',
        '{"a":"\\"ipam_unix_socket_path\\":\\"/no\\"","b":["ipam_unix_socket_path"],"ipam_unix_socket_path":"%s"}',
        '{"ipam_unix_socket_path":null,"ipam":{"ipam_unix_socket_path":"%s"}}',
    ],
    ids=["nested", "spaced", "quoted", "null-first"],
)
def test_the_socket_is_the_one_that_the_configuration_names(run, path, shape):
    with agent_that_replies(path) as agent:
        done = run((shape % path).encode(), COMMAND="ADD")

    assert done.returncode == 0
    assert len(agent.requests) == 1


def test_escaped_slashes_in_the_path_are_read_as_json_means_them(run, path):
    with agent_that_replies(path):
        done = run(netconf(path).replace(b"/", b"\\/"), COMMAND="ADD")

    assert done.returncode == 0


@pytest.mark.parametrize(
    "stdin", [b"", b"{}", b'{"ipam_unix_socket_path":""}', b'{"ipam_unix_socket_path":"/x']
)
def test_without_a_path_the_default_socket_is_asked(run, stdin):
    if Path("/var/run/spidernet/spiderpool.sock").exists():
        pytest.skip("an agent is listening on the default socket of this machine")
    error = error_of(run(stdin, COMMAND="ADD"))

    assert "agent at /var/run/spidernet/spiderpool.sock cannot be reached" in str(error["msg"])


@pytest.mark.parametrize("bad", ["/" + "x" * 107, "/\\u0041"], ids=["too-long", "escape"])
def test_a_path_that_no_socket_can_have_is_an_invalid_configuration(run, bad):
    error = error_of(run(b'{"ipam_unix_socket_path":"%s"}' % bad.encode(), COMMAND="ADD"))

    assert error["code"] == 7


def test_a_del_with_a_path_that_no_socket_can_have_goes_to_the_usual_one(run):
    if Path("/var/run/spidernet/spiderpool.sock").exists():
        pytest.skip("an agent runs here")
    error = error_of(run(b'{"ipam_unix_socket_path":"/%s"}' % (b"x" * 107), COMMAND="DEL"))

    assert error["code"] == 11
    assert "agent at /var/run/spidernet/spiderpool.sock cannot be reached" in str(error["msg"])


# ---- when there is no answer -----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["ADD", "DEL", "CHECK", "GC"])
def test_an_agent_that_is_not_there_is_error_11_and_says_what_to_do(run, path, command):
    error = error_of(run(netconf(path, "0.3.1"), COMMAND=command, CONTAINERID="c1"))

    assert (error["cniVersion"], error["code"]) == ("0.3.1", 11)
    assert f"agent at {path} cannot be reached" in str(error["msg"])
    assert "See that the agent runs" in str(error["msg"])
    assert str(error["details"]).startswith(
        f"plugin spiderpool, command {command}, container c1: no such file"
    )


def test_status_without_the_agent_is_error_50(run, path):
    assert error_of(run(netconf(path, "1.1.0"), COMMAND="STATUS"))["code"] == 50


def test_a_socket_left_behind_by_a_dead_agent_is_error_11(run, path):
    with agent_that(path, None):
        pass
    error = error_of(run(netconf(path), COMMAND="ADD"))

    assert error["code"] == 11
    assert "connection refused" in str(error["details"])


@pytest.mark.parametrize(
    "reply",
    [b"", b"OW", answer(0, RESULT)[:12], answer(0, RESULT)[:-1]],
    ids=["nothing", "header-part", "header", "short"],
)
def test_an_agent_that_hangs_up_early_is_error_11_and_no_part_of_its_answer_is_printed(run, path, reply):
    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(reply)

    with agent_that(path, script):
        error = error_of(run(netconf(path), COMMAND="ADD"))

    assert error["code"] == 11
    assert "hung up" in str(error["details"])


def test_a_server_of_http_refuses_the_request_and_is_not_waited_for(run, path):
    """As Spiderpool's agent is, which listens on the same path after a takeover's way back. It reads to the end of a line."""

    def script(connection: socket.socket) -> None:
        with connection.makefile("rb") as lines:
            lines.readline()
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")

    with agent_that(path, script):
        error = error_of(run(netconf(path), COMMAND="ADD"))

    assert error["code"] == 11
    assert "not an Orbweaver agent" in str(error["details"]) + str(error["msg"])


def test_an_agent_that_hangs_up_without_reading_is_error_11(run, path):
    with agent_that(path, lambda connection: None):
        error = error_of(run(netconf(path).ljust(900_000), COMMAND="ADD"))

    assert error["code"] == 11


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"OWR2" + bytes(8),
        b"OWR1" + struct.pack(">II", 256, 0),
        b"OWR1" + struct.pack(">II", 0, 4 * MIB + 1),
    ],
    ids=["http", "version", "status", "length"],
)
def test_garbage_in_place_of_an_answer_is_error_11(run, path, reply):
    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(reply)
        connection.recv(1)  # until the shim hangs up: it must not wait for more

    with agent_that(path, script):
        error = error_of(run(netconf(path), COMMAND="ADD"))

    assert error["code"] == 11
    assert "errno 71" in str(error["details"])  # EPROTO


@pytest.mark.parametrize(
    "reply", [b"", b"OWR1", answer(0, RESULT)[:20]], ids=["silent", "header-part", "part"]
)
def test_an_agent_that_does_not_finish_is_given_up_in_time(run, path, reply):
    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(reply)
        connection.recv(1)

    started = time.monotonic()
    with agent_that(path, script):
        error = error_of(run(netconf(path), COMMAND="ADD", extra={"ORBWEAVER_SHIM_TIMEOUT": "1"}))

    assert error["code"] == 11
    assert "in time" in str(error["details"])
    assert 0.9 < time.monotonic() - started < 50  # a minute if nothing else is said


def test_an_agent_that_drips_is_given_up_in_time_all_the_same(run, path):
    def script(connection: socket.socket) -> None:
        receive(connection)
        connection.sendall(answer(0, b"x" * MIB)[:12])
        connection.settimeout(0.05)
        while True:
            connection.sendall(b"x")
            try:
                connection.recv(1)
            except TimeoutError:
                continue
            return

    with agent_that(path, script):
        error = error_of(run(netconf(path), COMMAND="ADD", extra={"ORBWEAVER_SHIM_TIMEOUT": "1"}))

    assert "in time" in str(error["details"])


def test_an_agent_that_accepts_nobody_is_given_up_in_time(run, path):
    with (
        agent_that(path, None),
        socket.socket(socket.AF_UNIX) as first,
        socket.socket(socket.AF_UNIX) as second,
    ):
        first.connect(str(path))
        second.connect(str(path))  # the queue of one, and the one that Linux adds, are now full
        error = error_of(run(netconf(path), COMMAND="ADD", extra={"ORBWEAVER_SHIM_TIMEOUT": "1"}))

    assert error["code"] == 11
    assert "queue of connections" in str(error["details"])


@pytest.mark.parametrize("value", ["", "0", "601", "-1", "1x", "99999999999999999999"])
def test_a_timeout_that_makes_no_sense_is_not_taken(run, path, value):
    with agent_that_replies(path):
        done = run(netconf(path), COMMAND="ADD", extra={"ORBWEAVER_SHIM_TIMEOUT": value})

    assert done.returncode == 0


# ---- what it answers itself ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"])
def test_version_needs_no_agent_and_echoes_the_version_asked_in(run, version):
    done = run(json.dumps({"cniVersion": version}).encode(), COMMAND="VERSION")

    expected = {"cniVersion": version, "supportedVersions": ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]}
    assert (done.returncode, json.loads(done.stdout)) == (0, expected)


@pytest.mark.parametrize(
    "stdin",
    [
        b"",
        b"{}",
        b'{"cniVersion":"1.0\\"0"}',
        b'{"cniVersion":7}',
        b'{"cniVersion":"' + b"1" * 16 + b'"}',
        b"\xff{",
    ],
)
def test_version_without_a_plausible_version_names_the_newest(run, stdin):
    assert json.loads(run(stdin, COMMAND="VERSION").stdout)["cniVersion"] == "1.1.0"


def test_the_version_of_a_previous_result_is_not_taken_for_the_requests(run, path):
    stdin = json.dumps(
        {"prevResult": {"cniVersion": "0.4.0"}, "cniVersion": "1.1.0", "ipam_unix_socket_path": str(path)}
    ).encode()

    assert error_of(run(stdin, COMMAND="ADD"))["cniVersion"] == "1.1.0"


@pytest.mark.parametrize("environment", [{}, {"COMMAND": ""}], ids=["missing", "empty"])
def test_no_command_is_error_4(run, environment):
    error = error_of(run(b"{}", **environment))

    assert (error["code"], error["cniVersion"]) == (4, "1.0.0")
    assert "CNI_COMMAND" in str(error["msg"])


def test_odd_bytes_in_identifiers_still_make_valid_json(plugins, path):
    environment = {b"CNI_COMMAND": b'A"\\\nDD\x7f', b"CNI_CONTAINERID": b'\xff\xc3"\\\x01\t' + b"y" * 3000}
    stdin = netconf(path).replace(b"agent.sock", b'a\\"b')
    done = subprocess.run(
        [plugins / "ifacer"], input=stdin, env=environment, capture_output=True, timeout=120, check=False
    )
    error = error_of(done)

    assert f'{path.parent}/a"b cannot be reached' in str(error["msg"])
    shown = 'command A"\\?DD?, container ??"\\??' + "y" * 122 + ": no such file"
    assert shown in str(error["details"])


# ---- stdin and stdout that misbehave ---------------------------------------------------------------------


def start(plugins: Path, seconds: str = "60", **options: object) -> "subprocess.Popen[bytes]":
    environment = {"CNI_COMMAND": "VERSION", "ORBWEAVER_SHIM_TIMEOUT": seconds}
    return subprocess.Popen([plugins / "spiderpool"], env=environment, **options)  # type: ignore[call-overload]


def test_a_stdin_that_never_ends_is_given_up_in_time(plugins):
    with start(plugins, "1", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        error = json.loads(process.stdout.read())

    assert (process.returncode, error["code"]) == (1, 5)


def test_a_closed_stdin_counts_as_empty(plugins):
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" <&-', plugins / "spiderpool"],
        env={"CNI_COMMAND": "VERSION"},
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert (done.returncode, json.loads(done.stdout)["cniVersion"]) == (0, "1.1.0")


def test_a_terminal_on_stdin_is_not_waited_for(plugins):
    primary, secondary = pty.openpty()
    try:
        with start(plugins, stdin=secondary, stdout=subprocess.PIPE) as process:
            assert process.wait(120) == 0
    finally:
        os.close(primary)
        os.close(secondary)


def test_a_stdout_that_nobody_reads_is_no_success_and_no_signal(plugins):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with start(plugins, stdin=subprocess.DEVNULL, stdout=writing) as process:
            assert process.wait(120) == 1
    finally:
        os.close(writing)


def test_being_stopped_and_continued_does_not_end_the_wait(plugins, path):
    waiting = threading.Event()
    go_on = threading.Event()

    def script(connection: socket.socket) -> None:
        receive(connection)
        waiting.set()
        assert go_on.wait(60)
        connection.sendall(answer(0, RESULT))

    with agent_that(path, script):
        process = subprocess.Popen(
            [plugins / "spiderpool"],
            env={"CNI_COMMAND": "ADD"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(netconf(path))
        process.stdin.close()
        process.stdin = None
        assert waiting.wait(60)
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        go_on.set()
        output, _ = process.communicate(timeout=60)

    assert (process.returncode, output) == (0, RESULT)


# ---- the files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 62), ("arm64", 183)])
def test_the_programs_are_static_small_and_for_their_machine(machine, number):
    image = shim.binary(machine).read_bytes()

    assert image[:7] == b"\x7fELF\x02\x01\x01"  # 64 bit, little-endian
    kind, of_machine = struct.unpack_from("<HH", image, 16)
    assert (kind, of_machine) == (2, number)  # an executable with fixed addresses, e_machine
    offset, size, count = struct.unpack_from("<Q", image, 32)[0], *struct.unpack_from("<HH", image, 54)
    segments = [struct.unpack_from("<I", image, offset + size * index)[0] for index in range(count)]
    assert 3 not in segments  # PT_INTERP: no dynamic loader
    assert 2 not in segments  # PT_DYNAMIC: no shared libraries
    assert len(image) < 14_000


def test_install_replaces_a_program_in_one_step(tmp_path):
    old = tmp_path / "spiderpool"
    old.write_bytes(b"old")
    with old.open("rb") as held:
        paths = shim.install(tmp_path, machine="aarch64")
        assert held.read() == b"old"  # what a runtime had open is the old file still

    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert [path.name for path in paths] == ["spiderpool", "coordinator", "ifacer"]
    for path in paths:
        assert path.read_bytes() == shim.binary("aarch64").read_bytes()
        assert path.stat().st_mode & 0o7777 == 0o755


def test_install_into_what_is_no_directory_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file", tmp_path / "file" / "bin"):
        with pytest.raises(OrbweaverError, match=rf"cannot be installed in {target}: .*name a directory"):
            shim.install(target)


def test_there_is_no_program_for_an_unknown_machine():
    with pytest.raises(OrbweaverError, match="riscv64"):
        shim.binary("riscv64")
