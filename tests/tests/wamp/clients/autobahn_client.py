"""Two sessions of autobahn, each on a URL and in a serializer of its own, do what WAMP clients do.

    autobahn_client.py REALM URL SERIALIZER URL SERIALIZER

Prints a line for each thing that worked; the first that does not is an exception.
"""

import asyncio
import sys

from autobahn.asyncio.wamp import ApplicationRunner, ApplicationSession
from autobahn.wamp import serializer as serializers
from autobahn.wamp.exception import ApplicationError
from autobahn.wamp.types import (
    CallOptions,
    PublishOptions,
    RegisterOptions,
    SubscribeOptions,
)

PATIENCE_S = 60

SERIALIZERS = {
    "json": serializers.JsonSerializer,
    "msgpack": serializers.MsgPackSerializer,
    "cbor": serializers.CBORSerializer,
}


async def join(realm, url, name):
    """A session that has joined."""
    joined = asyncio.get_running_loop().create_future()

    class Session(ApplicationSession):
        def onConnect(self):
            self.join(realm)

        def onJoin(self, details):
            joined.set_result((self, details))

        def onLeave(self, details):
            if not joined.done():
                joined.set_exception(RuntimeError(f"{url} {name}: {details}"))
            self.disconnect()

        def onDisconnect(self):
            pass

    runner = ApplicationRunner(url, realm, serializers=[SERIALIZERS[name]()])
    await runner.run(Session, start_loop=False)
    return await joined


async def eventually(call):
    """The result of a call, which another node may take a moment to hear of."""
    while True:
        try:
            return await call()
        except ApplicationError as error:
            if error.error != "wamp.error.no_such_procedure":
                raise
        await asyncio.sleep(0.02)


async def received(queue, publish):
    """What arrives after publishing until something does."""
    while True:
        await publish()
        try:
            return await asyncio.wait_for(queue.get(), 0.2)
        except asyncio.TimeoutError:
            pass


def done(what):
    print(what, flush=True)


async def rpc(caller, callee, uri):
    def add(a, b):
        return a + b

    def fail():
        raise ApplicationError(uri + ".error", "why", code=7)

    registration = await callee.register(add, uri + ".add")
    await callee.register(fail, uri + ".fail")
    assert await eventually(lambda: caller.call(uri + ".add", 2, 3)) == 5
    done("called")
    try:
        await eventually(lambda: caller.call(uri + ".fail"))
        raise AssertionError("no error")
    except ApplicationError as error:
        assert (error.error, error.args, error.kwargs) == (uri + ".error", ("why",), {"code": 7})
    done("failed as told")
    values = [1, -1, 2**53, 1.5, True, None, "grün", b"\x00\xff", [1, [2]], {"k": {"l": "m"}}]

    def echo(value):
        return value

    await callee.register(echo, uri + ".echo")
    got = await eventually(lambda: caller.call(uri + ".echo", values))
    assert got == values, got
    done("echoed values")
    calls = [caller.call(uri + ".add", k, 1) for k in range(200)]
    assert await asyncio.gather(*calls) == [k + 1 for k in range(200)]
    done("called 200 times at once")
    await registration.unregister()


async def progressive(caller, callee, uri):
    async def count(n, details=None):
        for k in range(n):
            details.progress(k)
        return n

    await callee.register(count, uri + ".count", RegisterOptions(details=True))
    parts = []
    options = CallOptions(on_progress=parts.append)
    assert await eventually(lambda: caller.call(uri + ".count", 10, options=options)) == 10
    assert parts == list(range(10)), parts
    done("progressive results")


async def canceled(caller, callee, uri):
    started, stopped = asyncio.Event(), asyncio.Event()

    async def sleep():
        started.set()
        try:
            await asyncio.sleep(PATIENCE_S)
        except asyncio.CancelledError:
            stopped.set()
            raise

    await callee.register(sleep, uri + ".sleep")
    await eventually(lambda: caller.call("wamp.registration.lookup", uri + ".sleep"))
    while True:
        call = caller.call(uri + ".sleep")
        waiting = asyncio.ensure_future(started.wait())
        await asyncio.wait({call, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if started.is_set():
            break
        try:
            await call
        except ApplicationError as error:
            assert error.error == "wamp.error.no_such_procedure", error
        await asyncio.sleep(0.02)
    call.cancel()
    await stopped.wait()
    done("canceled")


async def patterns(caller, callee, uri):
    async def which(details=None):
        return details.procedure

    options = RegisterOptions(match="prefix", details=True)
    await callee.register(which, uri + ".pre", options)
    got = await eventually(lambda: caller.call(uri + ".pre.fix.ed"))
    assert got == uri + ".pre.fix.ed", got
    options = RegisterOptions(match="wildcard", details=True)
    await callee.register(which, uri + ".wild..card", options)
    got = await eventually(lambda: caller.call(uri + ".wild.x.card"))
    assert got == uri + ".wild.x.card", got
    events = asyncio.Queue()

    def on_event(value, details=None):
        events.put_nowait((details.topic, value))

    options = SubscribeOptions(match="prefix", details=True)
    await callee.subscribe(on_event, uri + ".topics", options)

    async def publish():
        caller.publish(uri + ".topics.one", "x")

    assert await received(events, publish) == (uri + ".topics.one", "x")
    done("patterns")


async def pubsub(publisher, subscriber, uri):
    events = asyncio.Queue()

    def on_event(*args, **kwargs):
        events.put_nowait((args, kwargs))

    subscription = await subscriber.subscribe(on_event, uri + ".topic")

    async def probe():
        publisher.publish(uri + ".topic", "probe")

    await received(events, probe)
    acknowledged = PublishOptions(acknowledge=True)
    for k in range(100):
        publication = publisher.publish(uri + ".topic", k, name="n", options=acknowledged)
    assert (await publication).id > 0
    got = []
    while len(got) < 100:
        args, kwargs = await events.get()
        if args != ("probe",):
            got.append((args, kwargs))
    assert got == [((k,), {"name": "n"}) for k in range(100)], got
    await subscription.unsubscribe()
    done("100 events in order")


async def main():
    realm, first, one, second, two = sys.argv[1:]
    (a, of_a), (b, of_b) = await join(realm, first, one), await join(realm, second, two)
    assert of_a.session != of_b.session
    done("joined")
    uri = f"com.autobahn.s{of_a.session}"
    await rpc(a, b, uri)
    await progressive(a, b, uri)
    await canceled(a, b, uri)
    await patterns(a, b, uri)
    await pubsub(a, b, uri)
    await pubsub(b, a, uri + ".back")
    for session in (a, b):
        session.leave()
    done("all done")


asyncio.run(asyncio.wait_for(main(), PATIENCE_S))
