"""The engine's process: its start and its failures to start, its death and its parent's, and what is left of it."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from vcore import AsyncLLM, RestartPolicy, SamplingParams
from vcore.engine.records import EngineStatus, RequestRecord, StepRecord
from vcore.engine.remote.channel import SocketChannel
from vcore.engine.remote.message_socket import MessageSocket
from vcore.engine.remote.messages import Reply
from vcore.errors import ConfigError, EngineDeadError, ModelError, PluginError
from vcore.outputs import RequestOutput

LONG = SamplingParams(temperature=0.0, max_tokens=450, ignore_eos=True)
SHORT = SamplingParams(temperature=0.0, max_tokens=3, ignore_eos=True)
CONFIG = {"cache": {"num_blocks": 4096, "block_size": 4}, "runtime": {"device": "cpu", "num_threads": 1}}
AT_ONCE = RestartPolicy(first_delay=0.0)

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and pidfd")


class States:
    """A listener that keeps the engine's states, and lets others wait for one."""

    def __init__(self) -> None:
        self.states: list[EngineStatus] = []
        self.finished: list[RequestRecord] = []
        self._changed = asyncio.Event()

    def on_step(self, record: StepRecord) -> None:
        pass

    def on_finished(self, record: RequestRecord) -> None:
        self.finished.append(record)

    def on_engine(self, status: EngineStatus) -> None:
        self.states.append(status)
        self._changed.set()

    async def reach(self, state: str) -> EngineStatus:
        async with asyncio.timeout(60):
            while not self.states or self.states[-1].state != state:
                self._changed.clear()
                await self._changed.wait()
        return self.states[-1]


async def last(llm: AsyncLLM, params: SamplingParams = SHORT, prompt: Any = (1, 2, 3)) -> RequestOutput:
    [output] = [output async for output in llm.generate(list(prompt), params, mode="final")]
    return output


def ended(pid: int) -> bool:
    """Wait until a process is gone, or is a zombie that only its new parent has to reap."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], 30.0)[0])
    finally:
        os.close(handle)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of this test's own for temporary files, with a path that is short enough for sockets."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def socket_folders(temporary: Path) -> list[str]:
    return [path.name for path in temporary.iterdir() if path.name.startswith("vcore-")]


def open_files() -> list[str]:
    return sorted(os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _is_open(name))


def _is_open(name: str) -> bool:
    return os.path.islink(f"/proc/self/fd/{name}")


# Death


@linux
def test_killed_in_the_middle_open_requests_fail_and_service_resumes(tiny: str):
    async def check() -> None:
        heard = States()
        llm = AsyncLLM(tiny, config=CONFIG, restart=AT_ONCE)
        llm.add_listener(heard)
        async with llm:
            pid = llm.health().pid
            assert pid is not None
            open_requests = [llm.generate([1, index], LONG, mode="delta") for index in range(20)]
            await asyncio.gather(*map(anext, open_requests))
            waiting = [asyncio.create_task(last(llm, LONG, (2, index))) for index in range(5)]
            question = asyncio.create_task(llm.block_map())
            await asyncio.sleep(0)
            os.kill(pid, signal.SIGKILL)
            failures = await asyncio.gather(*map(drain, open_requests), *waiting, question, return_exceptions=True)
            for failure in failures[:-1]:
                assert isinstance(failure, EngineDeadError)
                assert "SIGKILL" in str(failure)
            assert len(set(map(id, failures[:-1]))) == 25, "each has an error, with a traceback, of its own"
            with pytest.raises(EngineDeadError, match=r"restarting.*SIGKILL"):
                await last(llm)
            assert llm.health().state == "restarting"
            assert llm.health().pid is None
            status = await heard.reach("ready")
            assert (status.restarts, status.pid != pid) == (1, True)
            assert status.reason is not None
            assert "SIGKILL" in status.reason
            assert len((await last(llm)).outputs[0].token_ids) == 3
            assert (await llm.stats()).used_blocks == 0
            assert ended(pid)
        assert [status.state for status in heard.states] == ["starting", "ready", "restarting", "ready", "closed"]
        assert [record.finish_reasons for record in heard.finished[:25]] == [("error",)] * 25

    async def drain(outputs: Any) -> None:
        async for _ in outputs:
            pass

    asyncio.run(check())


@linux
def test_killed_after_every_start_it_is_given_up_and_requests_are_told_the_cause(tiny: str):
    async def check() -> None:
        heard = States()
        llm = AsyncLLM(tiny, config=CONFIG, restart=RestartPolicy(first_delay=0.0, max_failures=2))
        llm.add_listener(heard)
        async with llm:
            for _ in range(2):
                status = await heard.reach("ready")
                request = asyncio.create_task(last(llm, LONG))
                while not llm.num_unfinished():
                    await asyncio.sleep(0)
                assert status.pid is not None
                os.kill(status.pid, signal.SIGKILL)
                with pytest.raises(EngineDeadError, match=r"ended while the request ran: .*killed by SIGKILL"):
                    await request
            expected = r"dead: given up, as the last 2 starts gave .*; the last time the engine process .* SIGKILL"
            with pytest.raises(EngineDeadError, match=expected):
                await last(llm)
        states = [status.state for status in heard.states]
        assert states == ["starting", "ready", "restarting", "ready", "dead", "closed"]

    asyncio.run(check())


@linux
def test_the_engine_ends_with_its_parent(tiny: str, temporary: Path):
    script = f"""
