"""Messages, the inbox, requests, and who answers them."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from conftest import Machine, run

from pilot_agents import (
    Decline,
    Done,
    FailedError,
    IncomingRequest,
    InvalidArgumentError,
    Message,
    NotFoundError,
    Part,
    PilotTimeoutError,
    Progress,
    RefusedError,
    Response,
    StateChanged,
)


def test_a_message_is_in_the_inbox_as_it_was_sent(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            inbox = await b.inbox().start()
            for data, kind, expected in (
                ("grüße", "text", "grüße".encode()),
                (b"\x00\xff", "binary", b"\x00\xff"),
                ({"status": "complete", "n": [1, 2.5, None]}, "json", None),
                (b'{"raw": 1}', "json", b'{"raw": 1}'),
            ):
                given: Any = kind if data == b'{"raw": 1}' else None
                sent = await a.send_message("bob", data, type=given, until="stored")
                assert sent.reached("stored"), sent
                message = await inbox.next(10)
                assert message is not None
                assert (message.type, message.sender, message.hostname) == (kind, a.address, "alice")
                assert message.message_id == sent.id
                assert message.provenance["trust"] == "trusted"
                if expected is None:
                    assert message.json() == data
                else:
                    assert message.data == expected
            assert await inbox.next(0.05) is None

    run(main())


def test_a_long_message_passes_the_limit_of_a_frame(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        data = os.urandom(3 << 20)
        async with alice.pilot() as a, bob.pilot() as b:
            inbox = await b.inbox().start()
            await a.send_message("bob", data, until="stored")
            message = await inbox.next(20)
            assert message is not None
            assert message.data == data
            with pytest.raises(InvalidArgumentError):
                await a.send_message("bob", b"x" * (64 << 20))

    run(main())


def test_what_cannot_be_sent_is_said_before_it_is(alice: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a:
            for wrong in (
                a.send_message("bob", "no json", type="json"),
                a.send_message("bob", {"set": {1, 2}}),
                a.send_message("bob", "x", message_id="not an id"),
                a.send_message("bob", "x", type="yaml"),  # type: ignore[arg-type]
            ):
                with pytest.raises(InvalidArgumentError):
                    await wrong

    run(main())


def test_receipts_tell_how_far_a_message_came(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            sent = await a.send_message("bob", "who reads this?", ttl=60)
            stored = await a.outbox_wait(sent, "stored", timeout=10)
            assert stored.reached("stored")
            reading = asyncio.ensure_future(a.outbox_wait(sent.id, "read", timeout=10))
            taken = await b.take_message(sender="alice", timeout=10)
            while taken is not None and taken.message_id != sent.id:
                taken = await b.take_message(sender="alice", timeout=10)
            assert (await reading).reached("read")
            assert (await a.outbox_show(sent)).reached("read")
            assert sent.id in [item.id for item in (await a.outbox(to="bob")).items]
            with pytest.raises(NotFoundError):
                await a.outbox_show("no-such-message")

    run(main())


def test_a_message_for_a_peer_that_is_away_waits(alice: Machine) -> None:
    async def main() -> None:
        from conftest import befriend

        dora = alice.world.machine("dora")
        await befriend(alice, dora)
        dora.kill()
        async with alice.pilot() as a:
            waits = await a.send_message(dora.address, "for later")
            taken_back = await a.send_message(dora.address, "not any more")
            assert not waits.reached("stored")
            assert (await a.outbox_cancel(taken_back)).state in ("cancelled", "queued", "sent")
            dora.start()
            arrived = await a.outbox_wait(waits, "stored", timeout=20)
            assert arrived.reached("stored"), arrived
            async with dora.pilot() as d:
                message = await d.take_message(timeout=10)
                assert message is not None
                assert message.text == "for later"
                assert await d.take_message(timeout=0.1) is None
        dora.kill()

    run(main())


def test_the_inbox_is_listed_marked_and_cleared(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            await b.clear_messages()
            for text in ("first", "second", "third"):
                await a.send_message("bob", text, until="stored")
            entries = await b.list_messages(sender="alice")
            assert [entry.preview for entry in entries] == ["first", "second", "third"]
            assert entries[0].from_ == a.address
            assert [entry.preview for entry in await b.list_messages(limit=1)] == ["third"]
            message = await b.read_message(entries[1].id)
            assert message.text == "second"
            assert [entry.preview for entry in await b.list_messages(unread=True)] == ["first", "third"]
            assert await b.mark_messages([entries[1].id], read=False) == 1
            assert [entry.preview for entry in await b.list_messages(text="sec")] == ["second"]
            assert await b.remove_messages([entries[0].id]) == 1
            assert await b.clear_messages(only_read=True) == 0
            assert await b.clear_messages() == 2
            with pytest.raises(NotFoundError):
                await b.read_message("no-such-id")

    run(main())


def test_an_inbox_hands_out_each_message_once_and_unread_ones_first(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            await b.clear_messages()
            await a.send_message("bob", "before", until="stored")
            seen = []

            async def follow() -> None:
                async for message in b.inbox(unread=True, sender="alice"):
                    seen.append(message.text)
                    if message.text == "last":
                        return

            following = asyncio.ensure_future(follow())
            for text in ("one", "two", "last"):
                await a.send_message("bob", text)
            await following
            assert seen == ["before", "one", "two", "last"]
            assert await b.list_messages(unread=True) == []

    run(main())


def test_a_wait_that_is_cancelled_takes_no_message(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            await b.clear_messages()
            waiting = asyncio.ensure_future(b.take_message(timeout=20))
            await asyncio.sleep(0)
            await b.info()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await a.send_message("bob", "still there", until="stored")
            while not (unread := await b.list_messages(unread=True)):
                await asyncio.sleep(0.01)
            assert [entry.preview for entry in unread] == ["still there"]

    run(main())


def test_waits_that_end_early_do_not_pile_up_at_the_daemon(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            inbox = await b.inbox(sender="alice").start()
            for _ in range(200):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(inbox.next(), 0.0001)
                assert await inbox.next(0) is None
            async with b.serve(sender="alice") as server:
                for number in range(20):
                    asking = asyncio.ensure_future(a.request("bob", str(number)))
                    await (await server.next()).answer("done")
                    assert (await asking).text == "done"
                await b.info()
                assert b._daemon._link is not None
                assert server._work is not None
                assert server._work._link is not None
                assert len(b._daemon._link._pending) < 5
                assert len(server._work._link._pending) < 5
            first = await inbox.next(10)
            assert first is not None
            assert first.text == "0"

    run(main())


def test_a_reply_names_what_it_answers(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            inbox = await b.inbox().start()
            sent = await a.send_message("bob", "how are you?")
            message = await inbox.next(10)
            assert message is not None
            await b.reply(message, "fine")
            answer = await a.wait_reply(sent, "bob", timeout=10)
            assert answer is not None
            assert (answer.text, answer.reply_to) == ("fine", sent.id)
            # A message is a peer, too.
            await b.send_message(message, "and you?", reply_to=message)

    run(main())


# ---- requests


async def served(b: Any, handler: Any) -> Any:
    server = await b.serve(sender="alice").start()
    return server, asyncio.ensure_future(server.run(handler))


def test_a_request_is_answered_by_a_handler(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async def handler(request: IncomingRequest) -> Any:
            assert request.hostname == "alice"
            assert 0 < request.time_left <= 30
            if request.text == "fail":
                raise FailedError("out of paper")
            if request.text == "decline":
                raise Decline("not my job")
            if request.text == "break":
                raise ValueError("/home/secret")
            return {"echo": request.text}

        async with alice.pilot() as a, bob.pilot() as b:
            server, serving = await served(b, handler)
            answer = await a.request("bob", "hello")
            assert (answer.json(), answer.outcome, answer.message.type) == ({"echo": "hello"}, "done", "json")
            answers = await asyncio.gather(*(a.request("bob", str(number)) for number in range(50)))
            assert [answer.json()["echo"] for answer in answers] == [str(number) for number in range(50)]
            with pytest.raises(FailedError, match="out of paper"):
                await a.request("bob", "fail")
            with pytest.raises(RefusedError, match="not my job"):
                await a.request("bob", "decline")
            loop = asyncio.get_running_loop()
            reported: list[Any] = []
            loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))
            with pytest.raises(FailedError) as broken:
                await a.request("bob", "break")
            assert "secret" not in broken.value.message
            assert [type(error) for error in reported] == [ValueError]
            serving.cancel()
            await server.close()

    run(main())


def test_a_plain_function_can_be_the_handler(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        def handler(request: IncomingRequest) -> str:
            return request.text.upper()

        async with alice.pilot() as a, bob.pilot() as b:
            server, serving = await served(b, handler)
            assert (await a.request("bob", "loud")).text == "LOUD"
            serving.cancel()
            await server.close()

    run(main())


def test_parts_and_progress_come_before_the_answer(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async def handler(request: IncomingRequest) -> None:
            assert request.wants_parts
            for number in range(3):
                await request.progress(f"{number} of 3")
                await request.part(f"part {number}\n")

        async with alice.pilot() as a, bob.pilot() as b:
            server, serving = await served(b, handler)
            words: list[str] = []
            parts: list[bytes] = []
            answer = await a.request("bob", "go", on_progress=words.append, on_part=parts.append)
            assert answer.text == b"".join(parts).decode() == "part 0\npart 1\npart 2\n"
            assert words == ["0 of 3", "1 of 3", "2 of 3"]
            async with await a.open_request("bob", "go", parts=True) as pending:
                kinds = [type(event) async for event in pending if not isinstance(event, StateChanged)]
            assert set(kinds) == {Progress, Part, Done}
            assert kinds[-1] is Done
            assert await pending.next() is None
            serving.cancel()
            await server.close()

    run(main())


def test_a_deadline_ends_both_sides(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def handler(request: IncomingRequest) -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                ended.set_result(await request.cancelled())
                raise
            return "too late"

        async with alice.pilot() as a, bob.pilot() as b:
            server, serving = await served(b, handler)
            with pytest.raises(PilotTimeoutError, match="a program there has taken the request"):
                await a.request("bob", "slow", timeout=0.7)
            assert await ended == "deadline"
            serving.cancel()
            await server.close()

    run(main())


def test_a_task_that_is_cancelled_takes_its_request_back(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            async with b.serve(sender="alice") as server:
                asking = asyncio.ensure_future(a.request("bob", "never mind", timeout=60))
                work = await server.next()
                assert not work.is_cancelled
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                assert await work.cancelled() == "cancelled"
                await work.release()

    run(main())


def test_a_request_is_given_back_when_it_is_left(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            async with b.serve(sender="alice") as server, b.serve(sender="alice") as other:
                asking = asyncio.ensure_future(a.request("bob", "who takes it?"))
                async with await server.next() as work:
                    assert work.text == "who takes it?"
                async with await server.next() as work:
                    again = work.id
                # With the connection everything that it held is given back.
                work = await server.next()
                assert work.id == again
                await server.close()
                taken = await other.next()
                assert taken.id == again
                await taken.answer("the other one")
                assert (await asking).text == "the other one"
                with pytest.raises(RuntimeError):
                    await taken.answer("twice")

    run(main())


def test_one_key_is_carried_out_once(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        count = 0

        async def handler(_: IncomingRequest) -> str:
            nonlocal count
            count += 1
            return f"run {count}"

        async with alice.pilot() as a, bob.pilot() as b:
            server, serving = await served(b, handler)
            key = os.urandom(8).hex()
            first = await a.request("bob", "order", key=key)
            second = await a.request("bob", "order", key=key)
            assert (first.text, second.text) == ("run 1", "run 1")
            serving.cancel()
            await server.close()

    run(main())


def test_the_command_line_answers_and_is_answered(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a:
            worker = bob.spawn("serve", "--exec", "tr a-z A-Z")
            try:
                assert (await a.request("bob", "loud", timeout=10)).text == "LOUD"
            finally:
                worker.kill()

        async def handler(request: IncomingRequest) -> str:
            return f"python heard {request.text}"

        async with bob.pilot() as b:
            server, serving = await served(b, handler)
            said = await asyncio.to_thread(alice.ctl, "send-message", "bob", "--data", "hi", "--wait=10s")
            assert "python heard hi" in str(said)
            serving.cancel()
            await server.close()

    run(main())


def test_an_answer_of_a_person_is_an_answer(alice: Machine, bob: Machine) -> None:
    async def main() -> None:
        async with alice.pilot() as a, bob.pilot() as b:
            inbox = await b.inbox().start()
            words: list[str] = []
            asking = asyncio.ensure_future(a.request("bob", "lunch?", timeout=20, on_progress=words.append))
            message: Message | None = await inbox.next(10)
            assert message is not None
            await b.remark(message, "let me see")
            await b.reply(message, "at noon")
            answer: Response = await asking
            assert answer.text == "at noon"
            assert words == ["let me see"]

    run(main())