import asyncio
from vcore import AsyncLLM
async def main():
    async with AsyncLLM({tiny!r}, config={CONFIG!r}) as llm:
        print(llm.health().pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
        assert ended(pid)
    assert socket_folders(temporary) == []


@linux
def test_where_the_system_does_not_end_it_the_end_of_its_input_does():
    script = (
        "import ctypes, os, sys, time\n"
        "from vcore.engine.remote import parent_watch\n"
        "parent_watch._PR_SET_PDEATHSIG = 0\n"  # prctl refuses it, and nothing is set
        "parent_watch.end_with_parent(os.getppid())\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.stdin.close()
        assert child.wait(timeout=30) == 1


def test_ctrl_c_of_a_terminal_does_not_reach_it(tiny: str):
    async def check() -> None:
        async with AsyncLLM(tiny, config=CONFIG) as llm:
            pid = llm.health().pid
            assert pid is not None
            assert os.getpgid(pid) != os.getpgid(os.getpid())
            os.kill(pid, signal.SIGINT)
            assert (await last(llm)).finished
            assert llm.health().restarts == 0

    asyncio.run(check())


# Start


@pytest.mark.parametrize(
    ("config", "kind", "text"),
    [
        ({"model": {"path": "/no/such/folder"}}, ModelError, "/no/such/folder"),
        ({"attention": {"backend": "nonsense"}}, PluginError, "nonsense"),
        ({"cache": {"num_blocks": 2}, "model": {"max_model_len": 10**6}}, ConfigError, "max_model_len"),
    ],
)
def test_what_fails_in_the_engine_is_raised_as_what_it_was(
    tiny: str, config: dict[str, Any], kind: type[Exception], text: str
):
    from vcore import LLM

    path = config.get("model", {}).get("path", tiny)
    with pytest.raises(kind) as offline:
        LLM(path, config=config, device="cpu")
    for in_process in (True, False):
        llm = AsyncLLM(path, config=config, device="cpu", in_process=in_process)
        with pytest.raises(kind, match=text) as caught:
            asyncio.run(llm.start())
        assert (type(caught.value), str(caught.value)) == (type(offline.value), str(offline.value))
        assert (llm.health().state, llm.health().reason) == ("dead", str(offline.value))


def test_a_process_that_ends_without_a_word_is_told_with_its_last_lines(tiny: str, tmp_path: Path):
    plugin = tmp_path / "rude.py"
    plugin.write_text(
        f"import os\nif os.getpid() != {os.getpid()}:\n    os.write(2, b'about to go\\n')\n    os._exit(7)\n"
    )
    llm = AsyncLLM(tiny, config={**CONFIG, "plugins": {"load": [str(plugin)]}})
    with pytest.raises(EngineDeadError, match=r"(?s)ended with status 7.*about to go"):
        asyncio.run(llm.start())


def test_plugin_objects_cannot_cross(tiny: str):
    with pytest.raises(ConfigError, match="move each to a file"):
        AsyncLLM(tiny, plugins=[object()])
    with pytest.raises(ConfigError, match="no plain data"):
        AsyncLLM(tiny, config={"cache": {"eviction": {"name": "lru", "options": {"x": object()}}}})
    with pytest.raises(ConfigError, match="takes a name"):
        AsyncLLM({"path": tiny})  # type: ignore[arg-type]


def test_plugins_are_found_where_the_parent_finds_them(tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A file beside the configuration, and a module of a folder that only this process's `sys.path` has."""
    (tmp_path / "own_policy_module.py").write_text(
        "from vcore.plugins import SchedulingPolicySpec, hookimpl\n"
        "from vcore_policies.scheduling.fcfs import FCFSPolicy\n"
        "@hookimpl\n"
        "def vcore_scheduling_policies():\n"
        "    return [SchedulingPolicySpec(name='own', load='own_policy_module:FCFSPolicy', api='1.0', summary='own')]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = {**CONFIG, "plugins": {"load": ["own_policy_module"]}, "scheduler": {"policy": "own"}}

    async def check() -> None:
        async with AsyncLLM(tiny, config=config) as llm:
            assert "own" in {plugin.name for plugin in llm.plugins.plugins}
            assert (await last(llm)).finished

    asyncio.run(check())


# Ends


@linux
@pytest.mark.parametrize("in_process", [True, False], ids=["thread", "process"])
def test_closed_while_requests_run_nothing_is_left(tiny: str, temporary: Path, in_process: bool):
    async def check() -> None:
        async with AsyncLLM(tiny, config=CONFIG, in_process=in_process) as llm:
            pid = llm.health().pid
            outputs = llm.generate([1], LONG)
            await anext(outputs)
            task = asyncio.create_task(last(llm, LONG))
            await asyncio.sleep(0)
            await asyncio.gather(llm.close(), llm.close())
            with pytest.raises(EngineDeadError, match="closed"):
                async for _ in outputs:
                    pass
            with pytest.raises(EngineDeadError, match="closed"):
                await task
            await llm.close()
            assert llm.num_unfinished() == 0
            assert pid is None or ended(pid)
        assert socket_folders(temporary) == []
        assert len(asyncio.all_tasks()) == 1

    # The first run leaves what is made once a process.
    asyncio.run(check())
    gc.collect()
    files = open_files()
    asyncio.run(check())
    gc.collect()
    assert open_files() == files
    left = [thread.name for thread in threading.enumerate() if thread.name.startswith("vcore-engine")]
    assert left == []


@linux
@pytest.mark.parametrize("turns", [1, 200])
def test_a_start_that_is_cancelled_leaves_nothing(tiny: str, temporary: Path, turns: int):
    async def check() -> None:
        llm = AsyncLLM(tiny, config=CONFIG)
        task = asyncio.create_task(llm.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        link = llm._session.supervisor._link
        assert link is not None
        pid = link.pid
        assert pid is not None
        assert len(socket_folders(temporary)) == 1
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert ended(pid)
        assert socket_folders(temporary) == []
        assert llm.health().state == "dead"
        await llm.close()

    asyncio.run(check())


@linux
def test_closed_while_it_starts(tiny: str):
    async def check() -> None:
        llm = AsyncLLM(tiny, config=CONFIG)
        task = asyncio.create_task(llm.start())
        await asyncio.sleep(0)
        await llm.close()
        with pytest.raises(EngineDeadError, match="closed while it was starting"):
            await task
        assert llm.health().state == "closed"

    asyncio.run(check())


def test_two_engines_at_once_on_uvloop(tiny: str):
    async def check() -> None:
        async with AsyncLLM(tiny, config=CONFIG) as one, AsyncLLM(tiny, config=CONFIG, in_process=True) as two:
            firsts, seconds = await asyncio.gather(*(all_of(llm) for llm in (one, two)))
            assert firsts == seconds
            await one.close()
            assert (await last(two)).finished

    async def all_of(llm: AsyncLLM) -> list[Any]:
        outputs = await asyncio.gather(*(last(llm, SHORT, (1, index)) for index in range(50)))
        return [output.outputs for output in outputs]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(check())


def test_a_message_whose_reader_raises_keeps_none_behind_it_back():
    taken: list[Any] = []

    def take(message: Any) -> None:
        taken.append(message)
        if len(taken) == 1:
            raise RuntimeError("a fault of the reader's")

    async def check() -> None:
        raised: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: raised.append(context["exception"]))
        messages = MessageSocket(take)
        channel = SocketChannel(messages.address, messages.server_key)
        try:
            for number in range(3):
                channel.send(Reply(number))
            async with asyncio.timeout(10):
                while len(taken) < 3:
                    await asyncio.sleep(0)
        finally:
            channel.close()
            messages.close()
        assert [message.serial for message in taken] == [0, 1, 2]
        assert [str(error) for error in raised] == ["a fault of the reader's"]

    asyncio.run(check())


def test_over_tcp_only_who_knows_the_key_gets_in(tiny: str, monkeypatch: pytest.MonkeyPatch):
    import zmq

    from vcore.engine.remote import process_link

    made: list[MessageSocket] = []

    def over_tcp(on_message: Callable[[Any], None]) -> MessageSocket:
        made.append(MessageSocket(on_message, "tcp"))
        return made[0]

    monkeypatch.setattr(process_link, "MessageSocket", over_tcp)

    async def check() -> None:
        async with AsyncLLM(tiny, config=CONFIG) as llm:
            assert made[0].address.startswith("tcp://127.0.0.1:")
            with zmq.Context() as context, context.socket(zmq.DEALER) as stranger:
                stranger.linger = 0
                stranger.connect(made[0].address)
                stranger.send(b"nonsense, which would end everything")
                assert (await last(llm)).finished
        host, port = made[0].address.removeprefix("tcp://").split(":")
        with socket.socket() as probe:
            assert probe.connect_ex((host, int(port))) != 0

    asyncio.run(check())
